"""`make bench`: how fast plans are evaluated and codebooks made, beside the thesis's way and a plain one, in one run.

Arms: *thesis*: every layer clustered again with scikit-learn's KMeans(n_init=10), images through a DataLoader of batches of 32 with the
PIL resize each time. *plain*: codebooks at hand, images as one tensor in memory, the fastest of several chunk sizes. *engine*: the whole
run, codebooks included. The arms take turns in rounds, so that a noisy machine favours none; a ratio is that of the medians of a
round's times per plan, reported as the median over the rounds with their range. The last line printed is one JSON object.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from PIL import Image

from weightlab import backend, data, figures, models, paths, rng, search, storage
from weightlab.compression.sharing import clustering
from weightlab.compression.sharing.codebooks import Codebooks
from weightlab.data import downloads
from weightlab.evaluation import Evaluator
from weightlab.search import fitness, space

NETWORK, K_MAX = "lenet5_tanh", 50
COUNTS = {"ga": 397, "pso": 400, "scan": 5 * K_MAX, "enumeration": 8**5}  # plans of a run
WORKLOADS = tuple(COUNTS)
MACS = np.array([784 * 150, 100 * 2400, 48_000, 10_080, 840])  # multiplications of an image, by stage
OUTPUT = paths.outputs() / "bench"


class Thesis:
    """One plan as the thesis's program evaluated it (reimplemented from its description)."""

    def __init__(self, model: torch.nn.Module, split: data.Split):
        raw = downloads.fetch("mnist")
        images = data.splits._read_idx(raw / "t10k-images-idx3-ubyte")
        order = rng.permutation(data.SPLIT_SEED, "mnist", len(images))[: len(split)]
        transforms = backend.torchvision().transforms
        resize = transforms.Compose([transforms.Resize((32, 32)), transforms.ToTensor()])
        labels = split.labels.tolist()
        dataset = _Images([images[i] for i in order], labels, resize)
        self.loader = torch.utils.data.DataLoader(dataset, batch_size=32)
        self.model, self.codebooks = model, Codebooks(model, "kmeans", ks=())

    def __call__(self, plan: np.ndarray) -> int:
        shared = models.build(NETWORK)
        shared.load_state_dict(self.model.state_dict())
        for group, k in enumerate(plan.tolist()):
            if k:
                self.codebooks.apply(shared, group, clustering.cluster(self.codebooks.original(group), k, "kmeans"))
        shared.eval()
        with torch.inference_mode():
            return sum(int((shared(images).argmax(1) == labels).sum()) for images, labels in self.loader)


class _Images(torch.utils.data.Dataset):
    def __init__(self, images, labels, transform):
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.transform(Image.fromarray(self.images[i])), self.labels[i]


class Plain:
    """One plan with codebooks at hand and images in memory, at the chunk size that was fastest at first."""

    def __init__(self, model: torch.nn.Module, split: data.Split, codebooks: Codebooks):
        self.model, self.codebooks, self.shared = model, codebooks, models.build(NETWORK).eval()
        self.images, self.labels = split.images.float() / 255, split.labels
        plan = np.full(5, 9)
        self.chunk = min((50, 100, 250, 500, 1000), key=lambda chunk: min(_seconds(self, plan, chunk) for _ in range(3)))

    def __call__(self, plan: np.ndarray, chunk: int | None = None) -> int:
        self.shared.load_state_dict(self.model.state_dict())
        for group, k in enumerate(plan.tolist()):
            if k:
                self.codebooks.apply(self.shared, group, self.codebooks.get(group, k))
        with torch.inference_mode():
            outputs = torch.cat([self.shared(part) for part in self.images.split(chunk or self.chunk)])
        return int((outputs.argmax(1) == self.labels).sum())


def engine_run(
    workload: str, model: torch.nn.Module, split: data.Split, seed: int, plans: list, evaluators: list | None = None, **options
) -> float:
    """Seconds a plan of a whole run, codebooks included; plans measured and evaluators made are put into the lists given."""
    started = time.perf_counter()
    codebooks = Codebooks(model, ks=range(1, K_MAX + 1))
    evaluator = Evaluator(model, codebooks, [split], **options)
    if evaluators is not None:
        evaluators.append(evaluator)
    if workload in ("ga", "pso"):
        made = search.make(
            {"ga": "genetic", "pso": "particle_swarm"}[workload], space.full(5, range(1, K_MAX + 1)), rng.derive(seed)
        )
        target = np.array([0.99, 18.0])
        while made.evaluations + made.size <= 400:
            asked = made.ask()
            objectives = np.column_stack([evaluator.accuracy(asked)[:, 0], codebooks.rates(asked)["layer_mean_rate"]])
            made.tell(objectives, lambda points: fitness.fitness(points, target))
            plans.extend(asked)
    elif workload == "scan":
        space.scan(lambda rows: _noted(evaluator.accuracy(rows, partial=True), rows, plans), codebooks.names, range(1, K_MAX + 1))
    else:
        box = space.full(5, range(1, 9))
        total = int(np.prod(box.lengths))
        for start in range(0, total, 4096):
            asked = box.decode(np.stack(np.unravel_index(np.arange(start, start + 4096), box.lengths), axis=1))
            evaluator.correct(asked)
            plans.extend(asked[::40])
    return (time.perf_counter() - started) / COUNTS[workload]


