"""Errors of multipliers, weight tuning for them, and their tables as a product plus few separable terms."""

import numpy as np
import pandas as pd
from scipy import spatial
from threadpoolctl import threadpool_limits

from weightlab.compression.multipliers.tables import Library

OPERAND = np.arange(256)
PRODUCT = np.outer(OPERAND, OPERAND)


def errors(table: np.ndarray) -> dict[str, float | int]:
    """Errors of a table T, uint16 (256, 256), over all 65 536 products a b; E = T - a b.

    mae, wce: mean and largest |E|; ep_pct: share of wrong products in percent; mre_pct: mean of |E| / (a b) in percent; mean_error: mean
    of E; rank: that of E; zero_row, zero_column: largest T(0, .) and T(., 0). Names and definitions are those of EvoApprox8b (Mrazek et
    al., DATE 2017, ehw-fit/EvoApprox8b), except that mre_pct leaves out products that are 0.
    """
    error = table.astype(np.int64) - PRODUCT
    size = np.abs(error)
    nonzero = PRODUCT > 0
    return {
        "mae": float(size.mean()),
        "wce": int(size.max()),
        "ep_pct": 100 * float((error != 0).mean()),
        "mre_pct": 100 * float((size[nonzero] / PRODUCT[nonzero]).mean()),
        "mean_error": float(error.mean()),
        "rank": len(_decomposed(error)[1]),
        "zero_row": int(table[0].max()),
        "zero_column": int(table[:, 0].max()),
    }


def metrics(library: Library) -> pd.DataFrame:
    """A row for each multiplier: name, power_mw and its source, power_pct of the exact one, area_um2, delay_ns, and `errors`."""
    exact = library.power_mw[library.exact]
    rows = [
        {
            "name": each.name,
            "power_mw": each.power_mw,
            "power_source": each.power_source,
            "power_pct": 100 * each.power_mw / exact,
            "area_um2": each.area_um2,
            "delay_ns": each.delay_ns,
            **errors(each.table),
        }
        for each in library.multipliers
    ]
    return pd.DataFrame(rows)


def tune_map(table: np.ndarray) -> np.ndarray:
    """For every weight code w the code that should take its place, uint8 (codes,), of a table (256, codes).

    It is the w' with the least sum over i = 0..255 of |i w - T[i, w']|: the weight tuning of ALWANN (Mrazek et al. 2019,
    arXiv:1907.07229). Of equals w itself is taken, else the smallest.
    """
    codes = table.shape[1]
    distances = spatial.distance.cdist(PRODUCT[:, :codes].T, table.T.astype(float), "cityblock")  # (w, w'), exact: below 2^53
    least = distances.min(axis=1)
    return np.where(distances.diagonal() == least, OPERAND[:codes], distances.argmin(axis=1)).astype(np.uint8)


def factors(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """u and v, float64 (256, r), such that T = a b + u v^T up to rounding; r is the rank of T - a b, and 0 for the exact multiplier."""
    u, sizes, v = _decomposed(table.astype(float) - PRODUCT)
    return u * sizes, np.ascontiguousarray(v.T)


def _decomposed(error: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Singular vectors and values of E, of those values alone that are not 0: (256, r), (r,) and (r, 256).

    A value that is 0 may come out as n eps times the largest one, of which the Frobenius norm is a bound.
    """
    with threadpool_limits(1):  # more threads gain nothing at this size, and lose much on a busy machine
        u, sizes, v = np.linalg.svd(error.astype(float))
    rank = int((sizes > len(error) * np.finfo(float).eps * np.linalg.norm(error)).sum())
    return u[:, :rank], sizes[:rank], v[:rank]
