"""Packed files of either version whose metadata are long, a part of `mutations`: what reading takes must not grow faster than the file."""

import math
import random
from collections.abc import Callable, Iterable
from contextlib import suppress

LENGTHS = (3000, 20_000, 100_000)  # of what is put in


def enlarge(values: dict, chance: random.Random, add_tensors: Callable[[Iterable[str]], None]) -> None:
    """One change that makes metadata or the table of tensors long, mostly with what is wrong, sometimes with what could be right.

    `add_tensors` puts tensors of these names into the file.
    """
    with suppress(Exception):  # an earlier change may have made nonsense of what it is about
        n, wrong = chance.choice(LENGTHS), chance.choice([1.5, "x", None, -1, [], {}])
        group = chance.choice(values["groups"])
        name, size = group["weights"][0][0], sum(math.prod(shape) for _, shape in group["weights"])
        match chance.choice(["list", "entries", "groups", "accuracy", "shape", "same", "same", "weights", "weights", "tensors"]):
            case "list":
                values[chance.choice(list(values))] = [wrong] * n
            case "entries":
                values |= {f"{name}.{i}": wrong for i in range(n)}
            case "groups":
                values["groups"] = [group | {chance.choice(list(group)): wrong}] * n
            case "accuracy":
                values["accuracy"] = [{"split": wrong, "images": wrong}] * n
            case "shape":
                group["weights"][0][1] = [1] * n + group["weights"][0][1]
            case "same":
                values["same"] = {f"{name}.{i}": chance.choice([name, name, f"{name}.{i + 1}"]) for i in range(n)}
            case "weights":  # of one label each, as many as there are or some more
                more = min(size, n) - 1 + chance.choice([0, 0, 1])
                group["weights"] = [[name, [max(size - n + 1, 1)]], *([f"{name}.{i}", [1]] for i in range(more))]
            case "tensors":
                add_tensors(f"{name}.{i}" for i in range(n))