def _noted(result, rows, plans):
    plans.extend(rows)
    return result


def _seconds(function, *arguments) -> float:
    started = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - started


def evaluation(rounds: int, thesis_plans: int, plain_plans: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A row per timing: workload, arm, round, seconds per plan; and a row per run of the engine: workload, gflop per plan."""
    model, split = models.load(NETWORK), data.load("mnist", "validation")
    codebooks = Codebooks(model, ks=range(1, K_MAX + 1))
    plain, thesis = Plain(model, split, codebooks), Thesis(model, split)
    engine_run("scan", model, split, 0, [])  # compiles the kernels
    print(f"plain: chunks of {plain.chunk} images, {torch.get_num_threads()} threads", flush=True)
    rows, done = [], []
    for number in range(rounds):
        for workload in WORKLOADS:
            plans: list[np.ndarray] = []
            evaluators: list[Evaluator] = []
            rows.append((workload, "engine", number, engine_run(workload, model, split, number, plans, evaluators)))
            done.append((workload, 2e-9 * float(evaluators[0].computed @ MACS) / COUNTS[workload]))
            picked = rng.derive(number, workload).permutation(len(plans))
            for i in picked[: -(-plain_plans // rounds)]:
                rows.append((workload, "plain", number, _seconds(plain, plans[i])))
            for i in picked[: -(-thesis_plans // rounds)]:
                rows.append((workload, "thesis", number, _seconds(thesis, plans[i])))
            here = pd.DataFrame(rows[-1000:], columns=["workload", "arm", "round", "seconds"])
            medians = here[(here["workload"] == workload) & (here["round"] == number)].groupby("arm")["seconds"].median() * 1000
            print(
                f"round {number + 1}/{rounds} {workload}: " + ", ".join(f"{arm} {ms:.3g} ms" for arm, ms in medians.items()),
                flush=True,
            )
    timings = pd.DataFrame(rows, columns=["workload", "arm", "round", "seconds"])
    return timings, pd.DataFrame(done, columns=["workload", "gflop"])


def by_population(sizes=(10, 100, 1000, 10_000)) -> pd.DataFrame:
    """Seconds a plan of one call with 10 to 10 000 random plans of k = 1..8 (a row per size)."""
    model, split = models.load(NETWORK), data.load("mnist", "validation")
    codebooks = Codebooks(model, ks=range(1, 9))
    rows = []
    for size in sizes:
        for number in range(3 if size <= 1000 else 1):
            plans = rng.derive(number, "population", size).integers(1, 9, (size, 5))
            rows.append((size, _seconds(Evaluator(model, codebooks, [split]).correct, plans) / size))
    return pd.DataFrame(rows, columns=["plans", "seconds"])


def codebook_times() -> tuple[dict, pd.DataFrame]:
    """Seconds for all k of LeNet-5 and MobileNet_v2, the excess inertia over the optimum, and peers at some k of two large layers.

    MobileNet_v2 has its initial weights: more distinct values than any trained and rounded ones, the hardest case.
    """
    import ckwrap

    clustering.cluster(np.arange(10.0), [2])
    lenet, mobilenet = _weights(models.load(NETWORK)), _weights(models.build("mobilenet_v2", 1))
    lenet_s = statistics.median(
        sum(_seconds(clustering.cluster, flat, range(1, 51)) for flat in lenet.values()) for _ in range(5)
    )
    mobilenet_s, worst = 0.0, 0.0
    for flat in mobilenet.values():
        started = time.perf_counter()
        books = clustering.cluster(flat, range(1, 121))
        mobilenet_s += time.perf_counter() - started
        for k in (2, 4, 8, 16, 32, 64, 120):  # an oracle's seconds are not counted
            best = ckwrap.ckmeans(flat.astype(float), k)
            optimum = ((flat - np.asarray(best.centers)[best.labels]) ** 2).sum()
            worst = max(worst, 100 * (books[k].inertia(flat) / optimum - 1))
    rows = []
    for layer, flat, ks in (
        ("LeNet-5 feature_extractor.6", lenet["feature_extractor.6"], (2, 8, 20, 50)),
        ("MobileNet_v2 features.18.0", mobilenet["features.18.0"], (8, 64)),
    ):
        started = time.perf_counter()
        exact = clustering.cluster(flat, range(1, max(ks) + 1))
        rows.append((layer, "exact, all k", max(ks), time.perf_counter() - started, 0.0))
        for k in ks:
            for method in ("kmeans", "minibatch"):
                started = time.perf_counter()
                book = clustering.cluster(flat, k, method)
                rows.append(
                    (layer, method, k, time.perf_counter() - started, 100 * (book.inertia(flat) / exact[k].inertia(flat) - 1))
                )
            rows.append((layer, "ckwrap", k, _seconds(ckwrap.ckmeans, flat.astype(float), k), 0.0))
    return (
        {"lenet_codebooks_s": lenet_s, "mobilenet_codebooks_s": mobilenet_s, "worst_inertia_excess_pct": worst},
        pd.DataFrame(rows, columns=["layer", "method", "k", "seconds", "excess_pct"]),
    )


def _weights(model: torch.nn.Module) -> dict[str, np.ndarray]:
    return {layer.name: models.weight(model, layer.name).detach().numpy().ravel() for layer in models.layers(model)}


def search_memory(memory: int | None) -> tuple[float, float]:
    """Peak memory of a whole swarm search in a process of its own, and of its kept activations, GiB; `memory` is the limit set."""
    command = [sys.executable, __file__, "--one-search", str(-1 if memory is None else memory)]
    peak, kept = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-2:]
    return float(peak), float(kept)


def one_search(memory: int) -> None:
    """Print the peak memory of this process after a swarm search, and what its activations take, GiB."""
    evaluators: list[Evaluator] = []
    options = {} if memory < 0 else {"memory": memory}
    engine_run("pso", models.load(NETWORK), data.load("mnist", "validation"), 0, [], evaluators, **options)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, evaluators[0].kept_bytes / 2**30)


def arithmetic(timings: pd.DataFrame, done: pd.DataFrame) -> tuple[dict, pd.DataFrame]:
    """What each run had to multiply and add per plan, and per second, against the best matrix product of this run on all cores."""
    a = torch.randn(2048, 2048)
    limit = max(2 * 2048**3 / _seconds(torch.mm, a, a) for _ in range(10)) / 1e9
    seconds = timings[timings["arm"] == "engine"].groupby("workload")["seconds"].median()
    table = done.groupby("workload")["gflop"].median().to_frame("gflop_a_plan")
    table["gflops"] = table["gflop_a_plan"] / seconds
    table["ms_a_plan"], table["ms_at_the_limit"] = 1000 * seconds, 1000 * table["gflop_a_plan"] / limit
    return {"gflops": table.loc["enumeration", "gflops"], "gflops_limit": limit}, table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--thesis-plans", type=int, default=21, help="plans of each workload evaluated the thesis's way")
    parser.add_argument("--plain-plans", type=int, default=102, help="plans of each workload evaluated plainly")
    parser.add_argument("--one-search", type=int, metavar="BYTES", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one_search is not None:
        one_search(arguments.one_search)
        return
    peak, _ = search_memory(None)
    for limit in (64 << 20, 256 << 20):
        print(
            "limit {:.2f} GiB: peak of the process {:.2f}, of it kept activations {:.2f}".format(
                limit / 2**30, *search_memory(limit)
            )
        )
    timings, done = evaluation(arguments.rounds, arguments.thesis_plans, arguments.plain_plans)
    population = by_population()
    codebooks, peers = codebook_times()
    for name, table in {"timings": timings, "population": population, "clustering": peers}.items():
        storage.write_table(table, OUTPUT, name)
    medians = timings.groupby(["workload", "round", "arm"])["seconds"].median().unstack()
    ratios = pd.DataFrame({f"vs_{arm}": medians[arm] / medians["engine"] for arm in ("thesis", "plain")})
    print(ratios.groupby("workload").agg(["median", "min", "max"]).round(1).to_string())
    print(peers.round(4).to_string(index=False))
    with sns.axes_style("whitegrid"):
        figure, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    shown = timings.assign(ms=1000 * timings["seconds"])
    sns.boxplot(shown, x="workload", y="ms", hue="arm", ax=axes[0], palette="colorblind", showfliers=False)
    axes[0].set(yscale="log", ylabel="ms a plan (5 000 images)", xlabel="")
    curve = population.groupby("plans")["seconds"].median() * 1000
    axes[1].plot(curve.index, curve, marker="o")
    axes[1].set(xscale="log", ylim=(0, None), xlabel="plans in one call (k = 1..8)", ylabel="ms a plan (5 000 images)")
    figures.save(figure, OUTPUT, "evaluation")
    middle = ratios.groupby("workload").median()
    keys = [("ga", "thesis"), ("ga", "plain"), ("pso", "thesis"), ("pso", "plain"), ("scan", "thesis"),
            ("enumeration", "thesis"), ("enumeration", "plain")]  # fmt: skip
    result = {f"{workload}_vs_{arm}": middle.loc[workload, f"vs_{arm}"] for workload, arm in keys}
    limits, profile = arithmetic(timings, done)
    print(profile.round(3).to_string())
    result |= codebooks | {"peak_memory_gib": peak} | limits
    print(json.dumps({key: round(float(value), 4) for key, value in result.items()}))


if __name__ == "__main__":
    main()
