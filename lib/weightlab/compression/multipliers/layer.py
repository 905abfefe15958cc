"""A convolution of 8-bit codes with an approximate multiplier, as a module in the place of the layer."""

from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from weightlab import formats
from weightlab.compression.multipliers import convolution, metrics
from weightlab.compression.multipliers.convolution import Geometry
from weightlab.compression.multipliers.tables import Multiplier
from weightlab.formats import Affine

IMAGES = 64  # that go through a GPU together: the channels of the low-rank form are many


class Codes:
    """The codes of a convolution's activations on a CPU, as columns of patches, made once for all multipliers."""

    def __init__(self, x: np.ndarray, range: Affine, geometry: Geometry):
        self.range, self.n = range, len(x)
        self.columns, self.size = convolution.patches(range.codes(x), geometry, range.zero)
        self._groups = geometry.groups

    @cached_property
    def sums(self) -> np.ndarray:
        """Σ q1 of every patch, int32 (groups, patches)."""
        return self.columns.reshape(self._groups, -1, self.columns.shape[1]).sum(1, dtype=np.int32)


class ApproximateConv2d(nn.Module):
    """A convolution whose products of codes are read from a multiplier's table.

    y = s1·s2·(Σ T[q1, q2] - z2·Σ q1 - z1·Σ q2 + K·z1·z2) + bias, with x = s·(q - z) (tf-approximate). One range of numbers for all weights,
    one for all activations: `range`, or that of each batch, with None. `tune` maps weights to those for which the multiplier is less wrong
    (ALWANN, Mrazek et al. 2019). `signed`: weights as sign and magnitude, |w| <= 127·s2, and the sign is applied to the product.
    """

    def __init__(self, layer: nn.Conv2d, multiplier: Multiplier, range: Affine | None, tune: bool = False, signed: bool = False):
        super().__init__()
        self.table, self.range, self.geometry = multiplier.table, range, Geometry.of(layer)
        self.reflected = None if layer.padding_mode == "zeros" else layer.padding_mode
        self.pads: Any = layer._reversed_padding_repeated_twice
        weight = layer.weight.detach().cpu().numpy()
        self.signs: np.ndarray | None = None
        if signed:
            codes = formats.affine(0, float(np.abs(weight).max()), bits=7)
            true, self.signs = codes.codes(np.abs(weight)), np.where(weight < 0, -1, 1).astype(np.int8)
        else:
            codes = formats.affine(float(weight.min()), float(weight.max()))
            true = codes.codes(weight)
        self.weight_range = codes
        self.weights = (
            metrics.tune_map(self.table[:, : codes.levels + 1])[true] if tune else true
        )  # uint8 (outputs, channels / groups, rows, columns)
        self.bias: torch.Tensor | None
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().clone())
        self.outputs, self.taps, self.zero = len(weight), weight[0].size, codes.zero
        signed_codes = true.astype(np.int64) if self.signs is None else true.astype(np.int64) * self.signs
        self.weight_sums = signed_codes.reshape(self.outputs, -1).sum(1)  # Σ q2, int64 (outputs,)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Activations float32 (n, channels, height, width) -> (n, outputs, h, w)."""
        if not x.is_cuda:
            return self.of_codes(self.coded(x))
        x = self._padded(x)
        range = self._range(x)
        return torch.cat([self._finished(self._by_low_rank(part, range), range) for part in x.split(IMAGES)])

    def coded(self, x: torch.Tensor) -> Codes:
        """The codes of activations on a CPU, the same for all multipliers of a layer."""
        x = self._padded(x)
        return Codes(x.numpy(), self._range(x), self.geometry)

    def of_codes(self, codes: Codes) -> torch.Tensor:
        """The output for codes of activations that `coded` made."""
        each, taps = self.outputs // self.geometry.groups, self.taps
        sums = np.empty((codes.columns.shape[1], self.outputs), np.int32)
        for group in range(self.geometry.groups):
            part, own = slice(group * taps, (group + 1) * taps), slice(group * each, (group + 1) * each)
            weights, signs = (
                None if values is None else np.ascontiguousarray(values[own].reshape(each, taps).T)
                for values in (self.weights, self.signs)
            )
            sums[:, own] = convolution.row_add(codes.columns[part], weights, signs, self.table)  # type: ignore[arg-type]
            if self.zero:
                sums[:, own] -= self.zero * codes.sums[group][:, None]
        sums += self._constant(codes.range).astype(np.int32)
        ordered = sums.reshape(*codes.size, codes.n, self.outputs).transpose(2, 3, 0, 1)
        return self._finished(torch.from_numpy(np.ascontiguousarray(ordered)), codes.range)

    @cached_property
    def _factors(self) -> tuple[np.ndarray, np.ndarray]:
        return metrics.factors(self.table)

    def _padded(self, x: torch.Tensor) -> torch.Tensor:
        """Activations, with what a layer pads with something else than zeros."""
        x = F.pad(x, self.pads, mode=self.reflected) if self.reflected else x
        return x.detach().contiguous()

    def _range(self, x: torch.Tensor) -> Affine:
        return self.range or formats.affine(float(x.min()), float(x.max()))

    def _constant(self, range: Affine) -> np.ndarray:
        """K·z1·z2 - z1·Σ q2, int64 (outputs,)."""
        return self.taps * range.zero * self.zero - range.zero * self.weight_sums

    def _finished(self, sums: torch.Tensor, range: Affine) -> torch.Tensor:
        """Whole numbers (n, outputs, h, w) times both steps, plus bias."""
        y = sums.float() * float(np.float32(range.scale) * np.float32(self.weight_range.scale))
        return y if self.bias is None else y + self.bias.to(y)[:, None, None]

    def _by_low_rank(self, x: torch.Tensor, range: Affine) -> torch.Tensor:
        """Σ (q1 - z1)·(q2 - z2) by the table for activations on any device, int64 (n, outputs, h, w)."""
        codes = torch.from_numpy(range.codes(x.cpu().numpy())).to(x.device)
        weights, signs = (
            None if values is None else torch.from_numpy(values).to(x.device) for values in (self.weights, self.signs)
        )
        arguments = self.geometry, range.zero
        sums = convolution.low_rank(codes, weights, signs, self._factors, *arguments)  # type: ignore[arg-type]
        if self.zero:
            sums -= self.zero * convolution.window_sums(codes, self.taps, self.outputs, *arguments)
        return sums + torch.from_numpy(self._constant(range)).to(x.device)[:, None, None]
