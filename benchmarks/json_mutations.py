"""Changes of JSON, as a tree and as it is written; a part of `mutations`."""

import copy
import json
import random
import re

from weightlab import formats

HOSTILE = [  # JSON texts that take the place of any value
    "0", "-1", "1", "2", "255", "256", "65536", "65537", str(1 << 31), str((1 << 63) - 1), str(1 << 63), str(1 << 64),
    "9" * 400, "9" * 5000, "1.5", "3.0", "1e39", "1e308", "1e400", "-1e400", "1e-400", "NaN", "Infinity", "-Infinity", "null", "true", "false",
    '""', '"3"', r'"\u0000"', r'"\ud800"', '"../../etc/passwd"', '"' + "x" * 100_000 + '"', '"' + "0" * 64 + '"',
    "[]", "{}", "[[]]", "[1,2,3]", '{"k":1}', "[" * 3000 + "]" * 3000, '{"a":' * 3000 + "1" + "}" * 3000, "[1,", "", "'1'",
]  # fmt: skip
TYPES = ["F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "U64", "C64", "F4", "f32"]
WORDS = [
    *formats.FORMATS, *TYPES, "none", "packed", "zstd", "range", "codebook", "grid", "values", "labels", "centroids", "low", "step",
    "as it was", "whole net",
]  # fmt: skip


def written(tree: object) -> str:
    """JSON of a tree in which strings `@i@` stand for the text HOSTILE[i]."""
    text = json.dumps(tree, separators=(",", ":"))
    return re.sub(r'"@(\d+)@"', lambda found: HOSTILE[int(found[1])], text)


def hostile(chance: random.Random) -> str:
    """A string that `written` replaces by one of HOSTILE."""
    return f"@{chance.randrange(len(HOSTILE))}@"


def places(tree: object) -> list[tuple[dict | list, str | int]]:
    """Every container in a tree with every key or index of it; bytes, which are no JSON, have no place."""
    keys = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else []
    return [place for key in keys if not isinstance(tree[key], bytes) for place in [(tree, key), *places(tree[key])]]


def edit(tree: dict, chance: random.Random) -> None:
    """One change anywhere in a tree."""
    found = places(tree)
    if not found:
        return
    (into, key), (source, its_key) = chance.choice(found), chance.choice(found)
    kind = chance.choice(["hostile", "hostile", "near", "near", "drop", "rename", "copy", "add", "word"])
    if kind == "near" and type(into[key]) in (int, float):
        into[key] = _near(into[key], chance)
    elif kind == "drop":
        del into[key]
    elif kind == "rename" and isinstance(into, dict):
        into[chance.choice([str(its_key), f"{key} ", "", "__metadata__", "k", f"{key}:labels", "\ud800", "a\nb"])] = into.pop(key)
    elif kind == "copy":
        into[key] = copy.deepcopy(source[its_key])
    elif kind == "add" and isinstance(into, list):
        into.insert(key, copy.deepcopy(into[key]))
    elif kind == "add":
        into[f"{key}:more"] = copy.deepcopy(into[key])
    elif kind in ("near", "word"):
        into[key] = chance.choice(WORDS)
    else:
        into[key] = hostile(chance)


def _near(number: int | float, chance: random.Random) -> int | float:
    """Another number of either type."""
    if isinstance(number, float):
        return chance.choice([-number, 2 * number, 1e30 * number, 0.0, -0.0, 3.4e38, round(min(max(number, -1e30), 1e30))])
    other_type = float(min(max(number, -1 << 64), 1 << 64))
    return chance.choice([number + 1, number - 1, 2 * number, number // 2, -number, 1, 0, other_type])


def edit_text(text: str, chance: random.Random) -> str:
    """One change of JSON as it is written: a name twice, spaces, something lost or put in."""
    names = [found.start() for found in re.finditer(r'\\?"[\w.: ]+\\?":', text)]
    kind, place = chance.choice(["twice", "twice", "spaces", "cut", "insert", "tail"]), chance.randrange(len(text) + 1)
    if kind == "twice" and names:
        at = chance.choice(names)
        name = re.compile(r'\\?"[\w.: ]+\\?":').match(text, at)[0]
        return f"{text[:at]}{name}{chance.choice(HOSTILE)},{text[at:]}"
    if kind == "spaces":
        return text + " " * chance.choice([1, 8, 5000])
    if kind == "cut":
        return text[:place] + text[place + chance.choice([1, 1, 10]) :]
    if kind == "tail":
        return text + chance.choice(HOSTILE)
    return text[:place] + chance.choice([*'\0{}[],:"\\1-\n', "\ufeff", "//", '"']) + text[place:]
