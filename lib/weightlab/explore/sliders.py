"""A slider for the k of every layer; where there are many layers, a slider for each block of them, with its layers' own below."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import ipywidgets
import numpy as np

from weightlab.explore import controls
from weightlab.explore.study import blocks

WIDE = ipywidgets.Layout(width="30em")


class PlanSliders:
    """The plan as sliders; `changed` is called once for each move by hand, even if it moves many layers.

    `layers` holds a slider per layer, `groups` one per block of several layers, which sets them all.
    """

    def __init__(self, names: Sequence[str], plan: Sequence[int], k_max: int, changed: Callable[[], None]):
        self._changed, self._in_code = changed, False
        self.layers = [
            _slider(name, k, k_max, f"weightlab-slider-{i}") for i, (name, k) in enumerate(zip(names, plan, strict=True))
        ]
        self.groups: dict[str, ipywidgets.IntSlider] = {}
        parts = []
        for block, members in blocks(names).items():
            if len(members) == 1:
                parts.append(self.layers[members[0]])
                continue
            group = _slider(f"{block}: {len(members)} layers", 1, k_max, f"weightlab-group-{len(self.groups)}")
            group.observe(lambda change, members=members: self._set(members, change["new"]), "value")
            self.groups[block] = group
            single = ipywidgets.Accordion([ipywidgets.VBox([self.layers[i] for i in members])], selected_index=None)
            single.set_title(0, f"{block}, layer by layer")
            parts += [group, single]
        self._members = [members for members in blocks(names).values() if len(members) > 1]
        for slider in self.layers:
            slider.observe(lambda change: self._moved(), "value")
        self.box = ipywidgets.VBox(parts, layout=controls.column(max_height="36em", overflow="auto"))
        self._show_groups()

    @property
    def plan(self) -> list[int]:
        return [slider.value for slider in self.layers]

    @plan.setter
    def plan(self, plan: Sequence[int]) -> None:
        if list(plan) != self.plan:
            self._set(range(len(self.layers)), plan)

    def _set(self, members: Sequence[int], ks: int | Sequence[int]) -> None:
        if self._in_code:
            return
        with self._hold():
            for i, k in zip(members, np.broadcast_to(ks, len(members)).tolist(), strict=True):
                self.layers[i].max = max(self.layers[i].max, k)
                self.layers[i].value = k
        self._moved()

    def _moved(self) -> None:
        if not self._in_code:
            self._show_groups()
            self._changed()

    def _show_groups(self) -> None:
        """A block's slider stands at the median of its layers."""
        with self._hold():
            for group, members in zip(self.groups.values(), self._members, strict=True):
                group.value = int(np.median([self.layers[i].value for i in members]))

    @contextmanager
    def _hold(self) -> Iterator[None]:
        """A context in which changes of sliders do not count as moves by hand."""
        self._in_code = True
        try:
            yield
        finally:
            self._in_code = False


def _slider(name: str, k: int, k_max: int, mark: str) -> ipywidgets.IntSlider:
    slider = ipywidgets.IntSlider(
        k, 1, max(k_max, k), description=name, layout=WIDE, style={"description_width": "12em"}, continuous_update=True
    )
    slider.tooltip = f"k of {name}"
    return slider.add_class(mark)
