"""Answers about single plans: one chosen by hand, one codebook for the whole net, a packed file (notebooks 00, 01 and 08)."""

from collections.abc import Mapping

import pandas as pd

from weightlab.analysis.labels import label


def explored_plan(
    network: str, format: str, plan: list[int], rates: Mapping[str, float], report: pd.DataFrame, reported: pd.DataFrame
) -> list[str]:
    """What a plan saves and costs: `report` has a row per layer (stored_bits), `reported` one per split (images, loss_pp)."""
    largest, lost = report.loc[report["stored_bits"].idxmax()], reported.set_index("split")
    return [
        f"Plan {plan} in {format} stores the weights of {label(network)} at **storage rate "
        f"{rates['storage_rate']:.2f}** (layer-mean rate {rates['layer_mean_rate']:.2f}). It costs {lost.at['validation', 'loss_pp']:.2f} pp on "
        f"{lost.at['validation', 'images']} validation images and {lost.at['test', 'loss_pp']:.2f} pp on {lost.at['test', 'images']} test images. Layer "
        f"{largest['layer']} takes the largest part, {largest['stored_bits'] / report['stored_bits'].sum():.0%} of the stored bits."
    ]


def whole_net(compared: pd.DataFrame, format: str, rate: str, k_max: int, images: int, chooser: str) -> list[str]:
    """One codebook for the whole net against one for every layer, in `format`; then the range of whole-net rates over all formats.

    `compared` has a row per network, format and arm, the whole net's arm first: the best acceptable k (NaN if there is none), its rates
    and losses, and published_k and published_rate. `images` of the split `chooser` were used to choose.
    """
    whole, layered = dict.fromkeys(compared["arm"])
    paragraphs = []
    for network, rows in compared[compared["format"] == format].groupby("network", sort=False):
        own = rows.set_index("arm")
        sentences = [f"**{label(network)}, {label(format)}** (k chosen on {images} images of {chooser}; test is only reported):"]
        sentences += [_best_k(arm, row, rate, k_max, chooser) for arm, row in own.iterrows()]
        gain = own.at[layered, "storage_rate"] - own.at[whole, "storage_rate"]
        if pd.notna(gain):
            less, higher = ("less", "higher") if gain > 0 else ("more", "lower")
            sentences.append(f"A codebook per layer stores {less}: its rate is {abs(gain):.2f} {higher}.")
        paragraphs.append(" ".join(sentences))
    for network, rows in compared[(compared["arm"] == whole) & compared["k"].notna()].groupby("network"):
        rates = rows["storage_rate"]
        paragraphs.append(
            f"Over the formats {', '.join(map(label, rows['format']))} the best whole-net storage rate of {label(network)} lies "
            f"between {rates.min():.2f} and {rates.max():.2f}."
        )
    return paragraphs


def _best_k(arm: str, row: pd.Series, rate: str, k_max: int, chooser: str) -> str:
    if pd.isna(row["k"]):
        return f"{arm}: no k up to {k_max} loses less than 1 pp."
    published = f"; published {row['published_rate']:.2f} at k = {row['published_k']:.0f}" if row["published_k"] > 0 else ""
    return (
        f"{arm}: k = {row['k']:.0f}, **storage rate {row['storage_rate']:.2f}**, {label(rate)} {row[rate]:.2f}, loss "
        f"{row['loss_pp']:.2f} pp on {chooser} and {row['test_loss_pp']:.2f} pp on test{published}."
    )


def packed_file(
    network: str,
    chosen: pd.Series,
    summary: Mapping[str, float],
    images: Mapping[str, int],
    same: bool,
    test_accuracy: float,
    decided_differently: int,
    onnx_bytes: tuple[int, int],
) -> list[str]:
    """How small the file is, what it costs, and whether it gives back what was written.

    `chosen` is the plan's row of the records; `summary` has the rates and bytes of the file; `images` by split; `same`: every weight read
    back equals the one written; `test_accuracy` (fraction) is measured from the file; onnxruntime gives another class for
    `decided_differently` test images; `onnx_bytes` of the original and of the shared network.
    """
    before, after = onnx_bytes
    return [
        f"Plan {chosen['plan'].tolist()} in {chosen['format']} stores the weights of `{network}` at **storage rate {summary['storage_rate']:.2f}**; the file with everything in "
        f"it is **{summary['file_rate']:.2f} times smaller** than the original parameters and buffers ({summary['file_bytes']} of "
        f"{summary['original_bytes']} bytes, including a header of {summary['header_bytes']} bytes). It loses {chosen['validation_loss_pp']:.2f} pp on the "
        f"{images['validation']} validation images on which it was chosen and {chosen['test_loss_pp']:.2f} pp on {images['test']} test images. When the file "
        f"is read back, {'every weight is as it was written' if same else 'WEIGHTS DIFFER'}, and {test_accuracy:.2%} of the test images are classified "
        f"correctly. onnxruntime gives another class for {decided_differently} of {images['test']} test images; the ONNX file has {after} bytes, that of the "
        f"original network {before}."
    ]
