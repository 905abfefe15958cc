"""How the explorer's widgets are made, each with the CSS class `weightlab-<mark>` by which pages and tests find it."""

from collections.abc import Iterable

import ipywidgets


def html(mark: str) -> ipywidgets.HTML:
    return ipywidgets.HTML().add_class(f"weightlab-{mark}")


def dropdown(mark: str, options: Iterable[str], value: str) -> ipywidgets.Dropdown:
    layout = ipywidgets.Layout(width="20em")
    return ipywidgets.Dropdown(options=list(options), value=value, description=mark, layout=layout).add_class(f"weightlab-{mark}")


def button(text: str, mark: str, disabled: bool = False) -> ipywidgets.Button:
    layout = ipywidgets.Layout(flex="0 0 auto", width="12em")  # beside a long text it would be squeezed
    return ipywidgets.Button(description=text, disabled=disabled, layout=layout).add_class(f"weightlab-{mark}")
