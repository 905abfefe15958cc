"""The packed files that `make bench-files` mutates: of every network, in every format, with all codings and kinds, of either version."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from weightlab import formats, models, packing, sharing
from weightlab.compression.compressed import Compressed
from weightlab.compression.contract import Labels, Stored, Values
from weightlab.tuning import rate_distortion
from weightlab.tuning.rate_distortion import remainder

Plans = Mapping[str, Sequence[Sequence[int]]]
LENETS = ("lenet5_tanh", "lenet5_relu")
PRICES = (0.05, 1.0)  # of a bit: small ones leave many values, large ones layers of one value
ACCURACY = [{"split": "test", "images": 5000, "original": 0.98, "packed": 0.97}]


def first(plans: Plans) -> list[bytes]:
    """Files of version 1: all three networks and a tiny one, in every format."""
    tiny, made = _tiny(), []
    for format in formats.FORMATS:
        made += [packing.pack(tiny, plan, format, rest=rest) for plan, rest in (([5, 1], "as it was"), (3, "float16"))]
        for network in LENETS:
            model, plan = models.load(network), plans[network][0]
            made.append(packing.pack(model, plan, format, network=network))
            made.append(packing.pack(model, plans[network][1], format, entropy_coded=False, rest="float16"))
        made.append(packing.pack(model, [2, 300, 17, 1, 50], format, accuracy=ACCURACY))
        made.append(packing.pack(model, 6, format))
    mobilenet = models.load("mobilenet_v2_fashion")
    return [*made, packing.pack(mobilenet, 12, "float16"), packing.pack(mobilenet, [64] * 53, "float8_e4m3", entropy_coded=False)]


def second(plans: Plans) -> list[bytes]:
    """Files of version 2: codebooks in every format, and what `rate_distortion` makes of all three networks, without data."""
    tiny, made = _tiny(), [everything()]
    for format in formats.FORMATS:
        made.append(_second(tiny, [5, 1], format))
        made.append(_second(tiny, 3, format, rest="float16", entropy_coded=False))
        for network in LENETS:
            model = models.load(network)
            made.append(_second(model, plans[network][0], format, network=network))
        made.append(_second(model, [2, 300, 17, 1, 50], format, accuracy=ACCURACY, rest="float16"))
        made.append(_second(model, 6, format, entropy_coded=False))
    for network, size in zip((*LENETS, "mobilenet_v2_fashion"), (32, 32, 64), strict=True):
        model, example = models.load(network), torch.zeros(1, 1, size, size)
        for price in PRICES:
            found = rate_distortion.compress(model, price=price, example=example).compressed
            made.append(packing.pack_compressed(model, found, network=network, version=2))
        if network in LENETS:
            made += [packing.pack_compressed(model, _recoded(found, coding), version=2) for coding in remainder.CODINGS]
    return made


VERSIONS: dict[int, Callable[[Plans], list[bytes]]] = {1: first, 2: second}


def everything() -> bytes:
    """A small file of version 2 with every kind and coding of weights, and every kind and type of tensors."""
    rng = np.random.default_rng(0)
    model = nn.Sequential(*(nn.Linear(30, 20) for _ in range(7)))
    model.register_module("again", model[0])  # tensors under a second name
    model.register_buffer("flags", torch.tensor([True, False]))
    model.register_buffer("nothing", torch.zeros(0, 3))
    model.register_buffer("infinite", torch.tensor([math.inf, 0.5, math.nan]))
    for number, dtype in enumerate(
        (torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.int32, torch.int16, torch.int8)
    ):
        model.register_buffer(f"constant{number}", torch.full((4,), 7, dtype=dtype))
        model.register_buffer(f"varied{number}", torch.arange(3, dtype=dtype))
    skewed = rng.choice(5, 600, p=[0.9, 0.04, 0.03, 0.02, 0.01]).astype(np.uint8)
    runs = np.repeat(np.arange(3, dtype=np.uint8), 200)  # for which zstandard takes the fewest bytes
    even, many = (rng.permutation(np.arange(600) % k).astype(np.uint16) for k in (8, 400))
    values = np.linspace(-1, 1, 600, dtype=np.float32)
    grid = {"low": -0.5, "step": 0.125}
    stored = [
        Stored("grid", {"labels": Labels(skewed, 3)}, grid),
        Stored("grid", {"labels": Labels(runs, 2)}, grid),
        Stored("codebook", {"centroids": Values(values[:8], "float32"), "labels": Labels(even.astype(np.uint8), 3)}, {"k": 8}),
        Stored("codebook", {"centroids": Values(values[:400], "float32"), "labels": Labels(many, 9)}, {"k": 512}),
        Stored("codebook", {"centroids": Values(values[:1], "float32")}, {"k": 1}),
        *(Stored("values", {"values": Values(formats.get(name).round(values), name)}) for name in ("float16", "float8_thesis")),
    ]
    biases = {f"{number}.bias": model[number].bias.detach() for number in range(len(remainder.CODINGS))}
    coded = [
        remainder.stored({name: bias}, coding) for (name, bias), coding in zip(biases.items(), remainder.CODINGS, strict=True)
    ]
    others = {name: found for each in coded for name, found in each.items()}
    layers = [[layer] for layer in models.layers(model)]
    return packing.pack_compressed(model, Compressed(layers, stored, [1] * 7, "by hand", biases, others), version=2)


def _tiny() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3)).eval()


def _second(model: nn.Module, plan: int | Sequence[int], format: str, **options) -> bytes:
    """A network under a plan as a file of version 2."""
    books = sharing.codebooks(model, plan, format)
    return packing.pack_compressed(model, sharing.compressed(books, plan), version=2, **options)


def _recoded(found: Compressed, coding: str) -> Compressed:
    """With all other tensors that are coded in another coding."""
    changed = {name: value for name, value in found.changed().items() if name in found.others}
    return replace(found, others=remainder.stored(changed, coding))
