"""The explorer's numbers as HTML. Elements of an answer have its number in `data-answer`."""

import base64
import io
from html import escape
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from weightlab.explore.prices import Prices
from weightlab.explore.study import Study
from weightlab.figures import label
from weightlab.packing import Packed
from weightlab.tuning.rate_distortion import LEVELS

COLUMNS = {
    "layer": "layer", "weights": "weights", "k": "k", "bits": "bits per label", "stored_bits": "stored bits", "rate": "rate",
    "max_error": "largest change of a weight",
}  # fmt: skip
PALE = "opacity: 0.4"  # the old answer, while a new one is being measured
HINT = (
    "Move lambda to compress without a plan: a bit for every weight then has this price, in nats of the network's own answers, in all layers "
    "alike. Level 0 (data-free) uses no image, level 1 (calibrated) training images without their classes."
)


def rate(name: str, value: float, answer: int) -> str:
    return f'<span data-answer="{answer}">{label(name)} <b style="font-size: 1.5em">{value:.2f}</b></span>'


def accuracy(study: Study, measured: pd.Series, answer: int, pale: bool = False) -> str:
    """Accuracy on validation, with the loss beside it; `pale` while another plan is being measured."""
    return (
        f'<span data-answer="{answer}" data-state="{"measuring" if pale else "measured"}" style="{PALE if pale else ""}">'
        f'accuracy <b style="font-size: 1.5em">{measured["validation_accuracy"]:.2%}</b> '
        f"of {len(study.validation)} validation images, loss <b>{measured['validation_loss_pp']:.2f} pp</b> against {study.original_accuracy:.2%} before</span>"
    )


def table(report: pd.DataFrame, answer: int) -> str:
    """The per-layer report of `Study.report`."""
    shown = report[list(COLUMNS)].rename(columns=COLUMNS)
    formats = {"rate": "{:.2f}".format, COLUMNS["max_error"]: "{:.4f}".format}
    text = shown.to_html(index=False, border=0, formatters=formats)
    looks = 'class="jp-RenderedHTMLCommon" style="max-height: 24em; overflow: auto"'  # JupyterLab's own class for tables
    return f'<div data-answer="{answer}" {looks}>{text}</div>'


def picture(figure: Figure, text: str, answer: int) -> str:
    """A figure as an image, with `text` as its description for those who cannot see it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    content = base64.b64encode(buffer.getvalue()).decode()
    return f'<img data-answer="{answer}" src="data:image/png;base64,{content}" alt="{escape(text)}">'


def priced(prices: Prices, measured: pd.Series, answer: int) -> str:
    """The network compressed at a price: its file, rates and accuracy, and which data they used."""
    level, price = int(measured["level"]), float(measured["price"])
    return (
        f'<span data-answer="{answer}" data-state="measured">lambda <b>{price:.3g}</b>, level {level} ({LEVELS[level]}): '
        f'<b style="font-size: 1.5em">{int(measured["file_bytes"])}</b> bytes as a file; '
        f"{label('coded_rate')} <b>{measured['coded_rate']:.2f}</b>, file rate <b>{measured['file_rate']:.2f}</b> (everything counted); "
        f"accuracy <b>{measured['validation_accuracy']:.2%}</b> of {len(prices.validation)} validation images, "
        f"loss <b>{measured['validation_loss_pp']:.2f} pp</b> against {prices.original_accuracy:.2%} before."
        f"<br>{escape(prices.data_used(level, price))}</span>"
    )


def compressing(old: str, level: int, price: float) -> str:
    """What is worked on, with what was shown before it."""
    return (
        f'<span data-state="compressing">compressing at lambda {price:.3g}, level {level} …</span><div style="{PALE}">{old}</div>'
    )


def message(text: str) -> str:
    return f'<span role="alert" style="color: #a00000">{escape(text)}</span>' if text else ""


def progress(evaluations: int, budget: int, speed: float | None, best: pd.Series | None, state: str) -> str:
    """The progress of a search: `speed` in evaluations a second, `best` the best acceptable plan so far."""
    sentence = "no plan loses less than 1 pp yet"
    if best is not None:
        sentence = (
            f"best: storage rate {best['storage_rate']:.2f}, loss {best['validation_loss_pp']:.2f} pp, plan {plan(best['plan'])}"
        )
    speeds = "" if speed is None else f", {speed:.1f} a second"
    return f'<span data-evaluations="{evaluations}">{state}: {evaluations} of {budget} evaluations{speeds}; {sentence}</span>'


def written(file: Path, packed: Packed, rate: str = "storage_rate") -> str:
    """A written file: its place, sizes, rates and accuracies."""
    summary = packed.summary()
    losses = "; ".join(
        f"{each.split} {each.packed:.2%} (loss {100 * (each.original - each.packed):.2f} pp)" for each in packed.details.accuracy
    )
    return (
        f"<code>{escape(str(file))}</code>: {summary['file_bytes']} bytes, the original has {summary['original_bytes']}; "
        f"{label(rate)} <b>{summary[rate]:.2f}</b>, file rate <b>{summary['file_rate']:.2f}</b> (everything counted); "
        f"accuracy on {losses}"
    )


def plan(ks: list[int], most: int = 12) -> str:
    """A plan as text, with an ellipsis in the middle of a long one."""
    words = [str(k) for k in ks]
    if len(words) > most:
        words = [*words[: most // 2], "…", *words[-most // 2 :]]
    return f"[{', '.join(words)}]"
