"""A compressed network as a file, to prove its size: written whole, read back exactly (docs/format.md).

The file is a safetensors file (version 1), or more compact (version 2). `storage_rate` predicts the bytes of its codebooks and labels; biases, batch norm and the header come
on top, and `file_rate` counts everything.
"""

import math
import os
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from weightlab import accounting, models
from weightlab.compression import kinds
from weightlab.compression.contract import Labels, Stored
from weightlab.errors import UserError, flat, plain
from weightlab.packing import compact_format, metadata, packed_format
from weightlab.packing.compact_metadata import CompactDetails, StoredGroup
from weightlab.packing.metadata import Details, Group


@dataclass(frozen=True)
class Packed:
    """A packed file in memory: `details` (its metadata), the stored parts of each group, all other tensors, and where bytes went."""

    details: Details | CompactDetails
    stored: Sequence[Stored]
    rest: dict[str, torch.Tensor]
    header_bytes: int
    group_bytes: Sequence[int]
    rest_bytes: int
    content: bytes

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Every tensor of the network by its name, weights of groups as float32."""
        state = {}
        for group, stored in zip(self.details.groups, self.stored, strict=True):
            values = kinds.weights(stored, group.size)
            for (name, shape), part in zip(group.weights, np.split(values, _ends(group.weights)), strict=True):
                state[name] = torch.from_numpy(part.reshape(shape))
        state |= self.rest
        return state | {name: state[first] for name, first in self.details.same.items()}

    def load(self, model: nn.Module) -> nn.Module:
        """A copy of `model` with the weights of this file, in evaluation mode; raises `UserError` if they do not fit."""
        filled = models.copied(model)
        state: Any = OrderedDict(self.state_dict())
        # The versions of modules, by which some of them read a state.
        state._metadata = getattr(filled.state_dict(), "_metadata", None)
        try:
            filled.load_state_dict(state)
        except RuntimeError as error:
            misfits = flat(error)[:300]
            raise UserError(
                f"the packed weights (network {self.details.network!r}) are not those of this network: {misfits}"
            ) from None
        return filled.eval()

    def shared(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """By name of a weight that has a codebook or lies on a grid: centroids, float32 (n,), and labels, unsigned, of the weight's shape."""
        books = {}
        for group, stored in zip(self.details.groups, self.stored, strict=True):
            if stored.kind in ("codebook", "grid"):
                centroids, labels = kinds.centroids(stored), stored.parts.get("labels")
                all_labels = np.zeros(group.size, dtype=np.uint8) if labels is None else labels.numbers
                for (name, shape), own in zip(group.weights, np.split(all_labels, _ends(group.weights)), strict=True):
                    books[name] = centroids, own.reshape(shape)
        return books

    def report(self) -> pd.DataFrame:
        """A row per group: layer, weights, k, bits, coding, stored_bits (as `storage_rate` counts them), rate, bytes, rms_error.

        `k` is None for weights without a codebook, `bits` are those of a label.
        """
        rows = []
        groups: Sequence[Group | StoredGroup] = self.details.groups
        for name, group, stored, size in zip(self.details.names, groups, self.stored, self.group_bytes, strict=True):
            bits, labels = kinds.bits(stored), stored.parts.get("labels")
            rows.append({
                "layer": name.removesuffix(".weight"),
                "weights": group.size,
                "k": stored.settings.get("k", len(kinds.centroids(stored)) if stored.kind == "grid" else None),
                "bits": labels.width if isinstance(labels, Labels) else 0,
                "coding": group.label_coding,
                "stored_bits": bits,
                "rate": group.size * accounting.ORIGINAL_BITS / bits,
                "bytes": size,
                "rms_error": group.error,
            })  # fmt: skip
        return pd.DataFrame(rows)

    def summary(self) -> dict:
        """Rates and bytes, JSON-ready.

        `coded_rate`: bits of the compressed weights as float32 to their bits in the file, codebooks and counts included.
        `predicted_bytes`: the shared weights by `storage_rate`, plus `rest_bytes`, all other tensors as stored; `payload_bytes`: the
        file without its header; `file_rate`: original_bytes / file_bytes.
        """
        table = self.report()
        thesis_bits = [kinds.thesis_bits(stored, n) for stored, n in zip(self.stored, table["weights"], strict=True)]
        rates = accounting.rates(table["weights"].to_numpy(), table["stored_bits"].to_numpy(), np.array(thesis_bits))
        return {
            "storage_rate": float(rates["storage_rate"]),
            "layer_mean_rate": float(rates["layer_mean_rate"]),
            "coded_rate": 4 * int(table["weights"].sum()) / sum(self.group_bytes),
            "file_rate": self.details.original_bytes / len(self.content),
            "file_bytes": len(self.content),
            "header_bytes": self.header_bytes,
            "payload_bytes": len(self.content) - self.header_bytes,
            "predicted_bytes": -(-int(table["stored_bits"].sum()) // 8) + self.rest_bytes,
            "rest_bytes": self.rest_bytes,
            "original_bytes": self.details.original_bytes,
        }


def read(file: str | Path, limit_bytes: int | None = None) -> Packed:
    """A packed file, checked throughout (see `packed_format.check`); raises `UserError`, and nothing else, for any other file.

    >>> import tempfile
    >>> from weightlab import packing
    >>> model = models.load("lenet5_tanh")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = packing.write(Path(folder, "small.safetensors"), model, plan=8, format="float16")
    ...     packed = read(Path(folder, "small.safetensors"))
    >>> packed.details.plan, len(packed.stored[0].parts["centroids"].numbers), type(packed.load(model)).__name__
    (8, 8, 'LeNet5')
    """
    try:
        content = _content(Path(file))
        return Packed(*packed_format.check(content, limit_bytes), content)
    except UserError as error:
        reason = plain(str(error)[:500])  # names and shapes in it may be of any length
        raise UserError(f"{file} is not a packed network that can be trusted: {reason}") from None
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error}") from error
    except MemoryError:
        raise UserError(f"{file} needs more memory than is available") from None


def _content(file: Path) -> bytes:
    """All bytes of a file, read only if its header is valid: a file may be far larger than memory, or endless."""
    if file.exists() and not file.is_file():
        raise OSError("it is not a file")
    with open(file, "rb") as stream:
        size, head = os.fstat(stream.fileno()).st_size, stream.read(compact_format.HEAD)
        if head.startswith(compact_format.MAGIC):
            head += stream.read(compact_format.start(head, size) - len(head))
            compact_format.parse(head)
        else:
            head += stream.read(max(0, metadata.header_bytes(head, size) - len(head)))
            metadata.parse(head)
        return head + stream.read()


def _ends(weights: Iterable[tuple[str, Sequence[int]]]) -> np.ndarray:
    """The places, among the numbers of a group, where each weight but the last ends."""
    return np.cumsum([math.prod(shape) for _, shape in weights])[:-1]
