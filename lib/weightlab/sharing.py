"""Weight sharing as users know it: share a network, look at its codebooks."""

from weightlab.compression.sharing.clustering import K_MAX, METHODS, PLAIN, Codebook, Lift, cluster
from weightlab.compression.sharing.codebooks import WHOLE_NET, Codebooks
from weightlab.compression.sharing.lifts import Lifted
from weightlab.compression.sharing.share import (
    check_plan,
    choose_books,
    codebooks,
    compressed,
    inertia_excess,
    report,
    share,
    time_plans,
)

__all__ = [
    "K_MAX",
    "METHODS",
    "PLAIN",
    "WHOLE_NET",
    "Codebook",
    "Codebooks",
    "Lift",
    "Lifted",
    "check_plan",
    "choose_books",
    "cluster",
    "codebooks",
    "compressed",
    "inertia_excess",
    "report",
    "share",
    "time_plans",
]
