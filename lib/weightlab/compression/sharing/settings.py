"""The settings of weight sharing. Without torch, so that the command and the status of a grid can read the fields quickly."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

from weightlab.errors import UserError, choose
from weightlab.settings import Option, chosen

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import nn

    from weightlab.compression.sharing.codebooks import Codebooks


def _methods() -> Sequence[str]:
    from weightlab.compression.sharing import clustering

    return list(clustering.METHODS)


def _formats() -> Sequence[str]:
    from weightlab import formats

    return list(formats.FORMATS)


@dataclass(frozen=True, kw_only=True)
class Sharing:
    """How weights are shared, and the k that are tried: those listed in `ks`, or all from 1 to `k_max`.

    With a list, `k_max` is its largest. `whole_net`: one k for all layers together. Raises `UserError` for unknown names and wrong k.
    """

    method: str = chosen(
        "exact",
        Option("method", "How weights are clustered.", "exact"),
        measured=True, apart=True, column="how weights are clustered", allowed=_methods,
    )  # fmt: skip
    format: str = chosen(
        "float32",
        Option("format", "Number format of stored centroids.", "float32"),
        measured=True, apart=True, column="how centroids are stored", allowed=_formats,
    )  # fmt: skip
    k_max: int = chosen(
        50,
        Option("k", "Numbers of clusters to try: 1:50, 1:64:4 or 2,4,8,16.", "1:50", metavar="RANGE"),
        measured=True, tried=True,
    )  # fmt: skip
    ks: tuple[int, ...] | None = chosen(None, measured=True, tried=True, later=True)
    whole_net: bool = chosen(
        False,
        Option(
            "whole_net", "One codebook for the whole network, or one a layer.", "layer-wise", bool, ("--whole-net/--layer-wise",)
        ),
        measured=True, later=True, implied=True,
    )  # fmt: skip

    scanned = True  # whether a range scan says which variants a layer may take

    def __post_init__(self) -> None:
        from weightlab.compression.sharing import clustering

        choose("clustering method", self.method, _methods())
        choose("format", self.format, _formats())
        if self.ks is not None:
            object.__setattr__(self, "ks", _ascending(self.ks))
            object.__setattr__(self, "k_max", self.ks[-1])
        clustering.check_k(self.k_max)
        if not isinstance(self.whole_net, bool):
            raise UserError(f"whole_net must be True or False, got {self.whole_net!r}")

    @property
    def candidates(self) -> tuple[int, ...]:
        """The k that are tried, ascending."""
        return self.ks or tuple(range(1, self.k_max + 1))

    @property
    def rates(self) -> tuple[str, ...]:
        """What a search may aim at."""
        from weightlab import accounting

        return accounting.RATES

    def check_published(self) -> None:
        """Raise `UserError` for settings that the thesis's own protocol does not have."""
        if self.method == "exact":
            raise UserError("protocol 'published' is the thesis's own, got method 'exact'; allowed: kmeans, minibatch, gmm")

    def describe(self) -> dict:
        """All fields, JSON-ready; those that were added later only if they are set."""
        roles = {field.name: field.metadata["role"] for field in fields(self)}
        return {name: value for name, value in asdict(self).items() if value or not roles[name].later}

    def make(
        self,
        model: "nn.Module",
        example: "torch.Tensor | None" = None,
        folder: "str | Path | None" = None,
        whole_net: bool = False,
        training_images: "Callable[[int], torch.Tensor] | None" = None,
    ) -> "Codebooks":
        """The variants of a network's layers: codebooks, kept in a folder, if any; with `whole_net` always of all layers together.

        Training images are not needed.
        """
        from weightlab.compression.sharing.codebooks import Codebooks

        return Codebooks(model, self.method, self.format, self.candidates, self.whole_net or whole_net, example, folder)


def _ascending(ks: Sequence[int]) -> tuple[int, ...]:
    """A list of k, sorted, each once; raises `UserError` unless it holds numbers of clusters."""
    from weightlab.compression.sharing import clustering

    if isinstance(ks, str) or not isinstance(ks, Sequence) or not len(ks):
        raise UserError(f"ks must be None or a list of numbers of clusters, got {ks!r}")
    for k in ks:
        clustering.check_k(k)
    return tuple(sorted({int(k) for k in ks}))
