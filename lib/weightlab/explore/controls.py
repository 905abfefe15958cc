"""How the explorer's widgets are made, each with the CSS class `weightlab-<mark>` by which pages and tests find it."""

from collections.abc import Iterable

import ipywidgets


def html(mark: str) -> ipywidgets.HTML:
    return ipywidgets.HTML().add_class(f"weightlab-{mark}")


def dropdown(mark: str, options: Iterable[str], value: str) -> ipywidgets.Dropdown:
    layout = ipywidgets.Layout(width="20em")
    return ipywidgets.Dropdown(options=list(options), value=value, description=mark, layout=layout).add_class(f"weightlab-{mark}")


def column(**layout: str) -> ipywidgets.Layout:
    """Of sliders beside a long text, which would squeeze them."""
    return ipywidgets.Layout(min_width="32em", flex="0 0 auto", **layout)


def log_slider(mark: str, description: str, value: float, exponents: tuple[int, int]) -> ipywidgets.FloatLogSlider:
    """A slider over powers of ten, for work that takes a while: it tells its value once the handle is let go."""
    slider = ipywidgets.FloatLogSlider(
        value, base=10, min=exponents[0], max=exponents[1], step=0.1, description=description, readout_format=".3g",
        continuous_update=False, layout=ipywidgets.Layout(width="30em"), style={"description_width": "12em"},
    )  # fmt: skip
    return slider.add_class(f"weightlab-{mark}")


def button(text: str, mark: str, disabled: bool = False) -> ipywidgets.Button:
    layout = ipywidgets.Layout(flex="0 0 auto", width="12em")  # beside a long text it would be squeezed
    return ipywidgets.Button(description=text, disabled=disabled, layout=layout).add_class(f"weightlab-{mark}")
