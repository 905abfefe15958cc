"""Files written whole or not at all, tables with their own checksum in them, and locks."""

import hashlib
import io
import os
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
import pyarrow
from filelock import FileLock, Timeout
from pyarrow import parquet

from weightlab import paths
from weightlab.errors import UserError, flat

SEAL = "weightlab.sha256"  # the key under which a table's own checksum lies in it
SEAL_PLACE = SEAL.encode() + b"\x18\x40"  # in the file: the key, then Thrift's mark of 64 bytes, then these


def make_writable(folder: Path) -> None:
    """Make a folder and prove that it can be written, before any work is done; raises `UserError` if it cannot."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        proof = folder / f".writable-{os.getpid()}"
        write_whole(proof, b"")
        proof.unlink()
    except OSError as error:
        raise UserError(f"the outputs folder {folder} cannot be written: {error}") from error


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is at every moment either unchanged or complete."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")  # process numbers may repeat on another machine
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_table(table: pd.DataFrame, folder: str | Path, name: str, notes: Mapping[str, str] = MappingProxyType({})) -> Path:
    """Write a table as `folder/name.parquet`, whole or not at all, with its own checksum and notes in it; returns the file.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = write_table(pd.DataFrame({"k": [2, 4]}), folder, "scan", {"unit": "clusters"})
    ...     table, notes = read_table(file)
    >>> table["k"].tolist(), notes
    ([2, 4], {'unit': 'clusters'})
    """
    file = paths.resolve(folder) / f"{name}.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    content = pyarrow.Table.from_pandas(table, preserve_index=False)
    content = content.replace_schema_metadata({**content.schema.metadata, **notes, SEAL: "0" * 64})
    buffer = io.BytesIO()
    parquet.write_table(content, buffer)
    write_whole(file, _seal(buffer.getvalue()))
    return file


@contextmanager
def lock(file: Path, wait: bool = True) -> Iterator[bool]:
    """Hold an operating-system lock on a file, released when this process ends in any way; yields whether it is ours.

    Without `wait` it is not ours while another process holds it. Raises `UserError` if the file cannot be written, or the file
    system has no such locks: a substitute would outlive its holder.
    """
    file_lock = FileLock(file, fallback_to_soft=False)
    try:
        file_lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        yield False
        return
    except (OSError, NotImplementedError) as error:
        raise UserError(f"the folder {file.parent} cannot be written, or its file system has no locks: {error}") from error
    try:
        yield True
    finally:
        file_lock.release()


class Damaged(UserError):
    """A file whose content is not what was written."""


def read_table(file: Path) -> tuple[pd.DataFrame, dict[str, str]]:
    """A table that `write_table` wrote, and its notes.

    Raises `Damaged` unless every byte is as it was written, and `UserError` if the file cannot be read, which may pass.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error}") from error
    try:
        if content != _seal(content):
            raise ValueError("its checksum is wrong")
        # Without threads: those of pyarrow may abort a process that ends.
        table = parquet.ParquetFile(io.BytesIO(content)).read(use_threads=False)
        notes = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
        return table.to_pandas(use_threads=False), {key: value for key, value in notes.items() if key not in (SEAL, "pandas")}
    except (ValueError, pyarrow.ArrowException) as error:
        raise Damaged(f"{file} is damaged or was not written by weightlab ({flat(error)})") from error


def kept_table(file: Path) -> pd.DataFrame | None:
    """A table that can be made again: None if it is missing, or damaged (with a warning)."""
    try:
        return read_table(file)[0] if file.exists() else None
    except Damaged as error:
        warnings.warn(f"{error}; it is made again", stacklevel=3)
        return None


def _seal(content: bytes) -> bytes:
    """A Parquet file with the checksum of itself in its place; the checksum is taken with zeros there."""
    place = content.rfind(SEAL_PLACE) + len(SEAL_PLACE)
    if place < len(SEAL_PLACE):
        raise ValueError("it has no checksum")
    before, after = content[:place], content[place + 64 :]
    return before + hashlib.sha256(before + b"0" * 64 + after).hexdigest().encode() + after


def write_csv(table: pd.DataFrame, folder: str | Path, name: str) -> Path:
    """Write a table as `folder/name.csv`, whole or not at all, plans as lists such as [3, 5, 3, 2, 2]; returns the file."""
    file = paths.resolve(folder) / f"{name}.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    plain = table.map(lambda value: value.tolist() if isinstance(value, np.ndarray) else value)
    write_whole(file, plain.to_csv(index=False, lineterminator="\n").encode())
    return file
