"""Names of the repository's folders, and how a file is written there."""

import io
import os
from pathlib import Path

import numpy as np
import pandas as pd


def root() -> Path:
    """The repository: `$WEIGHTLAB_ROOT`, else the checkout this package lies in, else the working directory."""
    if given := os.environ.get("WEIGHTLAB_ROOT"):
        return Path(given)
    checkout = Path(__file__).resolve().parents[2]
    return checkout if (checkout / "notebooks").is_dir() else Path.cwd()


def resolve(folder: str | Path) -> Path:
    """A folder as given if absolute, else below the repository, wherever the process happens to stand."""
    return root() / folder


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that at every moment it is either as before or complete."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_table(table: pd.DataFrame, folder: str | Path, name: str) -> Path:
    """Write a table as `folder/name.parquet`, whole or not at all; returns the file."""
    file = resolve(folder) / f"{name}.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    write_whole(file, buffer.getvalue())
    return file


def write_csv(table: pd.DataFrame, folder: str | Path, name: str) -> Path:
    """Write a table as `folder/name.csv`, whole or not at all, plans as lists such as [3, 5, 3, 2, 2]; returns the file."""
    file = resolve(folder) / f"{name}.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    plain = table.map(lambda value: value.tolist() if isinstance(value, np.ndarray) else value)
    write_whole(file, plain.to_csv(index=False, lineterminator="\n").encode())
    return file


def data() -> Path:
    """Downloaded datasets: `$WEIGHTLAB_DATA`, else `data/` in the repository."""
    return Path(os.environ.get("WEIGHTLAB_DATA") or root() / "data")


def models() -> Path:
    return root() / "models"


def notebooks() -> Path:
    return root() / "notebooks"


def params() -> Path:
    return root() / "params"


def outputs() -> Path:
    return root() / "outputs"


def published() -> Path:
    return root() / "published"
