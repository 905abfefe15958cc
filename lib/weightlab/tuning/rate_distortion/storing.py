"""What a file holds of a network that was compressed at a price: labels, values, and all other tensors."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from weightlab import accounting, formats, models
from weightlab.compression.compressed import Compressed
from weightlab.compression.contract import Labels, Stored, Values
from weightlab.tuning.rate_distortion import batch_norm, matrices, remainder
from weightlab.tuning.rate_distortion.assignment import Assigned

FORMAT = "float16"  # of centroids that are on no grid
CODING_ERROR = 0.05  # of logits, relative to their standard deviation over classes, that coded biases and batch norm may make


def stored(assigned: Assigned, layer: nn.Module) -> Stored:
    """What a file holds of a layer."""
    labels = matrices.back(layer, torch.from_numpy(assigned.labels)).numpy().ravel()
    if assigned.k == 1:
        return codebook(labels, assigned.values.ravel()[:1])
    return Stored("grid", {"labels": _labels(labels, assigned.k)}, {"low": assigned.low, "step": assigned.step})


def codebook(labels: np.ndarray, centroids: np.ndarray) -> Stored:
    """Labels, in the order of the weights, and centroids of their own."""
    k = len(centroids)
    rounded = formats.get(FORMAT).round(centroids.astype(np.float32))
    parts: dict[str, Values | Labels] = {"centroids": Values(rounded, FORMAT)}
    return Stored("codebook", parts | ({"labels": _labels(labels, k)} if k > 1 else {}), {"k": k})


def _labels(labels: np.ndarray, k: int) -> Labels:
    return Labels(labels.ravel().astype(np.uint8 if k <= 256 else np.uint16), int(accounting.key_bits(k)))


def with_others(
    model: nn.Module, changed: nn.Module, layers: Sequence[models.Layer], stored: Sequence[Stored], method: str, coding: str
) -> Compressed:
    """With all other tensors of the changed network, coded where they are float32."""
    others = _others(changed, layers)
    ks = [len(np.unique(each.parts["labels"].numbers)) if "labels" in each.parts else 1 for each in stored]
    tensors = {name: value for name, value in others.items() if not torch.equal(value, model.state_dict()[name])}
    return Compressed([[layer] for layer in layers], stored, ks, method, tensors, remainder.stored(others, coding))


def _others(model: nn.Module, layers: Sequence[models.Layer]) -> dict[str, torch.Tensor]:
    names = shared(model, layers)
    return {name: value for name, value in model.state_dict().items() if name not in names} | batch_norm.merged(model)


def shared(model: nn.Module, layers: Sequence[models.Layer]) -> set[str]:
    """All names of the layers' weights."""
    places = {models.weight(model, layer.name).data_ptr() for layer in layers}
    return {name for name, value in model.state_dict().items() if value.data_ptr() in places}


@torch.no_grad()
def coding(model: nn.Module, layers: Sequence[models.Layer], images: torch.Tensor) -> str:
    """The smallest coding of biases and batch norm that, by itself, changes the logits next to nothing."""
    expected, others = model(images.clone()), _others(model, layers)
    for name in remainder.CODINGS:
        changed = Compressed([], [], [], "", others, remainder.stored(others, name)).apply(model).eval()
        error = (changed(images.clone()) - expected).pow(2).mean().sqrt()
        if error <= CODING_ERROR * expected.std(1).mean():
            break
    return name
