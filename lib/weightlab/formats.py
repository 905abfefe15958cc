"""Number formats in which centroids are stored (thesis tables 2.3 and 2.4), and affine codes of numbers in a range."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from weightlab.errors import UserError, choose


@dataclass(frozen=True)
class Format:
    """A storage format: its name, bits per value, the rule that rounds float32 to its values (kept as float32), torch's type for it."""

    name: str
    bits: int
    round: Callable[[np.ndarray], np.ndarray]
    dtype: torch.dtype

    def encode(self, values: np.ndarray) -> torch.Tensor:
        """Values of this format, float32 (n,), in their stored form: `dtype` (n,); float8_thesis as bytes, 1-4-3."""
        return _thesis_codes(values) if self.name == "float8_thesis" else torch.from_numpy(values).to(self.dtype)

    def decode(self, stored: torch.Tensor) -> np.ndarray:
        """The values that `encode` stored, float32 (n,); NaN for bytes that are not a value of the format."""
        return _thesis_decoded(stored.numpy()) if self.name == "float8_thesis" else stored.float().numpy()


def get(name: str) -> Format:
    """The format called `name`; raises `UserError` for an unknown one.

    >>> get("float16").round(np.float32([0.1, 1e6])).tolist()
    [0.0999755859375, 65504.0]
    >>> get("float8_e4m3").round(np.float32([0.1, 1e6])).tolist()
    [0.1015625, 448.0]
    """
    choose("format", name, FORMATS)
    return FORMATS[name]


def _float16(values: np.ndarray) -> np.ndarray:
    """IEEE 754 half precision, nearest even; values beyond the largest (65 504) saturate, so that no weight becomes infinite."""
    return np.clip(values, -65504, 65504).astype(np.float16).astype(np.float32)


def _float8_e4m3(values: np.ndarray) -> np.ndarray:
    """OCP 8-bit E4M3 (Micikevicius et al. 2022), nearest even, saturating at 448."""
    return torch.from_numpy(np.clip(values, -448, 448)).to(torch.float8_e4m3fn).float().numpy()


def _thesis_values() -> np.ndarray:
    """The 239 values of the thesis's float8, ascending, float32 (239,): no exponent bias, nothing between 0.4375 and 1."""
    mantissa = np.arange(8)
    powers = [2.0 ** (exponent - 1) for exponent in range(1, 15)]
    positive = np.concatenate([mantissa[1:] / 16] + [(1 + mantissa / 8) * power for power in powers])
    return np.concatenate([-positive[::-1], [0.0], positive]).astype(np.float32)


_THESIS = _thesis_values()
_THESIS_MIDPOINTS = (_THESIS[:-1].astype(np.float64) + _THESIS[1:]) / 2


def _float8_thesis(values: np.ndarray) -> np.ndarray:
    """The thesis's own 1-4-3 float: the nearest value, a tie to the smaller (more negative) one, saturating at 15 360."""
    return _THESIS[np.searchsorted(_THESIS_MIDPOINTS, values, side="left")]


def _thesis_codes(values: np.ndarray) -> torch.Tensor:
    """Sign, exponent and mantissa as bits of a byte: without the sign, values ascend with their bytes, one by one from 0."""
    ranks = np.searchsorted(_THESIS, values) - len(_THESIS) // 2
    return torch.from_numpy((np.abs(ranks) | np.where(ranks < 0, 128, 0)).astype(np.uint8))


def _thesis_decoded(codes: np.ndarray) -> np.ndarray:
    ranks, largest = codes & 127, len(_THESIS) // 2
    values = np.where(ranks <= largest, _THESIS[largest + np.minimum(ranks, largest)], np.float32(np.nan))
    return np.where(codes & 128, -values, values)


FORMATS = {
    format.name: format
    for format in (
        Format("float32", 32, lambda values: values.copy(), torch.float32),
        Format("float16", 16, _float16, torch.float16),
        Format("float8_e4m3", 8, _float8_e4m3, torch.float8_e4m3fn),
        Format("float8_thesis", 8, _float8_thesis, torch.uint8),
    )
}


@dataclass(frozen=True)
class Affine:
    """Codes from 0 to `levels`: number = `scale` · (code - `zero`), both float32; `zero` is the code of the number 0, exactly.

    Rounding is that of TensorFlow's `FakeQuantWithMinMaxVars`, on which tf-approximate (ehw-fit) rests: a half goes up. It divides by the
    step; variants that multiply by its inverse may differ within the last bit of a tie.
    """

    scale: float
    zero: int
    levels: int = 255

    @property
    def low(self) -> float:
        """The number of code 0."""
        return float(np.float32(-self.zero) * np.float32(self.scale))

    def codes(self, numbers: np.ndarray) -> np.ndarray:
        """The nearest codes, uint8, of numbers, float32 of any shape; those outside the range take the first or the last code."""
        if not self.scale:
            return np.zeros(numbers.shape, np.uint8)
        low, scale = np.float32(self.low), np.float32(self.scale)
        steps = (np.clip(numbers, low, np.float32(self.levels - self.zero) * scale) - low) / scale
        return (steps + np.float32(0.5)).astype(np.uint8)  # which cuts off what is behind the point

    def numbers(self, codes: np.ndarray) -> np.ndarray:
        """The numbers, float32, that codes stand for."""
        return (codes.astype(np.float32) - np.float32(self.zero)) * np.float32(self.scale)


def affine(lowest: float, highest: float, bits: int = 8) -> Affine:
    """Codes for numbers from `lowest` to `highest`; 0 is always in the range, and has a code of its own (Jacob et al. 2018, eq. 1).

    Raises `UserError` for a range that is not finite in float32.

    >>> affine(-1, 1.55), affine(0.5, 2.55).codes(np.float32([0, 0.014, 0.016, 9])).tolist()
    (Affine(scale=0.009999999776482582, zero=100, levels=255), [0, 1, 2, 255])
    """
    low, high = np.float32(min(lowest, 0)), np.float32(max(highest, 0))
    if not float(high) - float(low) <= float(np.finfo(np.float32).max):  # nor if it is NaN
        raise UserError(f"codes need a finite range of numbers, got {lowest} to {highest}")
    levels = 2**bits - 1
    scale = (high - low) / np.float32(levels)
    zero = int(np.clip(np.floor(-low / scale + np.float32(0.5)), 0, levels)) if scale else 0
    return Affine(float(scale), zero, levels)
