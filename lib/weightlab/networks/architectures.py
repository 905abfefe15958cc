"""The architectures of this library."""

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
    "mobilenet_v2": partial(MobileNetV2, 1000, IMAGENET_MEAN, IMAGENET_SD),
    "mobilenet_v2_fashion": partial(MobileNetV2, 10),
}
