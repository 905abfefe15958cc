"""weightlab: make trained convolutional networks small by weight sharing, and measure the result honestly."""

from weightlab.errors import UserError

__all__ = ["UserError"]
__version__ = "0.1.0"
