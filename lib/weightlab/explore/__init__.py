"""Choose k for every layer by hand in a notebook, and see at once the rate and the loss."""

from weightlab.explore.explorer import Explorer
from weightlab.explore.study import Study

__all__ = ["Explorer", "Study"]
