"""The time of plans of several networks, each network in a process of its own."""

from collections.abc import Iterable, Mapping
from functools import partial

import numpy as np
import pandas as pd

from weightlab import backend, models, sharing
from weightlab.data import Split
from weightlab.networks import own as own_networks
from weightlab.runs import executors


def time_plans(
    plans: Mapping[str, np.ndarray],
    split: Split,
    methods: Iterable[str],
    format: str = "float32",
    workers: int | None = None,
) -> pd.DataFrame:
    """`sharing.time_plans` of the plans (n, layers) of each network, with a column network.

    As many networks at a time as there are `workers` (default: as many as cores); each takes one thread.
    """
    task = partial(_time_plans, split, list(methods), format, own_networks.folders())
    done = executors.execute(task, list(plans.items()), workers or backend.cores())
    tables = {network: table for (network, _), table in done}
    return pd.concat([tables[network].assign(network=network) for network in plans], ignore_index=True)


def _time_plans(
    split: Split, methods: list[str], format: str, places: tuple[str, ...], item: tuple[str, np.ndarray]
) -> pd.DataFrame:
    for place in places:  # a user's own network may be there
        own_networks.look_in(place)
    network, plans = item
    return sharing.time_plans(models.load(network), plans, split, methods, format)
