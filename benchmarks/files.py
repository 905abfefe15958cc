"""How large files are, how long they take, and what becomes of mutated ones: `make bench-files`.

Three networks under the plans below in every number format, as safetensors, gzip, packed files and ONNX, held against what the storage
rate promises; the smallest file within a loss, beside the same networks palettized by coremltools and coded by nncodec, each in an environment
of its own; seconds to pack and unpack; and 100 000 mutated files of both versions, each of which must be refused or be a good network. Bounds
that do not hold make it fail; seconds never do. The last line is one JSON object.
"""

import argparse
import gzip
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import coremltools_peer
import fuzzing
import nncodec_peer
import originals
import pandas as pd
import smallest
import torch
from safetensors.torch import save
from torch import nn

from weightlab import data, formats, models, packing, paths, sharing, storage, training
from weightlab.packing import onnx_files

PLANS = {  # of the LeNets those of the thesis's table B.1, one of k <= 16 and one with more
    "lenet5_tanh": [[3, 3, 8, 2, 2], [3, 35, 3, 2, 2]],
    "lenet5_relu": [[3, 4, 6, 4, 7], [2, 50, 10, 21, 4]],
    "mobilenet_v2_fashion": [[64] * 53],
}
SHAPES = coremltools_peer.SHAPES  # of one input
HEADERS = {"lenet5_tanh": 3 << 10, "lenet5_relu": 3 << 10, "mobilenet_v2_fashion": 48 << 10}  # bytes, at most
GRAPH = 64 << 10  # bytes of an ONNX file besides labels and what is not shared, at most
DIFFERENCE = 1e-4  # of logits of onnxruntime, a fraction of the largest, at most
ROUNDS = 5
WITHIN = 1.0  # pp on validation, that the smallest files may lose
STARTED = time.monotonic()


# --- sizes ----------------------------------------------------------------------------------------------------------------------


def sizes(folder: Path) -> pd.DataFrame:
    """A row per network, plan and format: bytes of each kind of file, rates, and `broken`, the bounds that do not hold."""
    rows = []
    for network, plans in PLANS.items():
        model, example = models.load(network), torch.zeros(SHAPES[network])
        plain = save({name: value.contiguous() for name, value in model.state_dict().items()})
        common = {
            "network": network,
            "original_bytes": len(plain),
            "gzip_bytes": len(gzip.compress(plain, 9)),
            "onnx_original_bytes": onnx_files.export(model, {}, example, folder / "before.onnx").stat().st_size,
        }
        for format in formats.FORMATS:
            books = sharing.codebooks(model, plans[0], format)
            for plan in plans:
                rows.append(common | {"plan": _text(plan), "format": format} | _sizes(network, model, plan, books, folder))
                tell(f"{network} {rows[-1]['plan']} {format}: {rows[-1]['coded_bytes']} of {len(plain)} bytes")
    return pd.DataFrame(rows)


def _sizes(network: str, model: nn.Module, plan: list[int], books: sharing.Codebooks, folder: Path) -> dict:
    """Bytes and rates of one plan; header, payload and rates are those of the entropy-coded file."""
    options = {"packed": {"entropy_coded": False}, "coded": {}, "halved": {"rest": "float16"}}
    files = {
        kind: packing.write(folder / kind, model, plan, books.format, codebooks=books, network=network, **changed)
        for kind, changed in options.items()
    }
    summaries, coded = {kind: file.summary() for kind, file in files.items()}, files["coded"]
    onnx = (
        onnx_files.export(coded.load(model), coded.shared(), torch.zeros(SHAPES[network]), folder / "after.onnx").stat().st_size
    )
    labels = sum((0.55 if group.k <= 16 else 1.05) * group.size for group in coded.details.groups)
    bounds = {
        "payload <= predicted": all(each["payload_bytes"] <= each["predicted_bytes"] for each in summaries.values()),
        f"header <= {HEADERS[network]}": all(each["header_bytes"] <= HEADERS[network] for each in summaries.values()),
        "ONNX": onnx <= labels + summaries["coded"]["rest_bytes"] + GRAPH,
    }
    shown = ("header_bytes", "payload_bytes", "predicted_bytes", "rest_bytes", "storage_rate", "file_rate")
    return {
        **{f"{kind}_bytes": each["file_bytes"] for kind, each in summaries.items()},
        "onnx_bytes": onnx,
        **{key: summaries["coded"][key] for key in shown},
        "broken": ", ".join(bound for bound, kept in bounds.items() if not kept),
    }


def onnx_answers(network: str, folder: Path) -> onnx_files.Comparison:
    """onnxruntime held against the network under its first plan in float16, on all test images."""
    packed = packing.write(folder / "answering", models.load(network), PLANS[network][0], "float16", network=network)
    model, images = packed.load(models.build(network)), data.load(training.dataset_of(network), "test").images
    file = onnx_files.export(model, packed.shared(), images[:1].float() / 255, folder / "answering.onnx")
    found = onnx_files.compare(file, model, images, threads=None)
    tell(f"{network}: {found}")
    return found


def onnx_broken(answers: dict[str, onnx_files.Comparison]) -> list[str]:
    """What does not hold of them, a line each."""
    return [
        f"{network}: onnxruntime gives {found.other_class} of {found.images} images another class, logits differ by "
        f"{found.largest_difference:.1e}, allowed are 0 and {DIFFERENCE:g}"
        for network, found in answers.items()
        if found.other_class or not found.largest_difference <= DIFFERENCE
    ]


