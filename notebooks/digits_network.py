"""A network and data of one's own, for 08_compress_your_own_network: a small CNN on scikit-learn's 1 797 handwritten digits.

Everything weightlab needs of a network is a function without arguments that makes it, and a file with its state dict; of data, uint8
images and their classes in an .npz file (or a folder of pictures by class). Copy this file and make it yours.
"""

from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from weightlab import backend

PARTS = {"train": slice(0, 900), "validation": slice(900, 1350), "test": slice(1350, None)}


def network() -> nn.Module:
    """(n, 1, 8, 8), values 0 to 1 -> logits (n, 10). As an `nn.Sequential` its layers are known one by one, which makes searches fast."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def make(folder: str | Path) -> tuple[str, str]:
    """The files with its state dict and with the data, made in `folder` if they are not there."""
    folder = Path(folder)
    weights, data = folder / "digits.pt", folder / "digits.npz"
    folder.mkdir(parents=True, exist_ok=True)
    if not data.exists():
        write_data(data)
    if not weights.exists():
        train(data, weights)
    return str(weights), str(data)


def write_data(file: str | Path, seed: int = 0) -> None:
    """The digits as uint8 images (n, 1, 8, 8) and classes, shuffled, in three parts that share none."""
    digits = load_digits()
    order = np.random.default_rng(seed).permutation(len(digits.target))
    images, labels = (digits.images * 255 / 16).round().astype(np.uint8)[order, None], digits.target[order]
    arrays = {f"{part}_images": images[rows] for part, rows in PARTS.items()}
    np.savez_compressed(file, **arrays, **{f"{part}_labels": labels[rows] for part, rows in PARTS.items()})


def train(data: str | Path, weights: str | Path, epochs: int = 40, seed: int = 0) -> None:
    """Fit the network to the training part and save its state dict."""
    arrays = np.load(data)
    images, labels = torch.from_numpy(arrays["train_images"]).float() / 255, torch.from_numpy(arrays["train_labels"])
    with torch.random.fork_rng(), backend.threads(1):  # batches this small gain nothing from more threads
        torch.manual_seed(seed)
        model = network()
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        for _ in range(epochs):
            for rows in torch.randperm(len(labels)).split(50):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
                optimizer.step()
    torch.save(model.state_dict(), weights)
