"""Labels as a stream whose frequencies are learnt on the way, in the layer and in each of its columns; see `docs/format.md`.

Inputs of a layer differ in how much they matter, so their columns of weights differ in how often they are zero. Nothing is stored about it:
writer and reader count alike. A range coder (Martin 1979) puts the labels into bytes. All arithmetic is on whole numbers below 2**63.
"""

import numpy as np
from numba import njit

MOST_LABELS = 256  # different ones: each of them is counted anew for every label that is read
MOST = 1 << 24  # labels
MOST_COUNTED = 1 << 30  # labels times different ones: what reading takes
SHARPNESS = 16  # the layer's frequencies add up to about 2**16
# That a writer tries: 0 for no columns, else 2**inertia labels of a column weigh as much as all of the layer.
INERTIAS = (0, 4, 6)
LARGEST_INERTIA = 12
LARGEST_TOTAL = 1 << 28  # of frequencies, so that a range of 2**32 at least still tells them apart
FULL, LEAST = 1 << 40, 1 << 32  # between which the range is kept
HEAD = 4  # bytes: the number of labels less one, the inertia, the number of columns


def encode(labels: np.ndarray, columns: int = 0) -> np.ndarray | None:
    """Labels, unsigned (n,), as bytes, uint8, with the inertia that takes the fewest; None if there are too many or too many different ones.

    Label i is in column i mod `columns`; 0 for labels without columns.

    >>> labels = np.tile(np.repeat(np.arange(2, dtype=np.uint8), 50), 100)  # 50 columns of zeros, and 50 of ones
    >>> len(encode(labels)), len(encode(labels, columns=100))
    (1255, 336)
    """
    if labels.max() >= MOST_LABELS or not _readable(len(labels), int(labels.max()) + 1):
        return None
    inertias = [inertia for inertia in INERTIAS if inertia == 0 or _allowed(len(labels), columns, inertia)]
    return min((_encoded(labels, int(labels.max()) + 1, inertia, columns) for inertia in inertias), key=len)


def decode(stored: np.ndarray, n: int) -> np.ndarray | None:
    """What `encode` made, uint8 (n,); None if it is not n labels and nothing more."""
    if len(stored) < HEAD:
        return None
    k, inertia, columns = int(stored[0]) + 1, int(stored[1]), int(stored[2]) + 256 * int(stored[3])
    if not _readable(n, k) or not (_allowed(n, columns, inertia) if inertia else columns == 0):
        return None
    labels = np.empty(n, dtype=np.uint8)
    if not _read(stored[HEAD:], k, inertia, max(columns, 1), labels):
        return None
    return labels if np.array_equal(_encoded(labels, k, inertia, columns), stored) else None  # there is one stream for them


def _readable(n: int, k: int) -> bool:
    """Whether so many labels are read in seconds at most."""
    return n <= MOST and n * k <= MOST_COUNTED


def _allowed(n: int, columns: int, inertia: int) -> bool:
    """Whether frequencies stay within their limit, in whole rows of no more columns than two bytes can tell."""
    rows = n // columns if 1 <= columns < 1 << 16 and n % columns == 0 else LARGEST_TOTAL
    return 1 <= inertia <= LARGEST_INERTIA and rows << (SHARPNESS - inertia) <= LARGEST_TOTAL // 2


def _encoded(labels: np.ndarray, k: int, inertia: int, columns: int) -> np.ndarray:
    columns = columns if inertia else 0
    stream = np.zeros(4 * len(labels) + 16, dtype=np.uint8)
    size = _write(labels, k, inertia, max(columns, 1), stream)
    head = np.array([k - 1, inertia, columns % 256, columns // 256], dtype=np.uint8)
    return np.concatenate([head, np.trim_zeros(stream[:size], "b")])


@njit(cache=True)
def _frequencies(counts, own, inertia, seen, found):  # type: ignore[no-untyped-def]
    """Fill `found`, int64 (k,), from the counts of a layer and of a column; returns their sum."""
    share = (1 << 48) // (8 * seen + len(counts))
    total = 0
    for label in range(len(counts)):
        found[label] = 1 + (((8 * counts[label] + 1) * share) >> 32)
        if inertia:
            found[label] += np.int64(own[label]) << (SHARPNESS - inertia)
        total += found[label]
    return total


@njit(cache=True)
def _write(labels, k, inertia, columns, stream):  # type: ignore[no-untyped-def]
    """Fill a stream, uint8; returns how many bytes that took."""
    counts, own, found = np.zeros(k, np.int64), np.zeros((columns, k), np.int32), np.empty(k, np.int64)
    low, width, at = 0, FULL, 0
    for place in range(len(labels)):
        label, column = labels[place], place % columns
        part = width // _frequencies(counts, own[column], inertia, place, found)
        low, width = low + part * found[:label].sum(), part * found[label]
        low = _carried(stream, at, low)
        while width < LEAST:
            stream[at] = low >> 32
            low, width, at = (low & (LEAST - 1)) << 8, width << 8, at + 1
        counts[label] += 1
        own[column, label] += 1
    for size in range(6):  # the fewest bytes that lie within the range, whatever comes after them
        step = FULL >> (8 * size)
        value = (low + step - 1) // step * step
        if value < low + width:
            break
    value = _carried(stream, at, value)
    for byte in range(size):
        stream[at + byte] = (value >> (32 - 8 * byte)) & 255
    return at + size


@njit(cache=True)
def _carried(stream, at, low):  # type: ignore[no-untyped-def]
    """What is left of a low end when what exceeds the full range is added to the bytes before."""
    if low >= FULL:
        low -= FULL
        place = at - 1
        while stream[place] == 255:
            stream[place] = 0
            place -= 1
        stream[place] += 1
    return low


@njit(cache=True)
def _read(stream, k, inertia, columns, labels):  # type: ignore[no-untyped-def]
    """Fill `labels` from a stream; whether it was one. Behind its end there are zeros."""
    counts, own, found = np.zeros(k, np.int64), np.zeros((columns, k), np.int32), np.empty(k, np.int64)
    code, width, at = 0, FULL, 5
    for place in range(5):
        code = code << 8 | (stream[place] if place < len(stream) else 0)
    for place in range(len(labels)):
        column = place % columns
        part = width // _frequencies(counts, own[column], inertia, place, found)
        label, start = 0, 0
        while label < k and part * (start + found[label]) <= code:
            start += found[label]
            label += 1
        if label == k:
            return False
        code, width = code - part * start, part * found[label]
        while width < LEAST:
            code = code << 8 | (stream[at] if at < len(stream) else 0)
            width, at = width << 8, at + 1
        labels[place] = label
        counts[label] += 1
        own[column, label] += 1
    return True
