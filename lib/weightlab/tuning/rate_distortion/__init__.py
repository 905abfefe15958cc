"""The smallest file: weights on few values at the least cost of error and coded bits together, from one number and in seconds."""

from weightlab.tuning.rate_distortion.compression import CALIBRATION, LEVELS, PRICE, Found, at_price, compress
from weightlab.tuning.rate_distortion.subject import Subject

__all__ = ["CALIBRATION", "LEVELS", "PRICE", "Found", "Subject", "at_price", "compress"]
