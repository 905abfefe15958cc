"""Fit a network and measure it."""

import argparse
import hashlib
import json
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import nn

from weightlab import backend, data, errors, models, paths

CHUNK = 100  # images a forward pass: about the fastest for LeNet-5 on a CPU, and small enough for any memory


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; the thesis's way by default (section 5: Adam, cross entropy, epoch of lowest validation loss)."""

    dataset: str = "mnist"
    learning_rate: float = 1e-4
    batch: int = 32
    epochs: int = 100
    seed: int = 1


CHECKPOINTS = {"lenet5_tanh": Recipe(), "lenet5_relu": Recipe()}


def logits(model: nn.Module, images: torch.Tensor, device: str = "auto", chunk: int = CHUNK) -> torch.Tensor:
    """The network's outputs, float32 (n, classes), for uint8 images (n, channels, height, width), on the CPU."""
    place = backend.device(device)
    home, modes = next(model.parameters()).device, {module: module.training for module in model.modules()}
    try:
        model.to(place).eval()
        with torch.inference_mode():
            return torch.cat([model(part.to(place).float() / 255).cpu() for part in images.split(chunk)])
    finally:  # the caller's network is left as it was
        model.to(home)
        for module, training in modes.items():
            module.training = training


def accuracy(model: nn.Module, split: data.Split, device: str = "auto", threads: int | None = None) -> float:
    """Fraction of images whose largest logit is that of their class."""
    with backend.threads(threads):
        return int((logits(model, split.images, device).argmax(1) == split.labels).sum()) / len(split)


def fit(network: str, recipe: Recipe, device: str = "auto", log: Callable[[str], None] = print) -> tuple[nn.Module, list[dict]]:
    """Train a network from its seed; returns it as it was at the epoch of lowest validation loss, and the losses of all epochs.

    Everything random (initial weights, order of the images) comes from `recipe.seed`.
    """
    place = backend.device(device)
    train, validation = data.load(recipe.dataset, "train"), data.load(recipe.dataset, "validation")
    model = models.build(network, recipe.seed).to(place)
    optimizer = torch.optim.Adam(model.parameters(), lr=recipe.learning_rate)
    generator = torch.Generator().manual_seed(recipe.seed)
    images, labels = train.images.to(place), train.labels.to(place)
    best, history = None, []
    for epoch in range(recipe.epochs):
        started, total = time.perf_counter(), 0.0
        model.train()
        for rows in torch.randperm(len(train), generator=generator).split(recipe.batch):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images[rows].float() / 255), labels[rows])
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
        outputs = logits(model, validation.images, device)
        validation_loss = nn.functional.cross_entropy(outputs, validation.labels).item()
        history.append({"epoch": epoch, "train_loss": total / len(train), "validation_loss": validation_loss})
        if best is None or validation_loss < best[0]:
            best = validation_loss, {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
        log(f"{network} epoch {epoch + 1}/{recipe.epochs}: training loss {total / len(train):.4f}, "
            f"validation loss {validation_loss:.4f}, {time.perf_counter() - started:.0f} s")  # fmt: skip
    model.load_state_dict(best[1])
    return model.eval(), history


def train_checkpoint(network: str, folder: Path, device: str = "auto") -> dict:
    """Train one of `CHECKPOINTS` and write `folder/NETWORK.safetensors` with its card `NETWORK.json`; returns the card."""
    recipe = CHECKPOINTS[network]
    started = time.perf_counter()
    model, history = fit(network, recipe, device, log=lambda line: print(line, flush=True))
    model = model.cpu()
    raw = save({name: value.contiguous() for name, value in model.state_dict().items()})
    details = {
        "network": network,
        "recipe": asdict(recipe) | {"optimizer": "Adam", "loss": "cross entropy", "keep": "epoch of lowest validation loss"},
        "epoch": int(np.argmin([row["validation_loss"] for row in history])),
        "accuracy": {name: accuracy(model, data.load(recipe.dataset, name)) for name in data.SPLITS},
        "sha256": hashlib.sha256(raw).hexdigest(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "device": str(backend.device(device)),
        "minutes": round((time.perf_counter() - started) / 60, 1),
        "history": history,
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in ((f"{network}.safetensors", raw), (f"{network}.json", json.dumps(details, indent=1).encode())):
        paths.write_whole(folder / name, content)
    return details


def main() -> None:
    """`python -m weightlab.training`: verify the checkpoints in `models/` and train those that are missing."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("networks", nargs="*", default=list(CHECKPOINTS), metavar="NETWORK", help="default: all")
    parser.add_argument("--retrain", action="store_true", help="train again also what is there")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default 1: small batches gain nothing from more)")
    arguments = parser.parse_args()
    for network in arguments.networks:
        errors.choose("network with a recipe", network, CHECKPOINTS)
    for network in arguments.networks:
        present = all((paths.models() / f"{network}.{kind}").exists() for kind in ("safetensors", "json"))
        with backend.threads(arguments.threads):
            if arguments.retrain or not present:
                train_checkpoint(network, paths.models())
        models.load(network)
        shares = ", ".join(f"{name} {value:.2%}" for name, value in models.card(network)["accuracy"].items())
        print(f"{network}: checkpoint verified, accuracy {shares}")


if __name__ == "__main__":
    errors.run(main)
