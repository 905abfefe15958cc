"""What is measured on what, and what is searched: chosen values, checked at once, hashed into the name of a folder."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, field, fields
from functools import cached_property
from itertools import product

from weightlab import accounting, data, formats, models, rng, search
from weightlab.compression.sharing import clustering
from weightlab.errors import UserError, choose
from weightlab.search import space
from weightlab.search.fitness import TargetRule

PROTOCOLS = {"held_out": "validation", "published": "test"}  # the split on which everything is chosen
RECORDED_SPLITS = ("validation", "test")
SCHEMA = 3  # raised whenever records of an older kind may no longer be reused
# Fields left out of a description where they are not set, so that what was named before there were any keeps its name.
LATER = ("ks", "weights", "whole_net", "uniform_start")


@dataclass(frozen=True)
class Setting:
    """What plans are measured on. `images` limits each split to its first images (None: all).

    `network` and `dataset` are names, or a user's own: `module:factory` with the file of its `weights` (None: the factory's), and an
    `.npz` file or a folder of pictures (see `data.own`). Paths are kept absolute. `whole_net`: one k for all layers together.
    The k that are tried are those listed in `ks`, or all from 1 to `k_max`; with a list, `k_max` is its largest.
    Raises `UserError` for unknown names and numbers out of range.
    """

    network: str
    _: KW_ONLY
    dataset: str = "mnist"
    method: str = "exact"
    format: str = "float32"
    protocol: str = "held_out"
    objective_rate: str = "storage"
    k_max: int = 50
    images: int | None = None
    ks: tuple[int, ...] | None = None
    weights: str | None = None
    whole_net: bool = False

    def __post_init__(self):
        object.__setattr__(self, "weights", models.check(self.network, self.weights))
        object.__setattr__(self, "dataset", data.check(self.dataset))
        choose("clustering method", self.method, clustering.METHODS)
        choose("format", self.format, formats.FORMATS)
        choose("protocol", self.protocol, PROTOCOLS)
        choose("objective rate", self.objective_rate, accounting.RATES)
        if self.ks is not None:
            object.__setattr__(self, "ks", _ascending(self.ks))
            object.__setattr__(self, "k_max", self.ks[-1])
        clustering.check_k(self.k_max)
        if not isinstance(self.whole_net, bool):
            raise UserError(f"whole_net must be True or False, got {self.whole_net!r}")
        if self.images is not None:
            _check_whole("images", self.images, 1, "None or ")
        if self.protocol == "published" and self.method == "exact":
            raise UserError("protocol 'published' is the thesis's own, got method 'exact'; allowed: kmeans, minibatch, gmm")

    @property
    def candidates(self) -> tuple[int, ...]:
        """The k that are tried, ascending."""
        return self.ks or tuple(range(1, self.k_max + 1))

    def measured(self) -> "Setting":
        """The part of it that answers depend on: the same for all protocols, rates and searches."""
        names = {"network", "dataset", "method", "format", "k_max", "images", "ks", "weights", "whole_net"}
        setting = Setting(**{each.name: getattr(self, each.name) for each in fields(Setting) if each.name in names})
        vars(setting)["_contents"] = self._contents  # the same files as they were then
        return setting

    def describe(self) -> dict:
        """All of it as JSON-ready values, with SHA-256 of the weights and of own data; `LATER` fields only where they are set."""
        values = {name: value for name, value in asdict(self).items() if name not in LATER or value}
        return values | self._contents | {"schema": SCHEMA}

    @cached_property
    def _contents(self) -> dict:
        """SHA-256 of the weights and of own data, looked at once for each setting: a folder may hold many files."""
        return self._look()

    def _look(self) -> dict:
        own = data.identity(self.dataset)
        return {"checkpoint": models.identity(self.network, self.weights)} | ({"data": own} if own else {})

    def check_unchanged(self) -> None:
        """Raise `UserError` if weights or own data are no longer those that its hash stands for."""
        if self._look() != self._contents:
            raise UserError(
                f"weights of {self.network} or data of {self.dataset} have changed since they were chosen; choose anew"
            )

    def labels(self) -> dict:
        """What records call network and dataset: names, with the first digits of their SHA-256 where they are a user's own."""
        return {"network": models.label(self.network, self.weights), "dataset": data.label(self.dataset)}

    @property
    def hash(self) -> str:
        """16 hexadecimal digits that name its folder or file; where a user's own files lie does not change it, what they hold does."""
        places = {"weights"} | ({"dataset"} if "data" in self._contents else set())
        values = {name: value for name, value in self.describe().items() if name not in places}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Specification(Setting):
    """Everything a search's records depend on; equal specifications share one folder.

    `threshold` is the accuracy at which the range scan keeps a k, on the split that chooses: a fraction, or a margin below the unshared
    accuracy in percentage points, such as "-1pp", or None for all k that are tried. `settings` override the search's published ones. With
    `uniform_start` up to a quarter of the first generation are plans with one k in all layers.
    """

    target: TargetRule
    search: str = "genetic"
    seed: int = 0
    budget: int = 400  # evaluations, repeats included
    threshold: float | str | None = field(default=0.97, kw_only=True)
    settings: Mapping = field(default_factory=dict, kw_only=True)
    uniform_start: bool = field(default=False, kw_only=True)

    def __post_init__(self):
        super().__post_init__()
        _check_whole("budget", self.budget, 1)
        _check_whole("seed", self.seed, 0)
        object.__setattr__(self, "threshold", space.threshold(self.threshold))  # so that 1 and 1.0 are one specification
        if not isinstance(self.uniform_start, bool):
            raise UserError(f"uniform_start must be True or False, got {self.uniform_start!r}")
        made = search.make(self.search, space.full(2, [1]), rng.derive(0), **self.settings)  # refuses what does not fit
        if made.size > self.budget:
            raise UserError(
                f"budget must hold the first generation of {made.size} evaluations of {self.search}, got {self.budget}"
            )
        object.__setattr__(self, "settings", asdict(made.settings))


