"""`make bench-networks`: whether the engine is right for any network, what proving it costs, and a network of 50 layers at 224 x 224.

2 000 random networks (see tests/random_networks.py) are held against their plain forward pass; one disagreement makes it fail. The time
until an evaluator answers is held against that of a search of 40 evaluations. A MobileNet_v2 without a sequence is measured beside
a plain forward pass at its best number of images, and the memory of a search on it is that of a process of its own. Seconds never make
it fail. The last line is one JSON object.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from torch import nn

from weightlab import backend, data, models, paths, rng, search
from weightlab.compression.sharing.codebooks import Codebooks
from weightlab.data import Split
from weightlab.evaluation import Evaluator
from weightlab.search import fitness, space

sys.path.insert(0, str(paths.root() / "tests"))
import random_networks

PICTURES, SIDE, KS = 112, 224, (16, 32, 64)
CHUNKS = (1, 2, 4, 8, 16, 32, 64, 112)
EVALUATIONS = 40


def compositions(examples: int) -> dict:
    """How many random networks there were, and for how many the engine records something else, or refuses."""
    found: Counter = Counter()

    # Not drawn at random, so that two versions of the engine are tried on the same networks.
    @settings(max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(random_networks.networks())
    def each(network):
        told = random_networks.disagreement(network)
        found["networks"] += 1
        found["refused"] += told == "refused"
        if told not in ("", "refused"):
            found["wrong"] += 1
            print(f"{network}\n{told}", flush=True)

    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        each()
    seconds = time.perf_counter() - started
    print(f"{found['networks']} random networks in {seconds:.0f} s: {found['wrong']} recorded wrong, {found['refused']} refused")
    return {"random_networks": found["networks"], "recorded_wrong": found["wrong"], "refused": found["refused"]}


def proof(rounds: int) -> dict:
    """Seconds until an evaluator of LeNet-5 answers, as a share of those of a genetic search of 40 evaluations, codebooks included."""
    model, splits = models.load("lenet5_tanh"), [data.load("mnist", name) for name in ("validation", "test")]
    shares = []
    for number in range(rounds + 1):  # the first compiles
        started = time.perf_counter()
        books = Codebooks(model, ks=range(1, 51))
        began = time.perf_counter()
        engine = Evaluator(model, books, splits)
        proven = time.perf_counter() - began
        made = search.make("genetic", space.full(5, range(1, 51)), rng.derive(number), population=20)
        while made.evaluations < EVALUATIONS:
            asked = made.ask()
            objectives = np.column_stack([engine.accuracy(asked)[:, 0], books.rates(asked)["layer_mean_rate"]])
            made.tell(objectives, lambda points: fitness.fitness(points, np.array([0.99, 18.0])))
        shares.append((proven / (time.perf_counter() - started), proven))
    share, seconds = (statistics.median(each) for each in zip(*shares[1:], strict=True))
    print(f"LeNet-5: an evaluator answers after {seconds:.3f} s, {share:.1%} of a search of {EVALUATIONS} evaluations")
    return {"proof_s": seconds, "proof_share": share}


class Large(nn.Module):
    """torchvision's MobileNet_v2 as a user has it: no sequence, so one stage."""

    def __init__(self):
        super().__init__()
        self.inner = backend.torchvision().models.mobilenet_v2(num_classes=10)

    def forward(self, images):
        return self.inner((images - 0.45) / 0.225)


def large():
    """A factory for the command: always the same weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Large().eval()


def pictures() -> torch.Tensor:
    """uint8 (`PICTURES`, 3, 224, 224): coarse noise, enlarged."""
    coarse = torch.rand(PICTURES, 3, 14, 14, generator=torch.Generator().manual_seed(0))
    return (255 * nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bilinear")).to(torch.uint8)


def _cpu(function, *arguments) -> float:
    """CPU milliseconds of all threads per picture."""
    started = time.process_time()
    function(*arguments)
    return 1000 * (time.process_time() - started) / PICTURES


def at_224(rounds: int) -> dict:
    """CPU per picture of the engine and of the plain forward pass at its best number of images, in turns."""
    model, images = large(), pictures()
    split = Split("pictures", "validation", images, torch.arange(PICTURES) % 10)
    books = Codebooks(model, ks=KS, example=images[:2].float() / 255)
    torch.set_num_threads(1)
    began = time.process_time()
    engine = Evaluator(model, books, [split], threads=1)
    proven = time.process_time() - began

    def plain(chunk: int) -> None:
        with torch.inference_mode():
            for part in images.split(chunk):
                model(part.float() / 255)

    for k in KS:  # the codebooks are made when they are first asked for
        engine.correct(np.full((1, len(books.names)), k))
    times: dict = {}
    for number in range(rounds):
        for chunk in CHUNKS:
            times.setdefault(chunk, []).append(_cpu(plain, chunk))
        k = KS[number % len(KS)]
        plan = np.array([[k] * len(books.names)])
        plan[0, : 1 + number] = KS[(number + 1) % len(KS)]  # none is asked for twice
        times.setdefault("engine", []).append(_cpu(engine.correct, plan))
    median = {name: statistics.median(each) for name, each in times.items()}
    best = min(CHUNKS, key=median.get)
    print("CPU of a picture, ms: " + ", ".join(f"{name} {each:.0f}" for name, each in median.items()))
    ratio = statistics.median(engine / plain for engine, plain in zip(times["engine"], times[best], strict=True))
    share = proven / (proven + EVALUATIONS * PICTURES * median["engine"] / 1000)
    print(f"engine {ratio:.2f} times the plain forward pass of {best} at a time; it answers after {proven:.1f} s of CPU, {share:.1%} of a "
          f"search of {EVALUATIONS} evaluations on {PICTURES} pictures")  # fmt: skip
    return {"proof_share_at_224": share, "cpu_ratio": ratio, "cpu_ms": median["engine"], "best_plain_ms": median[best]}


def search_peak() -> float:
    """Peak memory, GiB, of `weightlab search` on the same network and pictures with the command's defaults, two threads."""
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "pictures.npz", images=pictures().numpy(), labels=np.arange(PICTURES) % 10)
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(paths.root() / "lib"), str(Path(__file__).parent)])}
        words = ["search", "networks:large", "--data", "pictures.npz", "--k", ",".join(map(str, KS)), "--threshold", "none",
                 "--population", "8", "--budget", "16", "--folder", "searches", "--workers", "1", "--threads", "2"]  # fmt: skip
        subprocess.run([sys.executable, "-m", "weightlab", *words], check=True, cwd=folder, env=environment, capture_output=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f"peak memory of a search on {len(KS)} k of a network of 53 layers at 224 x 224: {peak:.2f} GiB", flush=True)
    return peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=2000, help="random networks")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    peak = search_peak()  # first, because a process begins with the peak of the one that starts it
    result = proof(arguments.rounds) | at_224(arguments.rounds) | {"search_peak_gib": peak} | compositions(arguments.examples)
    print(json.dumps({key: round(float(value), 4) for key, value in result.items()}))
    sys.exit(int(result["recorded_wrong"] > 0))


if __name__ == "__main__":
    main()
