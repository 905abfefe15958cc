"""Stored bits and compression rates of plans. A rate is original bits / compressed bits, dimensionless.

Arrays: `weights` (L,) numbers of weights p per layer; `plans` (..., L) numbers of clusters k; results (...,). For a whole-net
plan pass one "layer" that holds all weights. Every rate depends on the plan and the format only: all k centroids are counted, even if
rounding makes some equal. Biases and batch norm are not part of these rates.
"""

import numpy as np
from numpy.typing import ArrayLike

from weightlab import formats

ORIGINAL_BITS = 32
RATES = ("storage", "layer_mean")  # what a search may aim at


def key_bits(k: ArrayLike) -> np.ndarray:
    """Bits of an index into k centroids: ceil(log2 k), 0 for k = 1.

    >>> key_bits([1, 2, 3, 4, 5])
    array([0, 1, 2, 2, 3])
    """
    return np.ceil(np.log2(np.asarray(k))).astype(np.int64)


def stored_bits(weights: ArrayLike, plans: ArrayLike, format: str) -> np.ndarray:
    """Bits of each layer's indices and codebook, int64 (..., L): p·ceil(log2 k) + k·b_rv.

    >>> stored_bits(weights=[150, 48_000], plans=[4, 32], format="float16")
    array([   364, 240512])
    """
    weights, plans = np.asarray(weights), np.asarray(plans)
    return weights * key_bits(plans) + plans * formats.get(format).bits


def rates(weights: ArrayLike, bits: np.ndarray, thesis_bits: np.ndarray) -> dict[str, np.ndarray]:
    """Every rate by name, each (...,), from the bits of each layer, (..., L): those stored, and those of equation 3.2's denominator."""
    weights = np.asarray(weights)
    return {
        "storage_rate": weights.sum() * ORIGINAL_BITS / bits.sum(-1),
        "layer_mean_rate": (weights * ORIGINAL_BITS / thesis_bits).mean(-1),
        "thesis_model_rate": weights.sum() * ORIGINAL_BITS / thesis_bits.sum(-1),
    }


def storage_rate(weights: ArrayLike, plans: ArrayLike, format: str) -> np.ndarray:
    """The headline: Σ p·32 / Σ stored bits over all shareable layers.

    >>> print(storage_rate([150, 48_000], [4, 32], "float16").round(2))
    6.4
    """
    return _rates_of_sharing(weights, plans, format)["storage_rate"]


def layer_mean_rate(weights: ArrayLike, plans: ArrayLike, format: str) -> np.ndarray:
    """The thesis's figure (its code; section 3.1 gives the layer rate only): mean of the layers' rates (3.2), unweighted.

    >>> print(layer_mean_rate([150, 48_000], [4, 32], "float16").round(2))
    9.64
    """
    return _rates_of_sharing(weights, plans, format)["layer_mean_rate"]


def thesis_model_rate(weights: ArrayLike, plans: ArrayLike, format: str, published_byte_slip: bool = False) -> np.ndarray:
    """Equation 3.2 over all layers together.

    `published_byte_slip` counts 4, 2 or 1 for a centroid instead of 32, 16 or 8 bits, as the whole-net figures of table 5.3 do.
    """
    if not published_byte_slip:
        return _rates_of_sharing(weights, plans, format)["thesis_model_rate"]
    return np.sum(weights) * ORIGINAL_BITS / thesis_bits(weights, plans, format, published_byte_slip).sum(-1)


def thesis_bits(weights: ArrayLike, plans: ArrayLike, format: str, published_byte_slip: bool = False) -> np.ndarray:
    """Denominator of equation 3.2, per layer, int64 (..., L): p·b_k + k·(b_rv + b_k) with b_k at least 1."""
    keys, bits = np.maximum(1, key_bits(plans)), formats.get(format).bits
    return np.asarray(weights) * keys + np.asarray(plans) * ((bits // 8 if published_byte_slip else bits) + keys)


def _rates_of_sharing(weights: ArrayLike, plans: ArrayLike, format: str) -> dict[str, np.ndarray]:
    return rates(weights, stored_bits(weights, plans, format), thesis_bits(weights, plans, format))
