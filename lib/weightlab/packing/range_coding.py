"""Labels as an entropy-coded stream: an asymmetric numeral system over integer counts (Duda 2009, range variant); see `docs/format.md`.

All arithmetic is on whole numbers below 2**31, so that every machine writes and reads the same bytes.
"""

import numpy as np
from numba import njit

from weightlab.packing import label_coding

SCALES = range(12, 17)  # counts add up to 2**scale
LOW = 1 << 23  # the state lies from LOW to 256·LOW - 1 between two labels
HEAD = 3  # bytes: the scale, and the number of counts less one


def encode(labels: np.ndarray) -> np.ndarray:
    """Labels, unsigned (n,) below 2**16, as bytes, uint8: scale, counts and stream, at the scale that takes the fewest.

    >>> labels = np.repeat(np.arange(3, dtype=np.uint8), [900, 90, 10])
    >>> len(encode(labels)), len(label_coding.pack(labels, 2))  # 0.52 bits a label, and 2
    (76, 250)
    """
    occurrences = np.bincount(labels)
    return min(
        (_encoded(labels, occurrences, scale) for scale in SCALES if occurrences.astype(bool).sum() <= 1 << scale), key=len
    )


def decode(stored: np.ndarray, n: int) -> np.ndarray | None:
    """What `encode` made, of the smallest unsigned type; None if it is not n labels and nothing more."""
    if len(stored) < HEAD + 4 or stored[0] not in SCALES:
        return None
    scale, k = int(stored[0]), int(stored[1]) + 256 * int(stored[2]) + 1
    at = HEAD + -(-k * scale // 8)
    counts = label_coding.unpack(stored[HEAD:at], k, scale)
    if counts is None or counts.astype(np.int64).sum() != 1 << scale:
        return None
    labels = np.empty(n, dtype=np.uint8 if k <= 256 else np.uint16)
    return labels if _read(stored[at:], counts.astype(np.int64), scale, labels) else None


def _encoded(labels: np.ndarray, occurrences: np.ndarray, scale: int) -> np.ndarray:
    counts = scaled(occurrences, scale)
    head = np.array([scale, (len(counts) - 1) % 256, (len(counts) - 1) // 256], dtype=np.uint8)
    stream = np.empty(4 + 2 * len(labels), dtype=np.uint8)  # a label takes at most `scale` bits
    size = _write(labels, counts, scale, stream)
    return np.concatenate([head, label_coding.pack(counts.astype(np.uint16), scale), stream[len(stream) - size :]])


def scaled(occurrences: np.ndarray, scale: int) -> np.ndarray:
    """Counts, int64 (k,), that add up to 2**scale and lie near the occurrences; every label that occurs has at least 1.

    Beginning with the nearest counts, the sum is put right one by one where that costs the fewest bits. Two labels at least must occur,
    as a count of 2**scale has no place in the table.
    """
    total, n = 1 << scale, int(occurrences.sum())
    counts = np.where(occurrences > 0, np.maximum(1, np.round(occurrences * (total / n))), 0).astype(np.int64)
    while (surplus := int(counts.sum()) - total) != 0:
        step = -1 if surplus > 0 else 1
        free = counts > 1 if step < 0 else occurrences > 0
        with np.errstate(divide="ignore", invalid="ignore"):
            bits = np.where(free, occurrences * (np.log2(counts) - np.log2(np.maximum(counts + step, 1))), np.inf)
        counts[np.argsort(bits, kind="stable")[: min(abs(surplus), int(free.sum()))]] += step
    return counts


@njit(cache=True)
def _write(labels: np.ndarray, counts: np.ndarray, scale: int, stream: np.ndarray) -> int:
    """Fill a stream, uint8, from its end, last label first; returns how many bytes that took."""
    starts = np.cumsum(counts) - counts
    state, at = LOW, len(stream)
    for place in range(len(labels) - 1, -1, -1):
        count = counts[labels[place]]
        while state >= ((LOW >> scale) << 8) * count:
            at -= 1
            stream[at] = state & 255
            state >>= 8
        state = ((state // count) << scale) + state % count + starts[labels[place]]
    for _ in range(4):
        at -= 1
        stream[at] = state & 255
        state >>= 8
    return len(stream) - at


@njit(cache=True)
def _read(stream: np.ndarray, counts: np.ndarray, scale: int, labels: np.ndarray) -> bool:
    """Fill `labels` from a stream; whether it held exactly so many."""
    if len(stream) < 4:
        return False
    starts = np.cumsum(counts) - counts
    label_of = np.empty(1 << scale, dtype=np.uint16)
    for label in range(len(counts)):
        label_of[starts[label] : starts[label] + counts[label]] = label
    state, at, mask = 0, 4, (1 << scale) - 1
    for place in range(4):
        state = state << 8 | stream[place]
    if state < LOW or state >= LOW << 8:
        return False
    for place in range(len(labels)):
        slot = state & mask
        label = label_of[slot]
        labels[place] = label
        state = counts[label] * (state >> scale) + slot - starts[label]
        while state < LOW:
            if at == len(stream):
                return False
            state = state << 8 | stream[at]
            at += 1
    return state == LOW and at == len(stream)
