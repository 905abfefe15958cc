"""`make bench-multipliers`: how fast convolutions with approximate multipliers are, and a search over them.

Look-ups: for layers of several sizes, billions of look-ups a second of `convolution.row_add` and of a plain gather (for every weight
its row of the table, read at the codes of the activations), two threads on different images, as the evaluator works; and images a second
of the whole layer, patches and codes included, beside torch's float32 convolution on two threads. Codes are uniform random numbers, the
hardest case for caches. Search: NSGA-II assigns multipliers to LeNet-5, and some of its plans are measured again one by one, as the network with
replaced modules, half of the images on each thread. Low rank: images a second of the exact form for a GPU, in double precision, by rank.
What is compared takes turns in rounds, and a ratio is that of a round's times. Nothing here makes it fail; the last line is one JSON object.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import torch
from numba import njit
from torch import nn

from weightlab import backend, formats, models, paths, rng, search, storage
from weightlab.compression import contract
from weightlab.compression.multipliers import convolution, tables
from weightlab.compression.multipliers.convolution import Geometry
from weightlab.compression.multipliers.layer import ApproximateConv2d
from weightlab.compression.multipliers.settings import Multiplying
from weightlab.runs.assignments import Assignments
from weightlab.search import space

THREADS, RANKS, WIDE = 2, (1, 4, 10, 22), 64
LOOKUPS, MOST_IMAGES = 500e6, 500  # of a thread in one measurement; as many images as the evaluator takes at a time of 1 000
LEAST_G, MOST_S = 3.5, 0.25  # asked: G look-ups/s in layers of WIDE outputs or more; seconds an evaluation of 1 000 images
SIZES = {  # channels, outputs, kernel, padding, pixels a side
    "64->192 5x5 @16": (64, 192, 5, 2, 16),
    "192->384 3x3 @8": (192, 384, 3, 1, 8),
    "64->64 5x5 @24": (64, 64, 5, 0, 24),
    "3->64 5x5 @32": (3, 64, 5, 2, 32),
}
EXAMPLES = {"lenet5_fashion": 1, "alexnet_fashion": 3, "alexnet_cifar10": 3}  # channels of an image
OUTPUT = paths.outputs() / "bench"


@njit(cache=True, nogil=True)
def gather(columns: np.ndarray, weights: np.ndarray, by_weight: np.ndarray, sums: np.ndarray) -> None:
    """The sums of `row_add` the plain way, int32 (outputs, patches); `by_weight` is the table with a row for each weight."""
    for o in range(weights.shape[1]):
        sums[o] = 0
        for k in range(len(columns)):
            row = by_weight[weights[k, o]]
            for p in range(columns.shape[1]):
                sums[o, p] += row[columns[k, p]]


def layers() -> Iterator[tuple[str, nn.Conv2d, tuple[int, ...]]]:
    """Name, convolution and the shape of its input: those of SIZES and of the library's networks, with random weights."""
    for name, (channels, outputs, kernel, padding, pixels) in SIZES.items():
        yield name, nn.Conv2d(channels, outputs, kernel, padding=padding).eval(), (channels, pixels, pixels)
    for network, channels in EXAMPLES.items():
        model, found = models.build(network).eval(), []
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(lambda layer, x, y, found=found: found.append((layer, tuple(x[0].shape[1:]))))
        with torch.inference_mode():
            model(torch.zeros(1, channels, 32, 32))
        for layer, shape in found:
            layer._forward_hooks.clear()
            size = f"{shape[0]}->{layer.out_channels} {layer.kernel_size[0]}x{layer.kernel_size[1]} @{shape[1]}"
            yield f"{network} {size}", layer, shape


def seconds(function: Callable, *arguments: object) -> float:
    started = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - started


def in_threads(pool: ThreadPoolExecutor, function: Callable[[int], object]) -> float:
    """Seconds of a function of 0 and of 1 at the same time."""
    return seconds(lambda: list(pool.map(torch.inference_mode()(function), range(THREADS))))


def lookups(rounds: int) -> pd.DataFrame:
    """A row per layer and round: G look-ups/s of `row_add` and `gather`, images/s of layer, gather and torch's convolution."""
    multiplier, chance, rows = tables.generated().multipliers[-1], rng.derive(0, "multipliers"), []
    by_weight = np.ascontiguousarray(multiplier.table.T)
    with ThreadPoolExecutor(THREADS) as pool:
        for name, layer, shape in layers():
            geometry = Geometry.of(layer)
            approximate = ApproximateConv2d(layer, multiplier, formats.affine(0, 1))
            with torch.inference_mode():
                products = layer(torch.zeros(1, *shape))[0].numel() * layer.weight[0].numel()
            n = int(np.clip(LOOKUPS / products, 1, MOST_IMAGES))
            codes = chance.integers(0, 256, (THREADS, n, *shape)).astype(np.uint8)
            x = torch.from_numpy(codes.astype(np.float32) / 255)
            columns = [convolution.patches(part, geometry, 0)[0] for part in codes]
            weights = chance.integers(0, 256, (len(columns[0]), layer.out_channels)).astype(np.uint8)
            sums = np.empty((THREADS, layer.out_channels, columns[0].shape[1]), np.int32)

            def added(i: int, columns=columns, weights=weights) -> np.ndarray:
                return convolution.row_add(columns[i], weights, None, multiplier.table)

            def gathered(i: int, columns=columns, weights=weights, sums=sums) -> None:
                gather(columns[i], weights, by_weight, sums[i])

            def whole(i: int, layer=approximate, x=x) -> torch.Tensor:
                return layer(x[i])

            gathered(0)  # the first calls compile
            if not np.array_equal(added(0).T, sums[0]):
                raise SystemExit(f"row_add and gather disagree on {name}")
            whole(0)
            for number in range(rounds):
                row, plain, full = (in_threads(pool, function) for function in (added, gathered, whole))
                with torch.inference_mode():
                    exact = seconds(layer, x.flatten(0, 1))
                images, all_products = THREADS * n, 1e-9 * THREADS * n * products
                rates = [all_products / row, all_products / plain, images / full, images / plain, images / exact]
                rows.append((name, number, layer.out_channels, products, *rates))
    columns_of = ["row_add_g", "gather_g", "layer_images", "gather_images", "float32_images"]
    return pd.DataFrame(rows, columns=["layer", "round", "outputs", "products", *columns_of])


