"""The Vega-Lite specification of a chart, and its image."""

from __future__ import annotations

import html
from base64 import b64encode
from importlib.util import find_spec
from textwrap import wrap
from typing import TYPE_CHECKING, Final

import numpy as np

from micromegas_jupyter.core.text import cut, rows_text
from micromegas_jupyter.errors import UsageError, extra
from micromegas_jupyter.notebook.plotting.columns import Role
from micromegas_jupyter.notebook.plotting.panels import POINT, WIDTH, Groups, csv_data, draw_panels

if TYPE_CHECKING:
    from collections.abc import Mapping

    from micromegas_jupyter.notebook.plotting.choice import Choice
    from micromegas_jupyter.notebook.plotting.columns import Column
    from micromegas_jupyter.notebook.plotting.panels import Spec
    from micromegas_jupyter.notebook.plotting.slots import Slots

    Axes = Mapping[str, tuple[Column, Slots | Groups | None]]

VEGA_LITE_VERSION: Final = "5.21"
"""Draws images with the same version as the live chart (`frontend/package.json`)."""

_IMAGE_SCALES = (1.5, 1, 0.75, 0.5, 0.35)
_MAX_IMAGE_CHARACTERS = 100_000
_CONFIG: Spec = {
    "font": "system-ui, sans-serif",
    "axis": {"gridOpacity": 0.35, "titleFontWeight": "normal", "labelLimit": 190, "titleLimit": 400, "tickCount": 6},
    "legend": {"titleFontWeight": "normal", "labelLimit": 170, "symbolOpacity": 1, "symbolStrokeWidth": 3},
    "title": {"anchor": "start", "fontSize": 13, "fontWeight": 600, "offset": 10, "subtitlePadding": 4},
}
_LEGEND: Spec = {"name": "legend", "select": {"type": "point", "fields": ["series"]}, "bind": "legend"}
_NEXT_TO_POINTER = {"type": "point", "on": "pointerover", "nearest": True, "clear": "pointerout"}


def draw(choice: Choice, width: int | None = None) -> tuple[Spec, str, list[Axes]]:
    """Return the specification for a choice, its text description, and the axes of each of its panels.

    With a width, the chart has that width, and a drag selects a range.
    """
    kind, x = choice.kind, choice.x.title
    panels, measures, series, axes = draw_panels(choice, width or WIDTH)
    notes = list(dict.fromkeys(choice.notes))
    both = [each for each in zip(panels, axes, strict=True) if len(next(iter(each[0]["data"].values())))]
    if not both:
        empty = [column.title for column in [choice.x, *choice.y] if column.values.null_count == len(column.values)]
        why = f"{empty[0]} is NULL in every row" if empty else "no row has a value for each axis"
        raise UsageError(f"There is nothing to plot: {why}.", remedy="Choose other columns with x and y.")
    title, over = ", ".join(column.title for column in choice.y) or "rows", _preposition(choice)
    if not set(choice.aggregates) <= {"count", "sum"}:
        title = f"{', '.join(choice.aggregates)} of {title}"
    if kind == "heat":
        title = f"rows by {x} and {title}"
    elif kind != "hist" or not choice.y:
        title = f"{title} {over} {x}"
    if choice.color:
        title += f" {'and' if over == 'by' else 'by'} {series.title}"
    subtitle = {"subtitle": [line for note in notes for line in wrap(note, 100)]} if notes else {}
    spec = {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "description": f"{kind} chart: {title}",
        "title": {"text": cut(title, 90), **subtitle},
        "config": _CONFIG,
        **_arrange([panel for panel, _ in both], kind, series, width),
    }
    drawn = [(y.encoding["title"], y.values[~np.isnan(y.values)]) for y in measures if choice.y]
    ranges = [f"  {name}: {values.min():,.6g} to {values.max():,.6g}" for name, values in drawn if len(values)]
    text = "\n".join([str(spec["description"]), *ranges, f"  {rows_text(len(choice.x.values))}", *notes])
    return spec, text, [along for _, along in both]


