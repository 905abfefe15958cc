"""The architectures of this library."""

import itertools
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn

from weightlab import backend

IMAGENET_MEAN, IMAGENET_SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class LeNet5(nn.Module):
    """LeNet-5 of the thesis (table 2.1): (n, 1, 32, 32) -> logits (n, 10); average pooling with every activation."""

    def __init__(self, activation: Callable[[], nn.Module] = nn.Tanh):
        super().__init__()
        self.feature_extractor = nn.Sequential(
            nn.Conv2d(1, 6, 5), activation(), nn.AvgPool2d(2, 2),
            nn.Conv2d(6, 16, 5), activation(), nn.AvgPool2d(2, 2),
            nn.Conv2d(16, 120, 5), activation(),
        )  # fmt: skip
        self.classifier = nn.Sequential(nn.Linear(120, 84), activation(), nn.Linear(84, 10))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.feature_extractor(images).flatten(1))

    def sequence(self) -> list[nn.Module]:
        """The modules of the network in the order of their calls."""
        return [*self.feature_extractor, nn.Flatten(1), *self.classifier]


class MobileNetV2(nn.Module):
    """torchvision's MobileNet_v2, width 1.0 (table 2.2): (n, 1 or 3, height, width) -> logits (n, classes).

    Images as they are stored come in; grey ones are repeated to three channels, and all are standardised by `mean` and `sd`.
    """

    def __init__(self, classes: int = 1000, mean: Sequence[float] = (0, 0, 0), sd: Sequence[float] = (1, 1, 1)):
        super().__init__()
        # Channels last in memory: on a CPU about twice as fast, in training too.
        inner = backend.torchvision().models.mobilenet_v2(num_classes=classes).to(memory_format=torch.channels_last)
        self.standardise = Standardise(mean, sd)
        self.features, self.classifier = inner.features, inner.classifier  # torchvision's names of all parameters

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.features(self.standardise(images))
        return self.classifier(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))

    def sequence(self) -> list[nn.Module]:
        """The modules of the network in the order of their calls."""
        return [self.standardise, *self.features, nn.AdaptiveAvgPool2d(1), nn.Flatten(1), *self.classifier]


class AlexNet(nn.Module):
    """AlexNet for images of 32x32 pixels: (n, 1 or 3, 32, 32) -> logits (n, classes); grey images are repeated to three channels.

    Five convolutions with zero padding "same", each with batch norm; 24 446 976 multiplications in them per image at full width.
    `width` scales the channels of convolutions, `hidden` the outputs of the linear layers. Source: a course project on
    approximate multipliers, CIFAR-10 (see `published/claims_multipliers.csv`).
    """

    def __init__(self, classes: int = 10, width: float = 1.0, hidden: float = 1.0):
        super().__init__()
        a, b, c, d, e = (round(channels * width) for channels in (96, 256, 384, 384, 256))
        sizes = [e, *(round(outputs * hidden) for outputs in (4096, 4096, 1000))]
        self.standardise = Standardise((0, 0, 0), (1, 1, 1))
        self.features = nn.Sequential(
            # 32 pixels, a kernel of 11 and steps of 4 need seven zeros a row: "same" puts the odd one behind.
            nn.ZeroPad2d((3, 4, 3, 4)), nn.Conv2d(3, a, 11, 4), nn.BatchNorm2d(a), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(a, b, 5, padding=2), nn.BatchNorm2d(b), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(b, c, 3, padding=1), nn.BatchNorm2d(c), nn.ReLU(),
            nn.Conv2d(c, d, 3, padding=1), nn.BatchNorm2d(d), nn.ReLU(),
            nn.Conv2d(d, e, 3, padding=1), nn.BatchNorm2d(e), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        parts: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(sizes):
            parts += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU(), nn.Dropout(0.4)]
        self.classifier = nn.Sequential(*parts, nn.Linear(sizes[-1], classes))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(self.standardise(images)).flatten(1))

    def sequence(self) -> list[nn.Module]:
        """The modules of the network in the order of their calls."""
        return [self.standardise, *self.features, nn.Flatten(1), *self.classifier]


class Standardise(nn.Module):
    """Images (n, 1 or 3, height, width) -> (n, 3, height, width), minus mean, divided by sd, channels last in memory."""

    mean: torch.Tensor
    sd: torch.Tensor

    def __init__(self, mean: Sequence[float], sd: Sequence[float]):
        super().__init__()
        for name, values in (("mean", mean), ("sd", sd)):  # not persistent: no checkpoint holds them
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).reshape(3, 1, 1), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        standard = (images.expand(-1, 3, -1, -1) - self.mean) / self.sd
        return standard.contiguous(memory_format=torch.channels_last)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "lenet5_tanh": partial(LeNet5, nn.Tanh),
    "lenet5_relu": partial(LeNet5, nn.ReLU),
    "lenet5_fashion": partial(LeNet5, nn.ReLU),
    "mobilenet_v2": partial(MobileNetV2, 1000, IMAGENET_MEAN, IMAGENET_SD),
    "mobilenet_v2_fashion": partial(MobileNetV2, 10),
    "alexnet_fashion": partial(AlexNet, 10, 1 / 4, 1 / 16),
    "alexnet_cifar10": partial(AlexNet, 10),
}
BY_NAME = ("alexnet_cifar10",)  # trained only when asked for by name: it takes hours without a GPU
