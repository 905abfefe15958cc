"""What is measured, and on which data: chosen values, checked at once, hashed into a name.

Without numpy and torch, so that the command can read the fields quickly.
"""

import hashlib
import json
from dataclasses import KW_ONLY, asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from weightlab.compression.multipliers.settings import Multiplying
from weightlab.compression.sharing.settings import Sharing
from weightlab.errors import UserError, check_whole, choose
from weightlab.settings import Option, chosen, names, takes_fields_of

PROTOCOLS = {"held_out": "validation", "published": "test"}  # the split on which everything is chosen
RECORDED_SPLITS = ("validation", "test")
SCHEMA = 3  # raised whenever records of an older kind may no longer be reused


@takes_fields_of("compression")
@dataclass(frozen=True)
class Setting:
    """What plans are measured on. `images` limits each split to its first images (None: all).

    `network` and `dataset` are names, or a user's own: `module:factory` with the file of its `weights` (None: the factory's), and an
    `.npz` file or a folder of pictures (see `data.own`). Paths are kept absolute. `compression` holds the settings of the compression method;
    its fields can be given and read as if they were fields of this class.
    Raises `UserError` for unknown names and numbers out of range.
    """

    network: str = chosen(
        option=Option("network", "A network here (such as lenet5_tanh), or module:factory of your own."),
        measured=True, apart=True, column="name of the network; of a user's own with the first digits of its weights' SHA-256",
    )  # fmt: skip
    _: KW_ONLY
    weights: str | None = chosen(
        None,
        Option(
            "weights",
            "State dict of a network of your own: .safetensors, or torch's, in which nothing else is executed.",
            type=Path,
        ),
        measured=True, apart=True, later=True,
    )  # fmt: skip
    dataset: str = chosen(
        "mnist",
        Option("data", "A dataset's name, an .npz file or a folder of pictures by class.", "what a network here was trained on"),
        measured=True, apart=True, column="name of the dataset; of a user's own with the first digits of its contents' SHA-256",
    )  # fmt: skip
    images: int | None = chosen(None, Option("images", "Take only the first images of each split.", "all", int), measured=True)
    protocol: str = chosen(
        "held_out",
        Option("protocol", "held_out chooses on validation, published on test.", "held_out"),
        apart=True, column="`held_out`: validation chooses; `published`: test chooses, as in the thesis",
    )  # fmt: skip
    objective_rate: str = chosen(
        "storage",
        Option("objective", "The rate to aim at: storage or layer_mean.", "storage"),
        column="the rate that is searched for: `storage`, `layer_mean`, or `energy` of multipliers",
    )  # fmt: skip
    compression: Sharing | Multiplying = field(default_factory=Sharing)

    def __post_init__(self) -> None:
        from weightlab import data, models

        object.__setattr__(self, "weights", models.check(self.network, self.weights))
        object.__setattr__(self, "dataset", data.check(self.dataset))
        choose("protocol", self.protocol, PROTOCOLS)
        choose("objective rate", self.objective_rate, self.compression.rates)
        if self.images is not None:
            check_whole("images", self.images, 1, "None or ")
        if self.protocol == "published":
            self.compression.check_published()

    def __getattr__(self, name: str) -> Any:
        """The fields of `compression`."""
        if name.startswith("_") or "compression" not in vars(self):  # while it is copied or unpickled
            raise AttributeError(name)
        return getattr(self.compression, name)

    def measured(self) -> "Setting":
        """The part that a network's answers depend on: the same for all protocols, rates and searches."""
        values = {name: getattr(self, name) for name in names(Setting, "measured") if name in Setting.__dataclass_fields__}
        setting = Setting(**values, compression=self.compression)
        vars(setting)["_contents"] = self._contents  # the same files as they were then
        return setting

    def describe(self) -> dict:
        """All fields as JSON-ready values, with SHA-256 of the weights and of own data.

        Fields that were added later are left out where they are unset, so that older settings keep their hash.
        """
        later = names(type(self), "later")
        values = {name: value for name, value in asdict(self).items() if name != "compression" and (value or name not in later)}
        return values | self.compression.describe() | self._contents | {"schema": SCHEMA}

    @cached_property
    def _contents(self) -> dict:
        """SHA-256 of the weights and of own data, computed once for each setting: a folder may hold many files."""
        return self._look()

    def _look(self) -> dict:
        from weightlab import data, models

        own = data.identity(self.dataset)
        return {"checkpoint": models.identity(self.network, self.weights)} | ({"data": own} if own else {})

    def check_unchanged(self) -> None:
        """Raise `UserError` if weights or own data have changed since the hash was computed."""
        if self._look() != self._contents:
            raise UserError(
                f"weights of {self.network} or data of {self.dataset} have changed since this setting was made; make it again"
            )

    def labels(self) -> dict:
        """What records call network and dataset: names, with the first digits of their SHA-256 where they are a user's own."""
        from weightlab import data, models

        return {"network": models.label(self.network, self.weights), "dataset": data.label(self.dataset)}

    @property
    def hash(self) -> str:
        """16 hexadecimal digits that name its folder or file; they depend on the contents of a user's own files, not on their place."""
        places = {"weights"} | ({"dataset"} if "data" in self._contents else set())
        values = {name: value for name, value in self.describe().items() if name not in places}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