def _text(plan: list[int]) -> str:
    return f"{len(plan)} x {plan[0]}" if len(plan) > 5 and len(set(plan)) == 1 else str(plan)


# --- seconds --------------------------------------------------------------------------------------------------------------------


def seconds(network: str, model: nn.Module, folder: Path) -> tuple[dict, float]:
    """Medians for MobileNet_v2 at k = 64: to pack, with codebooks at hand and without, and to unpack."""
    plan, file = [64] * len(models.layers(model)), folder / f"{network}.safetensors"
    books = sharing.codebooks(model, plan, "float16")
    packing.write(file, model, plan, "float16", codebooks=books)
    pack_s = {
        "codebooks at hand": _median(lambda: packing.write(file, model, plan, "float16", codebooks=books)),
        "with clustering": _median(lambda: packing.write(file, model, plan, "float16")),
    }
    unpack_s = _median(lambda: packing.read(file).state_dict())
    tell(f"{network}: packed in {pack_s} s, unpacked in {unpack_s} s")
    return pack_s, unpack_s


def _median(function: Callable[[], object]) -> float:
    took = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        function()
        took.append(time.perf_counter() - started)
    return round(statistics.median(took), 3)


# --- mutated files --------------------------------------------------------------------------------------------------------------


def mutated_files(count: int, versions: Sequence[int]) -> fuzzing.Survey:
    """Read them, and print what became of them."""
    keep = paths.outputs() / "bench" / "mutated"
    files = [content for version in versions for content in originals.VERSIONS[version](PLANS)]
    tell(f"{len(files)} packed files to be mutated")
    found = fuzzing.survey(files, count, keep, tell)
    print("accepted:")
    for text, times in found.accepted.most_common():
        print(f"{times:8d}  {text}")
    print(f"refused, {len(found.refusals)} reasons:")
    for text, times in found.refusals.most_common(60):
        print(f"{times:8d}  {text}")
    tell(
        f"{found.survived} of {found.tried} mutated files survived; slowest {found.slowest_s:.2f} s, "
        f"memory grown by {found.growth_bytes / 2**20:.0f} MiB at most"
    )
    if found.failures:
        tell(f"files that were not survived lie in {keep}, named by their seeds")
    return found


def tell(text: str) -> None:
    print(f"{time.monotonic() - STARTED:6.0f} s  {text}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutations", type=int, default=100_000, help="mutated files to read")
    parser.add_argument("--only-mutations", action="store_true", help="measure nothing else")
    parser.add_argument("--versions", type=int, nargs="+", default=[1, 2], choices=[1, 2], help="of the mutated files")
    parser.add_argument("--csv", type=Path, help="where to write the table of sizes")
    arguments = parser.parse_args()
    if arguments.only_mutations:
        found = mutated_files(arguments.mutations, arguments.versions)
        raise SystemExit(int(found.survived < found.tried))
    if arguments.csv:
        arguments.csv.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table = sizes(folder)
        if arguments.csv:
            storage.write_whole(arguments.csv, table.drop(columns="broken").to_csv(index=False).encode())
        print(table.drop(columns="broken").round(2).to_string(index=False))
        answers = {network: onnx_answers(network, folder) for network in PLANS}
        stand_in, imagenet = models.load("mobilenet_v2_fashion"), models.build("mobilenet_v2")
        timed = {
            "mobilenet_v2_fashion": seconds("mobilenet_v2_fashion", stand_in, folder),
            "mobilenet_v2, initial weights": seconds("mobilenet_v2", imagenet, folder),
        }
    coremltools = {network: coremltools_peer.sizes(network, WITHIN, tell) for network in PLANS}
    nncodec = {network: nncodec_peer.sizes(network, WITHIN, tell) for network in PLANS}
    least = {network: smallest.beside(network, WITHIN, nncodec[network], tell) for network in PLANS}
    found = mutated_files(arguments.mutations, arguments.versions)
    rows = table[table["broken"] != ""].itertuples()
    broken = [f"{row.network} {row.plan} {row.format}: {row.broken}" for row in rows] + onnx_broken(answers)
    for line in broken:
        tell(f"BOUND BROKEN: {line}")
    by_network = {
        network: {
            format: rows.drop(columns=["network", "format"]).set_index("plan").round(3).to_dict("index")
            for format, rows in part.groupby("format", sort=False)
        }
        for network, part in table.groupby("network", sort=False)
    }
    result = {
        "sizes": by_network,
        "onnx_images": {network: found.images for network, found in answers.items()},
        "onnx_other_class": {network: found.other_class for network, found in answers.items()},
        "onnx_largest_difference": {network: found.largest_difference for network, found in answers.items()},
        "coremltools": coremltools,
        "nncodec": nncodec,
        "smallest": least,
        "pack_s": {network: pack_s for network, (pack_s, _) in timed.items()},
        "unpack_s": {network: unpack_s for network, (_, unpack_s) in timed.items()},
        "mutated_files_tried": found.tried,
        "mutated_files_survived": found.survived,
        "seconds": round(time.monotonic() - STARTED),
    }
    print(json.dumps(result))
    if broken or found.survived < found.tried:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
