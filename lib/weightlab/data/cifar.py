"""CIFAR-10's binary version: files of records, each a byte for the class and 3 072 bytes of pixels. Nothing is unpickled."""

from pathlib import Path

import numpy as np

from weightlab.data.downloads import CIFAR10_CONTENT, CIFAR10_PARTS
from weightlab.errors import UserError

RECORDS, CLASSES = 10_000, 10  # in each file
SHAPE = (3, 32, 32)
RECORD_BYTES = 1 + 3 * 32 * 32


def read(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Images, uint8 (n, 3, 32, 32), and labels, int64 (n,), of the part `train` or `test`, in the order of the files.

    Raises `UserError` for a file that is missing, or not of `RECORDS` records with labels from 0 to 9.
    """
    files = [_records(folder / name) for name in CIFAR10_PARTS[part]]
    images, labels = (np.concatenate([records[:, bytes] for records in files]) for bytes in (slice(1, None), 0))
    return images.reshape(-1, *SHAPE), labels.astype(np.int64)


def _records(file: Path) -> np.ndarray:
    """uint8 (records, 3073); the size is checked before anything is read."""
    expected = RECORDS * RECORD_BYTES
    try:
        if (size := file.stat().st_size) != expected:
            raise UserError(
                f"{file} has {size} bytes, but must have {expected} ({RECORDS} records of {RECORD_BYTES} bytes, "
                "CIFAR-10's binary version); replace it"
            )
        records = np.fromfile(file, np.uint8, expected).reshape(RECORDS, RECORD_BYTES)
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}); put {CIFAR10_CONTENT} into its folder") from None
    if len(wrong := np.flatnonzero(records[:, 0] >= CLASSES)):
        label = records[wrong[0], 0]
        raise UserError(f"{file} has the label {label} in record {wrong[0]}, but labels must be 0 to {CLASSES - 1}; replace it")
    return records
