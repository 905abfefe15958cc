"""Networks as users know them: build one, load a trained checkpoint, list the layers whose weights can be shared."""

from weightlab.networks.architectures import BY_NAME, NETWORKS, AlexNet, LeNet5, MobileNetV2, Standardise
from weightlab.networks.checkpoints import build, card, check, identity, label, load
from weightlab.networks.layers import Layer, copied, layers, left_out, weight

__all__ = [
    "BY_NAME",
    "NETWORKS",
    "AlexNet",
    "Layer",
    "LeNet5",
    "MobileNetV2",
    "Standardise",
    "build",
    "card",
    "check",
    "copied",
    "identity",
    "label",
    "layers",
    "left_out",
    "load",
    "weight",
]