def searched(generations: int, population: int, images: int, plans: int) -> dict[str, float]:
    """Seconds an evaluation inside a search, and of some of its plans one by one, and for how many of these the counts differ."""
    task = Assignments("lenet5_fashion", Multiplying(), images, THREADS, "cpu")
    task.method.weight(0, 1)(task.splits["validation"].images[:2].float())  # compiles
    box = space.full(len(task.method.names), task.compression.candidates)
    made = search.make("nsga2", box, rng.derive(0, "multipliers"), population=population)
    asked: list[tuple[int, ...]] = []
    started, spent = time.perf_counter(), time.process_time()
    while made.generation < generations:
        generation = made.ask()
        asked += map(tuple, generation.tolist())
        table = task.chooser.measure(generation)
        made.tell(table[["validation_accuracy", "energy_rate"]].to_numpy(), lambda points: points[:, 0])
    total, cpu, distinct = time.perf_counter() - started, time.process_time() - spent, sorted(set(asked))
    picked = [distinct[i] for i in rng.derive(1, "multipliers").permutation(len(distinct))[:plans]]
    split, times, differ = task.splits["validation"], [], 0
    halves = [split.images[start::THREADS].float() / 255 for start in range(THREADS)]
    with ThreadPoolExecutor(THREADS) as pool, backend.threads(1):
        for plan in picked:
            network, right = models.copied(task.model), [0] * THREADS
            for layer, variant in enumerate(plan):
                contract.put(network, task.method.names[layer], task.method.weight(layer, variant))

            def through(i: int, network=network, right=right) -> None:
                right[i] = int((network(halves[i]).argmax(1) == split.labels[i::THREADS]).sum())

            times.append(in_threads(pool, through))
            differ += sum(right) != task.chooser.correct([plan])[0, 0]
    return {"search_s": total / len(distinct), "search_cpu_s": cpu / len(distinct), "evaluations": len(distinct), "multipliers": len(task.compression.candidates), "one_by_one_s": float(np.median(times)), "counts_that_differ": differ}  # fmt: skip


def low_rank(rounds: int, device: str) -> pd.DataFrame:
    """A row per layer of SIZES, rank and round: images/s of the low-rank form with random factors."""
    chance, rows = rng.derive(2, "multipliers"), []
    for name, layer, shape in list(layers())[: len(SIZES)]:
        n = 4 if device == "cpu" else 64
        codes = torch.from_numpy(chance.integers(0, 256, (n, *shape)).astype(np.uint8)).to(device)
        weights = torch.from_numpy(chance.integers(0, 256, tuple(layer.weight.shape)).astype(np.uint8)).to(device)
        for number in range(rounds + 1):  # the first is not counted
            for rank in RANKS:
                factors = chance.normal(size=(256, rank)), chance.normal(size=(256, rank))
                arguments = codes, weights, None, factors, Geometry.of(layer), 0
                took = seconds(lambda each=arguments: convolution.low_rank(*each).sum().item())  # which waits for a GPU
                rows.append((device, name, rank, number, n / took))
    table = pd.DataFrame(rows, columns=["device", "layer", "rank", "round", "images"])
    return table[table["round"] > 0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"rounds": 5, "generations": 20, "population": 40, "images": 1000, "plans": 40}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    result = searched(arguments.generations, arguments.population, arguments.images, arguments.plans)
    print(", ".join(f"{key} {value:.4g}" for key, value in result.items()), flush=True)
    speeds = lookups(arguments.rounds)
    speeds["vs_gather"] = speeds["row_add_g"] / speeds["gather_g"]
    speeds["vs_float32"] = speeds["layer_images"] / speeds["float32_images"]
    ranks = pd.concat([low_rank(min(3, arguments.rounds), device) for device in ["cpu"] + ["cuda"] * torch.cuda.is_available()])
    storage.write_table(speeds, OUTPUT, "multipliers_layers")
    storage.write_table(ranks, OUTPUT, "multipliers_ranks")
    middle = speeds.groupby("layer", sort=False).median().drop(columns="round")
    print(middle.round(2).to_string())
    print(ranks.pivot_table("images", ["device", "layer"], "rank", "median", sort=False).round(1).to_string())
    wide = middle[middle["outputs"] >= WIDE]
    slow = wide.index[wide["row_add_g"] < LEAST_G]
    print(
        f"at least {LEAST_G} G look-ups/s with {WIDE} outputs or more: not met by {', '.join(slow) or 'none'} of {len(wide)} layers"
    )
    print(f"at most {MOST_S} s an evaluation in a search: {'met' if result['search_s'] <= MOST_S else 'not met'}")
    result |= {"lookups_g": wide["row_add_g"].median(), "least_lookups_g": wide["row_add_g"].min(), "layers_too_slow": len(slow),
               "vs_gather": wide["vs_gather"].median(), "vs_float32": wide["vs_float32"].median(),
               "one_by_one_vs_search": result["one_by_one_s"] / result["search_s"]}  # fmt: skip
    print(json.dumps({key: round(float(value), 4) for key, value in result.items()}))


if __name__ == "__main__":
    main()