def draw_image(spec: Spec, file_type: str, *, scale: float = 1) -> bytes:
    """Return a chart as a `png` or `svg` file.

    Raises:
        MissingPackage: The extra `charts` is not installed.
    """
    with extra("charts"):
        import vl_convert

    # Omits the points that only appear on hover, and their descriptions for screen readers.
    layers = [[layer for layer in panel["layer"] if "params" not in layer] for panel in spec["vconcat"]]
    panels = [panel | {"layer": drawn} for panel, drawn in zip(spec["vconcat"], layers, strict=True)]
    # Uses a font with the same letter widths everywhere, because a finished image can't adapt.
    config = spec["config"] | {"aria": False, "font": "Arial, Helvetica, Liberation Sans, sans-serif"}
    still = spec | {"vconcat": panels, "background": "white", "config": config}
    if file_type == "svg":
        return str(vl_convert.vegalite_to_svg(still, vl_version=VEGA_LITE_VERSION)).encode()
    return bytes(vl_convert.vegalite_to_png(still, vl_version=VEGA_LITE_VERSION, scale=scale))


def build_image(spec: Spec) -> str:
    """Return a chart as an HTML image that is small enough for a notebook, or "" without the `charts` extra."""
    if find_spec("vl_convert") is None:
        return ""
    images = (b64encode(draw_image(spec, "png", scale=scale)).decode() for scale in _IMAGE_SCALES)
    data = next((image for image in images if len(image) <= _MAX_IMAGE_CHARACTERS), None)
    if data is None:
        return ""
    # The JupyterLab extension replaces an image with this attribute (labextension/src/cells.ts).
    alt = html.escape(str(spec["description"]))
    return f'<img data-micromegas-chart="" alt="{alt}" style="max-width: 100%;" src="data:image/png;base64,{data}">'


def _preposition(choice: Choice) -> str:
    if choice.x.role is Role.TIME:
        return "over"
    return "by" if choice.aggregates and choice.kind != "hist" else "against"


def _arrange(panels: list[Spec], kind: str, series: Groups, wanted: int | None) -> Spec:
    """Arrange the panels vertically, with shared scales and parameters."""
    views, is_shared = [f"panel_{number}" for number, _ in enumerate(panels, 1)], kind in {"line", "area", "point"}
    is_nominal = {axis: panels[0]["encoding"][axis]["type"] == "nominal" for axis in ("x", "y")}
    # Long names appear next to horizontal bars and in the legend, and everything fits next to JupyterLab's file
    # browser.
    names = max(min(6 * max(map(len, [series.title, *series.labels])), _CONFIG["legend"]["labelLimit"]) - 60, 0)
    width = (wanted or WIDTH) - 150 * is_nominal["y"] - names * bool(series.title) - 40 * (kind == "heat")
    for view, panel in zip(views, panels, strict=True):
        panel["layer"][0]["name"] = view
        height = 260 if len(panels) == 1 else max(90, 480 // len(panels))
        panel |= {"data": csv_data(panel["data"]), "width": width, "height": panel.get("height", height)}
        if kind in {"line", "area"}:
            near = {"name": f"near_{view}", "select": _NEXT_TO_POINTER}
            opacity = {"condition": {"param": near["name"], "empty": False, "value": 1}, "value": 0}
            panel["layer"] += [{"mark": POINT | {"size": 45}, "params": [near], "encoding": {"opacity": opacity}}]
        if is_shared and view != views[-1]:  # all panels share the axis below the last one
            axis = panel["encoding"]["x"]["axis"] | {"labels": False, "ticks": False}
            panel["encoding"]["x"] |= {"title": None, "axis": axis}
    params = _brushes(panels, views) if wanted else []
    params += [_LEGEND | {"views": views}] * bool(series.title)
    scale = {"color": "shared", "x": "shared" if is_shared else "independent"}
    return {"params": params, "vconcat": panels, "resolve": {"scale": scale}}


def _brushes(panels: list[Spec], views: list[str]) -> list[Spec]:
    """Return parameters that select ranges of numbers and times, or a clicked bar or rectangle."""
    params: list[Spec] = []
    for view, panel in zip(views, panels, strict=True):
        axes, mark = {axis: panel["encoding"][axis] for axis in ("x", "y")}, panel["layer"][0]["mark"]["type"]
        texts = [each["field"] for each in axes.values() if each["type"] == "nominal"]
        ranges = [axis for axis, each in axes.items() if each["type"] != "nominal"]
        select: Spec = {"type": "interval", "encodings": ranges if mark in {"point", "rect"} else ["x"]}
        if texts and not (mark == "rect" and ranges):
            select = {"type": "point", "fields": texts[:1]}
        params.append({"name": f"brush_{view}", "select": select, "views": [view]})
    return params
