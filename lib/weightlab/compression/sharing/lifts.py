"""Codebooks made in lifted spaces (equation 3.1), as variants that a plan may name."""

import numpy as np
import torch

from weightlab.compression import contract
from weightlab.compression.sharing import clustering, codebooks
from weightlab.compression.sharing.clustering import PLAIN, Codebook, Lift
from weightlab.compression.sharing.codebooks import Codebooks, Kept, packed, unpacked


class Lifted:
    """The layers of some codebooks with variants that are pairs of k and lift, numbered from 1 in the order of calls of `variant`.

    The list grows, and its numbers are valid only for this object: tables hold k and focus values. A plan has the rates of its k.
    """

    def __init__(self, books: Codebooks):
        self.codebooks, self.layers, self.names, self.groups = books, books.layers, books.names, books.groups
        self._pairs: dict[tuple[int, Lift], int] = {}
        self._stored: dict[tuple[int, int], Kept] = {}  # packed, because there may be thousands of them

    def variant(self, k: int, lift: Lift) -> int:
        """The number of k clusters made in a lifted space; raises `UserError` for k outside 1..65 536."""
        clustering.check_k(k)
        return self._pairs.setdefault((int(k), PLAIN if lift.is_plain else lift), len(self._pairs) + 1)

    def count(self, group: int) -> int:
        """The number of pairs so far."""
        return len(self._pairs)

    def get(self, group: int, variant: int) -> Codebook:
        """The codebook of a group under a variant."""
        (k, lift), weights = list(self._pairs)[variant - 1], self.codebooks.original(group)
        if lift.is_plain:
            return self.codebooks.get(group, k)
        if (group, variant) not in self._stored:
            book = clustering.cluster(weights, k, self.codebooks.method, self.codebooks.format, lift)
            self._stored[group, variant] = packed(book, weights)
        return unpacked(*self._stored[group, variant], weights)

    def weight(self, layer: int, variant: int) -> torch.Tensor:
        """The shared weights of a layer, float32 of its shape."""
        return self.codebooks.part(layer, self.get(int(self.groups[layer]), variant))

    def bits(self, plans: np.ndarray) -> np.ndarray:
        """Stored bits of each group, int64 (..., groups)."""
        return self.codebooks.bits(self._ks(plans))

    def thesis_bits(self, plans: np.ndarray) -> np.ndarray:
        """Bits of each group by the denominator of equation 3.2, int64 (..., groups)."""
        return self.codebooks.thesis_bits(self._ks(plans))

    def stored(self, group: int, variant: int) -> contract.Stored:
        """A group's codebook as a file holds it."""
        return codebooks.stored(self.get(group, variant), list(self._pairs)[variant - 1][0], self.codebooks.format)

    def describe(self) -> dict:
        """What the variants depend on, JSON-ready."""
        return self.codebooks.describe() | {"lifts": [[k, lift.focus, lift.spread] for k, lift in self._pairs]}

    def _ks(self, plans: np.ndarray) -> np.ndarray:
        return np.array([k for k, _ in self._pairs], dtype=np.int64)[np.asarray(plans) - 1]
