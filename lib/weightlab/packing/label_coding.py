"""The labels of a packed file as bytes: at so many bits each, or as a zstandard frame; see `docs/format.md`."""

import numpy as np
import zstandard

LARGEST_WINDOW = 1 << 27  # bytes that zstandard may look back, its own default limit


def pack(labels: np.ndarray, bits: int) -> np.ndarray:
    """Labels, unsigned (n,), at `bits` bits each, uint8 (ceil(n·bits / 8),): bit j of label i is bit i·bits + j of the stream.

    The stream's first bit is the lowest of the first byte; unused bits of the last byte are 0.

    >>> pack(np.uint8([0, 1, 2, 3, 3]), bits=2)  # 5 labels in 10 bits
    array([228,   3], dtype=uint8)
    >>> unpack(np.uint8([0b11_10_01_00, 0b11]), n=5, bits=2)
    array([0, 1, 2, 3, 3], dtype=uint8)
    """
    return np.packbits((labels[:, None] >> np.arange(bits, dtype=labels.dtype)) & 1, bitorder="little")


def unpack(stored: np.ndarray, n: int, bits: int) -> np.ndarray | None:
    """The labels that `pack` stored, of the smallest unsigned type; None if there are not n labels, or bits are set beyond them."""
    if len(stored) != -(-n * bits // 8) or np.unpackbits(stored[-1:], bitorder="little")[(n * bits - 1) % 8 + 1 :].any():
        return None
    stream = np.unpackbits(stored, count=n * bits, bitorder="little").reshape(n, bits)
    labels: np.ndarray = np.zeros(n, dtype=np.uint8 if bits <= 8 else np.uint16)
    for bit in range(bits):
        labels |= stream[:, bit].astype(labels.dtype) << np.array(bit, dtype=labels.dtype)
    return labels


def compress(labels: np.ndarray, bits: int) -> np.ndarray:
    """Labels as one zstandard frame, uint8 (bytes,): their low bytes, then (beyond 8 bits) their high bytes.

    The lowest level uses Huffman's code only and is often the smallest: weights seldom repeat themselves.
    """
    planes = labels.astype("u1" if bits <= 8 else "<u2").view(np.uint8).reshape(len(labels), -1).T.tobytes()
    frames = (zstandard.ZstdCompressor(level=level).compress(planes) for level in (1, 19))
    return np.frombuffer(min(frames, key=len), dtype=np.uint8)


def expand(stored: np.ndarray, n: int, bits: int) -> np.ndarray | None:
    """The labels that `compress` stored; None if it is not a frame that declares n labels and holds them."""
    size = n if bits <= 8 else 2 * n
    try:
        frame = zstandard.get_frame_parameters(stored.tobytes())
        if frame.content_size != size or frame.window_size > LARGEST_WINDOW or frame.dict_id:
            return None
        decompressor = zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW)
        planes = np.frombuffer(decompressor.decompress(stored.tobytes(), allow_extra_data=False), dtype=np.uint8)
    except zstandard.ZstdError:
        return None
    if len(planes) != size:
        return None
    return planes.copy() if bits <= 8 else np.ascontiguousarray(planes.reshape(2, n).T).view("<u2").ravel().astype(np.uint16)
