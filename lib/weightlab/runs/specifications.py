"""What is searched: chosen values, checked at once, hashed into the name of a folder. Without torch, as `setting`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from typing import Any

from weightlab import rng, search
from weightlab.errors import UserError, check_whole, choose
from weightlab.runs.setting import SCHEMA, Setting
from weightlab.search import space
from weightlab.search.fitness import TargetRule
from weightlab.settings import chosen, leaves, names, takes_fields_of


@takes_fields_of("compression")
@dataclass(frozen=True)
class Specification(Setting):
    """Everything a search's records depend on; equal specifications share one folder.

    `threshold` is the accuracy at which the range scan keeps a k, on the split that chooses: a fraction, or a margin below the unshared
    accuracy in percentage points, such as "-1pp", or None for all k that are tried. `settings` override the search's published ones. With
    `uniform_start` up to a quarter of the first generation are plans with one k in all layers.
    """

    target: TargetRule  # type: ignore[misc]  # no default goes before it: `network` has none, which `chosen` hides
    search: str = chosen("genetic", column="name of the search")
    seed: int = chosen(0, column="seed of the search")
    budget: int = 400  # evaluations, repeats included
    threshold: float | str | None = field(default=0.97, kw_only=True)
    settings: Mapping = field(default_factory=dict, kw_only=True)
    uniform_start: bool = chosen(False, later=True, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("budget", self.budget, 1)
        check_whole("seed", self.seed, 0)
        object.__setattr__(self, "threshold", space.threshold(self.threshold))  # so that 1 and 1.0 are one specification
        if self.threshold is not None and not self.compression.scanned:
            raise UserError(f"{self.method} have no range scan, so threshold must be None, got {self.threshold!r}")
        if not isinstance(self.uniform_start, bool):
            raise UserError(f"uniform_start must be True or False, got {self.uniform_start!r}")
        instance = search.make(self.search, space.full(2, [1]), rng.derive(0), **self.settings)  # refuses what does not fit
        if instance.size > self.budget:
            raise UserError(
                f"budget must be at least the {instance.size} evaluations of the first generation of {self.search}, got {self.budget}"
            )
        object.__setattr__(self, "settings", asdict(instance.settings))


def grid(
    networks: Sequence[str],
    targets: Sequence[TargetRule] | Mapping[str, TargetRule],
    searches: Sequence[str] = ("genetic",),
    seeds: Iterable[int] = (0,),
    formats: Sequence[str] = ("float32",),
    methods: Sequence[str] = ("exact",),
    **common: Any,
) -> list[Specification]:
    """Every combination, seeds running fastest, as specifications; `common` is what all of them share.

    `targets` are all tried on every network, or with a mapping each network has its own. Raises `UserError` as `Specification`
    does, and for a grid that is empty.
    """
    seeds = list(seeds)
    specs = [
        Specification(network, target, search, seed, **common | {"format": format, "method": method})
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
    """The specification of a description that `describe()` of a search for weight sharing made, as stored in `specification.json` of a search's folder.

    The module of a user's own network is imported, to compare its weights; look at `network` first where a description may be foreign.
    Raises `UserError` for anything else: unknown or missing entries, another schema, and weights or data that are no longer the same.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"the description of a search must be a mapping, got {type(values).__name__}")
    if "multipliers" in values:
        raise UserError("a search for multipliers names its library by its contents: give its settings again to go on with it")
    entries = [each.name for each, _ in leaves(Specification)]
    for name in values:
        choose("entry of a search's description", name, [*entries, "checkpoint", "data", "schema"])
    later = names(Specification, "later")
    if missing := [name for name in (*entries, "checkpoint", "schema") if name not in values and name not in later]:
        raise UserError(f"the description of a search must hold {missing[0]}; it holds {', '.join(values)}")
    if values["schema"] != SCHEMA:
        raise UserError(f"a search of schema {values['schema']!r} cannot be resumed; this version writes schema {SCHEMA}")
    try:
        target = TargetRule(**values["target"])
        spec = Specification(**{name: values[name] for name in entries if name in values} | {"target": target})
    except TypeError as error:
        raise UserError(f"the description of a search is wrong ({error})") from None
    for kind, what in (("checkpoint", f"weights of {spec.network}"), ("data", f"data of {spec.dataset}")):
        if values.get(kind) != (now := spec._contents.get(kind)):
            raise UserError(f"the {what} have changed since the search: SHA-256 {now} now, {values.get(kind)} then")
    return spec
