"""Datasets as tensors with fixed, seeded splits: the library's, and a user's own."""

from weightlab.data.downloads import DATASETS
from weightlab.data.splits import IMAGENET_INDEX, SPLIT_SEED, SPLITS, Split, check, identity, label, load

__all__ = ["DATASETS", "IMAGENET_INDEX", "SPLITS", "SPLIT_SEED", "Split", "check", "identity", "label", "load"]
