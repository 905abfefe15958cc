"""The answer about a network of 53 layers (notebook 07)."""

import numpy as np
import pandas as pd

from weightlab.analysis.labels import label


def mobilenet(
    network: str,
    overview: pd.DataFrame,
    best: pd.DataFrame,
    fine_tuned: pd.DataFrame,
    baseline: float,
    threshold: float,
    rate: str,
    chooser: str,
    other: str,
    images: int,
) -> list[str]:
    """What the scan, the searches and fine-tuning say, one list of points.

    `overview` is the table of `summarise_scans`; `best` has a row per format and arm, an arm being a search or "one k for every layer";
    `fine_tuned` has loss_before_pp and loss_after_pp by split and accuracy; `baseline` and `threshold` are accuracies (fractions) on the
    `images` images of the split `chooser`, `other` is the other recorded split.
    """
    error_pp, below_pp = 100 * np.sqrt(baseline * (1 - baseline) / images), 100 * (baseline - threshold)
    first = overview.iloc[0]
    points = [
        f"**{label(network)}**: plans were chosen on {images} images of {chooser}. The threshold of the scan is {below_pp:.2f} pp below the "
        f"{100 * baseline:.2f} % of the unshared network (± {error_pp:.2f} pp). In {overview.index[0]}, {other} gives the same verdict for "
        f"{first['agreed_share']:.0%} of all k; the most sensitive layers are {first['most_sensitive']}.\n"
    ]
    for format, row in overview.iterrows():
        emptied = ", ".join(row["emptied"]) or "none"
        points.append(f"- Scan, {label(format)}: {row['allowed_share']:.0%} of all k pass; layers without any: {emptied}.")
    single = best[best["arm"] == "one k for every layer"].set_index("format")[rate]
    for row in best.to_dict("records"):
        gain = row[rate] - single.get(row["format"], np.nan)
        searched = row["arm"] != "one k for every layer"
        against = f"; {label(rate)} {gain:+.2f} against the best single k" if searched and pd.notna(gain) else ""
        points.append(
            f"- {label(row['arm'])}, {label(row['format'])}: layer-mean rate {row['layer_mean_rate']:.2f}, **storage rate {row['storage_rate']:.2f}**, "
            f"loss {row['loss_pp']:.2f} pp, on {other} {row[f'{other}_loss_pp']:.2f} pp{against}."
        )
    gain = fine_tuned["loss_before_pp"] - fine_tuned["loss_after_pp"]
    points.append(
        f"- Fine-tuning improves {(gain > 0).sum()} and worsens {(gain < 0).sum()} of {len(gain)} rows (splits, top-1 or top-5); the mean gain is "
        f"{gain.mean():+.2f} pp."
    )
    return ["\n".join(points)]
