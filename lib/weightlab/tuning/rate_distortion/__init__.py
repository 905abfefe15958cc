"""The smallest file: weights on few values at the least cost of error and coded bits together, from one number and in seconds."""

from weightlab.tuning.rate_distortion.compression import LEVELS, Found, compress

__all__ = ["LEVELS", "Found", "compress"]
