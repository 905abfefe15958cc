"""Names of the repository's folders."""

import os
from pathlib import Path


def root() -> Path:
    """The repository: `$WEIGHTLAB_ROOT`, else the checkout this package lies in, else the working directory."""
    if folder := os.environ.get("WEIGHTLAB_ROOT"):
        return Path(folder)
    checkout = Path(__file__).resolve().parents[2]
    return checkout if (checkout / "notebooks").is_dir() else Path.cwd()


def resolve(folder: str | Path) -> Path:
    """A folder: unchanged if absolute, else below the repository, for any working directory."""
    return root() / folder


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
