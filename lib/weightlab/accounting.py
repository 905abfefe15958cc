"""Stored bits and compression rates of plans. A rate is original bits / compressed bits, dimensionless.

Arrays: `weights` (L,) numbers of weights p per layer; `plans` (..., L) numbers of clusters k; results (...,). For a whole-net
plan pass one "layer" that holds all weights. Every rate depends on the plan and the format alone: k is charged in full even where
rounding makes centroids coincide. Biases and batch norm are not part of these rates.
"""

import numpy as np

from weightlab import formats

ORIGINAL_BITS = 32
RATES = ("storage", "layer_mean")  # what a search may aim at


def key_bits(k: np.ndarray) -> np.ndarray:
    """Bits of an index into k centroids: ceil(log2 k), 0 for k = 1."""
    return np.ceil(np.log2(np.asarray(k))).astype(np.int64)


def stored_bits(weights: np.ndarray, plans: np.ndarray, format: str) -> np.ndarray:
    """Bits of each layer's indices and codebook, int64 (..., L): p·ceil(log2 k) + k·b_rv."""
    weights, plans = np.asarray(weights), np.asarray(plans)
    return weights * key_bits(plans) + plans * formats.get(format).bits


def storage_rate(weights: np.ndarray, plans: np.ndarray, format: str) -> np.ndarray:
    """The headline: Σ p·32 / Σ stored bits over all shareable layers."""
    return np.sum(weights) * ORIGINAL_BITS / stored_bits(weights, plans, format).sum(-1)


def layer_mean_rate(weights: np.ndarray, plans: np.ndarray, format: str) -> np.ndarray:
    """The thesis's figure (its code; section 3.1 gives the layer rate only): mean of the layers' rates (3.2), unweighted."""
    weights = np.asarray(weights)
    return (weights * ORIGINAL_BITS / _thesis_bits(weights, plans, formats.get(format).bits)).mean(-1)


def thesis_model_rate(weights: np.ndarray, plans: np.ndarray, format: str, published_byte_slip: bool = False) -> np.ndarray:
    """Equation 3.2 over all layers together.

    `published_byte_slip` charges centroids 4, 2 or 1 where 32, 16 or 8 bits are meant, as the whole-net figures of table 5.3 do.
    """
    bits = formats.get(format).bits
    return np.sum(weights) * ORIGINAL_BITS / _thesis_bits(weights, plans, bits // 8 if published_byte_slip else bits).sum(-1)


def _thesis_bits(weights: np.ndarray, plans: np.ndarray, value_bits: int) -> np.ndarray:
    """Denominator of equation 3.2, per layer: p·b_k + k·(b_rv + b_k) with b_k at least 1."""
    keys = np.maximum(1, key_bits(plans))
    return np.asarray(weights) * keys + np.asarray(plans) * (value_bits + keys)
