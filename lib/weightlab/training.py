"""Fit a network and measure it."""

import argparse
import hashlib
import json
import platform
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save
from torch import nn

from weightlab import backend, data, errors, models, paths, storage
from weightlab.errors import UserError
from weightlab.networks import answers
from weightlab.networks import own as own_networks

LOWEST_LOSS, LAST = "epoch of lowest validation loss", "last epoch"


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; the thesis's way by default (section 5: Adam, cross entropy, epoch of lowest validation loss).

    With `one_cycle` the learning rate rises to `learning_rate` and falls to nearly nothing over all epochs; with `flip` every image
    is mirrored with probability ½; `stored` is the number format of the checkpoint.
    """

    dataset: str = "mnist"
    learning_rate: float = 1e-4
    batch: int = 32
    epochs: int = 100
    seed: int = 1
    optimizer: str = "Adam"
    weight_decay: float = 0.0
    one_cycle: bool = False
    flip: bool = False
    keep: str = LOWEST_LOSS
    stored: str = "float32"


FASHION_LARGE = Recipe(
    "fashion_mnist", learning_rate=3e-3, batch=128, epochs=20, optimizer="AdamW", weight_decay=0.05,
    one_cycle=True, flip=True, keep=LAST, stored="float16",
)  # fmt: skip
CHECKPOINTS = {
    "lenet5_tanh": Recipe(),
    "lenet5_relu": Recipe(),
    "lenet5_fashion": Recipe("fashion_mnist", stored="float16"),
    "mobilenet_v2_fashion": FASHION_LARGE,
    "alexnet_fashion": FASHION_LARGE,
    "alexnet_cifar10": Recipe("cifar10", learning_rate=1e-3, batch=64, epochs=130, flip=True, stored="float16"),
}  # fmt: skip
NOTES = {
    "mobilenet_v2_fashion": "A stand-in for MobileNet_v2 with ImageNet weights on Imagenette: the same architecture with ten outputs, "
    "trained on Fashion-MNIST at 32x32, where one download less is needed; none of its figures is one of the thesis's.",
    "alexnet_fashion": "The AlexNet of a project on approximate multipliers, trained there on CIFAR-10: its convolutions at a quarter of "
    "their width, its linear layers at a sixteenth, on Fashion-MNIST with three equal channels.",
    "alexnet_cifar10": "The AlexNet of a project on approximate multipliers at full width. The project also turned images by up to 2 degrees, "
    "zoomed by up to a tenth, lowered the learning rate on plateaus and trained on 35 000 images; this is left out here.",
}
PRETRAINED = {"mobilenet_v2": "imagenette"}  # networks whose weights are downloaded, and what they are measured on


def dataset_of(network: str) -> str:
    """The dataset that a network of this library was trained for; raises `UserError` for any other."""
    if own_networks.is_own(network):
        raise UserError(f"network {network} is your own, so give the dataset it is measured on")
    errors.choose("network", network, models.NETWORKS)
    return PRETRAINED.get(network) or CHECKPOINTS[network].dataset


def logits(model: nn.Module, images: torch.Tensor, device: str = "auto") -> torch.Tensor:
    """The network's outputs, float32 (n, classes), for uint8 images (n, channels, height, width), on the CPU.

    `answers.together` says how many images are passed at a time. Raises `UserError` as `answers.forward` does.
    """
    place = backend.device(device)
    home, modes = next(model.parameters()).device, {module: module.training for module in model.modules()}
    try:
        model.to(place).eval()
        chunk = answers.together(model, images[:1].to(place).float() / 255)
        with torch.inference_mode(), backend.full_precision():
            return torch.cat([answers.forward(model, part.to(place).float() / 255).cpu() for part in images.split(chunk)])
    finally:  # the caller's network is not changed
        model.to(home)
        for module, training in modes.items():
            module.training = training


def accuracy(model: nn.Module, split: data.Split, device: str = "auto", threads: int | None = None, top: int = 1) -> float:
    """Fraction of images whose class has one of the `top` largest logits; raises `UserError` for an impossible `top`.

    >>> images = torch.tensor([[0, 255], [255, 0]], dtype=torch.uint8).reshape(2, 1, 1, 2)
    >>> split = data.Split("mine", "test", images, torch.tensor([1, 1]))
    >>> accuracy(nn.Sequential(nn.Flatten(), nn.PReLU()), split)  # its logits are the two pixels
    0.5
    """
    return accuracies(model, [split], (top,), device, threads)["accuracy"].item()


def accuracies(
    model: nn.Module, splits: Iterable[data.Split], tops: Iterable[int] = (1, 5), device: str = "auto", threads: int | None = None
) -> pd.DataFrame:
    """`accuracy` on every split for every number of largest logits in `tops`: columns dataset, split, images, top, accuracy."""
    rows = []
    for split in splits:
        with backend.threads(threads):
            outputs = logits(model, split.images, device)
        ranked = outputs.argsort(dim=1, descending=True, stable=True)  # of equal logits the first comes first, as in argmax
        for top in tops:
            if isinstance(top, bool) or not isinstance(top, int) or not 1 <= top <= ranked.shape[1]:
                raise UserError(f"top must be a whole number from 1 to the {ranked.shape[1]} classes, got {top!r}")
            hits = int((ranked[:, :top] == split.labels[:, None]).sum())
            where = {"dataset": split.dataset, "split": split.name, "images": len(split), "top": top}
            rows.append(where | {"accuracy": hits / len(split)})
    return pd.DataFrame(rows)


@torch.random.fork_rng()
def fit(network: str, recipe: Recipe, device: str = "auto", log: Callable[[str], None] = print) -> tuple[nn.Module, list[dict]]:
    """Train a network from its seed; returns it with the weights of the epoch the recipe keeps, and the losses of all epochs.

    Everything random (initial weights, order of the images, mirroring, dropout) comes from `recipe.seed`.
    """
    place = backend.device(device)
    train, validation = data.load(recipe.dataset, "train"), data.load(recipe.dataset, "validation")
    model = models.build(network, recipe.seed).to(place)
    images, labels = train.images.to(place), train.labels.to(place)
    step = _step(model, recipe, recipe.epochs * -(-len(train) // recipe.batch))
    generator = torch.Generator().manual_seed(recipe.seed)
    torch.manual_seed(recipe.seed)  # dropout draws from the global generator, which is put back in the end
    best, history = {}, []
    for epoch in range(recipe.epochs):
        started, total = time.perf_counter(), 0.0
        model.train()
        for rows in torch.randperm(len(train), generator=generator).split(recipe.batch):
            batch = images[rows].float() / 255
            if recipe.flip:
                mirrored = torch.rand(len(rows), generator=generator) < 0.5
                batch[mirrored] = batch[mirrored].flip(3)
            total += step(batch, labels[rows]) * len(rows)
        outputs = logits(model, validation.images, device)
        validation_loss = nn.functional.cross_entropy(outputs, validation.labels).item()
        history.append({"epoch": epoch, "train_loss": total / len(train), "validation_loss": validation_loss})
        if _kept_epoch(recipe, history) == epoch:
            best = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
        log(f"{network} epoch {epoch + 1}/{recipe.epochs}: training loss {total / len(train):.4f}, "
            f"validation loss {validation_loss:.4f}, {time.perf_counter() - started:.0f} s")  # fmt: skip
    model.load_state_dict(best)
    return model.eval(), history


def _step(model: nn.Module, recipe: Recipe, steps: int) -> Callable[[torch.Tensor, torch.Tensor], float]:
    """A function that makes one of `steps` steps on a batch of images and labels, and returns its loss."""
    make = getattr(torch.optim, recipe.optimizer)
    optimizer = make(model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, steps) if recipe.one_cycle else None

    def step(batch: torch.Tensor, labels: torch.Tensor) -> float:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(batch), labels)
        loss.backward()
        optimizer.step()
        if schedule:
            schedule.step()
        return loss.item()

    return step


def _kept_epoch(recipe: Recipe, history: list[dict]) -> int:
    """The epoch, of those so far, whose weights are kept."""
    return len(history) - 1 if recipe.keep == LAST else int(np.argmin([row["validation_loss"] for row in history]))


def train_checkpoint(network: str, folder: Path, device: str = "auto") -> dict:
    """Train one of `CHECKPOINTS` and write `folder/NETWORK.safetensors` with its card `NETWORK.json`; returns the card."""
    recipe = CHECKPOINTS[network]
    started = time.perf_counter()
    model, history = fit(network, recipe, device, log=lambda line: print(line, flush=True))
    model, stored = model.cpu(), getattr(torch, recipe.stored)
    weights = {name: value.to(stored) if value.is_floating_point() else value for name, value in model.state_dict().items()}
    raw = save({name: value.contiguous() for name, value in weights.items()})
    model.load_state_dict(weights)  # what is measured is what is stored
    details = {
        "network": network,
        "recipe": asdict(recipe) | {"loss": "cross entropy"},
        "epoch": _kept_epoch(recipe, history),
        "accuracy": {name: accuracy(model, data.load(recipe.dataset, name)) for name in data.SPLITS},
        "sha256": hashlib.sha256(raw).hexdigest(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "device": str(backend.device(device)),
        "minutes": round((time.perf_counter() - started) / 60, 1),
        "history": history,
    } | ({"note": NOTES[network]} if network in NOTES else {})
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in ((f"{network}.safetensors", raw), (f"{network}.json", json.dumps(details, indent=1).encode())):
        storage.write_whole(folder / name, content)
    return details


def main() -> None:
    """`python -m weightlab.training`: verify the checkpoints in `models/` and train those that are missing."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    usual, rest = [name for name in CHECKPOINTS if name not in models.BY_NAME], ", ".join(models.BY_NAME)
    parser.add_argument("networks", nargs="*", default=usual, metavar="NETWORK", help=f"default: all but {rest}")
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
