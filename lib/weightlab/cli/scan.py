"""`weightlab scan`: which numbers of clusters each layer can bear alone."""

from collections.abc import Iterable

import typer

from weightlab.cli import choices, options, output


@options.asks(lambda role: role.measured or role.apart)
def scan(
    ctx: typer.Context,
    fields: None = None,
    threshold: options.Threshold = None,
    folder: options.SearchesFolder = None,
    device: options.Device = "auto",
    threads: options.Threads = None,
) -> None:
    """Print which k each layer can bear alone."""
    import pandas as pd

    from weightlab.runs import Runner
    from weightlab.runs.setting import PROTOCOLS, RECORDED_SPLITS
    from weightlab.search import space

    setting, asked = choices.setting(ctx.params), choices.threshold(threshold)
    runner = Runner(options.folder(folder, options.SEARCHES), device, threads)
    least = None if asked is None else runner.least_accuracy(setting, asked)
    table, evaluator = runner.scan(setting), runner.evaluator(setting)
    chooser = PROTOCOLS[setting.protocol]
    allowed = {}
    for layer, rows in table.groupby("layer"):
        allowed[layer] = rows["k"] if least is None else rows.loc[rows[f"{chooser}_accuracy"] >= least, "k"]
    names = evaluator.variants.names
    columns = {"layer": names, "weights": evaluator.variants.weights, "allowed": [len(ks) for ks in allowed.values()]}
    output.table(pd.DataFrame(columns | {"k": [ranges(ks) for ks in allowed.values()]}))
    unshared = zip(RECORDED_SPLITS, evaluator.baseline(), evaluator.images, strict=True)
    print("unshared: " + ", ".join(f"{output.percent(value)} of {n} images of {split}" for split, value, n in unshared))
    margin = f" (threshold {asked})" if isinstance(asked, str) else ""
    needed = "any accuracy" if least is None else f"at least {output.percent(least)}{margin}"
    print(f"a k is allowed with {needed} on {chooser}; kept in {runner.folder}")
    space.reduce(table, f"{chooser}_accuracy", -1 if least is None else least)  # says what to do where a layer has none


def ranges(ks: Iterable[int]) -> str:
    """Ascending k in short, such as 3-8, 10; "none" where there are none."""
    spans: list[list[int]] = []
    for k in map(int, ks):
        if spans and spans[-1][1] == k - 1:
            spans[-1][1] = k
        else:
            spans.append([k, k])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in spans) or "none"
