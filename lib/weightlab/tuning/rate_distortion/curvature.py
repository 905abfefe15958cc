"""How much the loss changes with a layer's outputs: Fisher's information of the network's own answers (no labels are needed)."""

from typing import Any

import torch
from torch import nn

from weightlab.errors import UserError
from weightlab.tuning.rate_distortion.hooks import called_once, largest_activation

BATCH = 64  # images at a time, fewer where the largest activation of all of them would take more than so many bytes
MEMORY = 1 << 25


def rows(model: nn.Module, names: list[str], images: torch.Tensor, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """The squared gradient of every output channel, added up over places, its mean over images, by layer, float64 (rows,).

    The gradient is that of log p(y), y drawn from the network's answer, whose logits are divided by their standard deviation over classes:
    a network that is sure of its answers, or of none, would have no gradients otherwise. The part of Fisher's information that belongs to a
    layer's weights is then about rows ⊗ second moments of its inputs (Grosse and Martens 2016). A layer that no answer depends on is left out.
    Raises `UserError` for answers that are not finite.
    """
    totals: dict[str, torch.Tensor] = {}
    for part in images.split(min(BATCH, max(1, MEMORY // largest_activation(model, images[:1])))):
        outputs: dict[str, torch.Tensor] = {}

        def keep(_: nn.Module, __: tuple, output: torch.Tensor, name: str, outputs: dict = outputs) -> torch.Tensor:
            outputs[name] = output
            return output.clone()  # what follows may write into it

        with called_once(model, {model.get_submodule(name): (None, keep) for name in names}), torch.enable_grad():
            logits = model(part.clone().requires_grad_().clone())  # a copy, as some networks write into their input
            if not logits.isfinite().all():
                raise UserError(f"{type(model).__name__} answers NaN or infinity to an image, so it cannot be calibrated on it")
            soft = torch.log_softmax(logits / logits.detach().std(1).mean().clamp_min(1e-30), 1)
            drawn = torch.multinomial(soft.detach().exp(), 1, generator=generator)
            gradients = torch.autograd.grad(soft.gather(1, drawn).sum(), list(outputs.values()), allow_unused=True)
        for name, gradient in zip(outputs, gradients, strict=True):
            if gradient is not None:
                channels = channels_last(model.get_submodule(name), gradient)
                total = channels.double().pow(2).sum(0)
                totals[name] = totals.get(name, torch.zeros_like(total)) + total
    return {name: total / len(images) for name, total in totals.items()}


def means(layer: Any, output: torch.Tensor) -> torch.Tensor:
    """The mean of every output channel, float64 (channels,); only a part of the images at a time takes twice the memory."""
    sums = [channels_last(layer, part).double().sum(0) for part in output.split(BATCH)]
    return torch.stack(sums).sum(0) * len(sums[0]) / output.numel()


def channels_last(layer: Any, output: torch.Tensor) -> torch.Tensor:
    """A layer's output as (everything else, channels)."""
    channels = layer.weight.shape[0] if isinstance(layer, nn.Linear) else layer.out_channels
    axis = output.dim() - 1 if isinstance(layer, nn.Linear) else output.dim() - 1 - len(layer.kernel_size)
    return output.movedim(axis, -1).reshape(-1, channels)
