"""Range scans: which k each layer tolerates (sections 3.2 and 5.7)."""

import numpy as np
import pandas as pd


def judge_scans(scans: pd.DataFrame, limits: dict[str, float]) -> pd.DataFrame:
    """Scans with a verdict on every k: columns format, layer, name, k, and the accuracy (fraction) of each split in `limits`.

    `limits` holds the least accuracy by split; the first split decides. Added: `accuracy`, of that split; `allowed`; `hole`: not
    allowed although a smaller k of the layer is; `agreed`: the other splits give the same verdict.
    """
    verdicts = [scans[f"{split}_accuracy"] >= limit for split, limit in limits.items()]
    judged = scans.assign(accuracy=scans[f"{next(iter(limits))}_accuracy"], allowed=verdicts[0])
    judged = judged.sort_values(["format", "layer", "k"], kind="stable")
    smaller = judged.groupby(["format", "layer"])["allowed"].cummax()
    agreed = np.logical_and.reduce([verdict == verdicts[0] for verdict in verdicts])
    return judged.assign(hole=smaller & ~judged["allowed"], agreed=pd.Series(agreed, scans.index)).sort_index()


def summarise_scans(judged: pd.DataFrame, sensitive: int = 5) -> pd.DataFrame:
    """A row per format of what `judge_scans` returns, in the order of their first rows.

    `allowed_share` of all k; `log10_space`: of the number of plans left, and `log10_full`: of all; `emptied`: names of the layers
    without any allowed k; `holed`: number of layers with holes; `agreed_share`; `most_sensitive`: the layers (positions in
    the network) with the lowest mean accuracy, lowest first, without those at or above the median.
    """
    rows = {}
    for format, scan in judged.groupby("format", sort=False):
        layers = scan.groupby("layer")
        kept, means = layers["allowed"].sum(), layers["accuracy"].mean()
        rows[format] = {
            "allowed_share": scan["allowed"].mean(),
            "log10_space": np.log10(kept).sum() if kept.all() else np.nan,
            "log10_full": np.log10(layers.size()).sum(),
            "emptied": layers["name"].first()[kept == 0].tolist(),
            "holed": int(layers["hole"].any().sum()),
            "agreed_share": scan["agreed"].mean(),
            "most_sensitive": means[means < means.median()].nsmallest(sensitive).index.tolist(),
        }
    return pd.DataFrame.from_dict(rows, orient="index")
