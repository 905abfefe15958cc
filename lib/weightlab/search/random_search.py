"""Random search: every k uniform from its list."""

from dataclasses import dataclass

import numpy as np

from weightlab.errors import UserError
from weightlab.search.base import Search


class RandomSearch(Search):
    """Independent uniform plans in batches (section 5.2)."""

    guided = False

    @dataclass(frozen=True)
    class Settings:
        batch: int = 20

        def __post_init__(self) -> None:
            if self.batch < 1:
                raise UserError(f"a batch must hold at least 1 plan, got {self.batch}")

    settings: Settings

    @property
    def size(self) -> int:
        return self.settings.batch

    def _ask(self) -> np.ndarray:
        plans = self.space.sample(self.rng, self.size)
        return self._first(plans) if self.generation == 0 else plans