def grid(
    networks: Sequence[str],
    targets: Sequence[TargetRule] | Mapping[str, TargetRule],
    searches: Sequence[str] = ("genetic",),
    seeds: Iterable[int] = (0,),
    formats: Sequence[str] = ("float32",),
    methods: Sequence[str] = ("exact",),
    **common,
) -> list[Specification]:
    """Every combination, seeds running fastest, as specifications; `common` is what all of them share.

    `targets` are all tried on every network, or with a mapping each network has its own. Raises `UserError` as `Specification`
    does, and for a grid that is empty.
    """
    seeds = list(seeds)
    specs = [
        Specification(network, target, search, seed, format=format, method=method, **common)
        for network in networks
        for target in ([targets[network]] if isinstance(targets, Mapping) else targets)
        for method, format, search, seed in product(methods, formats, searches, seeds)
    ]
    if not specs:
        raise UserError(
            f"a grid needs at least one network, target, search, seed, format and method, got {list(networks)}, "
            f"{len(targets)} targets, {list(searches)}, {seeds}, {list(formats)}, {list(methods)}"
        )
    return specs


def from_description(values: Mapping) -> Specification:
    """The specification that `describe()` told of, as it lies in `specification.json` of a search's folder.

    The module of a user's own network is imported, to compare its weights; look at `network` first where a description may be foreign.
    Raises `UserError` for anything else: unknown or missing entries, another schema, and weights or data that are no longer the same.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"the description of a search must be a mapping, got {type(values).__name__}")
    names = [each.name for each in fields(Specification)]
    for name in values:
        choose("entry of a search's description", name, [*names, "checkpoint", "data", "schema"])
    if missing := [name for name in (*names, "checkpoint", "schema") if name not in values and name not in LATER]:
        raise UserError(f"the description of a search must say its {missing[0]}; it says {', '.join(values)}")
    if values["schema"] != SCHEMA:
        raise UserError(f"a search of schema {values['schema']!r} cannot be gone on with, this version writes schema {SCHEMA}")
    try:
        target = TargetRule(**values["target"])
        spec = Specification(**{name: values[name] for name in names if name in values} | {"target": target})
    except TypeError as error:
        raise UserError(f"the description of a search does not fit ({error})") from None
    for kind, what in (("checkpoint", f"weights of {spec.network}"), ("data", f"data of {spec.dataset}")):
        if values.get(kind) != (now := spec._contents.get(kind)):
            raise UserError(f"the {what} are no longer those searched on: SHA-256 {now}, the search had {values.get(kind)}")
    return spec


def _ascending(ks: Sequence[int]) -> tuple[int, ...]:
    """A list of k as it is kept; raises `UserError` unless it holds numbers of clusters."""
    if isinstance(ks, str) or not isinstance(ks, Sequence) or not len(ks):
        raise UserError(f"ks must be None or a list of numbers of clusters, got {ks!r}")
    for k in ks:
        clustering.check_k(k)
    return tuple(sorted({int(k) for k in ks}))


def _check_whole(name: str, value, least: int, other: str = "") -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UserError(f"{name} must be {other}a whole number of at least {least}, got {value!r}")
