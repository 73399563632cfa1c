"""A chart as the value of a cell: Vega-Lite where it is understood, a picture everywhere else."""

from __future__ import annotations

import json
from base64 import b64encode
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.notebook.charts.specification import choose, draw

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    _Name = str | None
    _Names = str | Sequence[str] | None

_MIME_TYPE = "application/vnd.vegalite.v5+json"
_VEGA_LITE = "5.20"


class Chart:
    """A chart of the rows, drawn as `kind` or as the columns' types suggest.

    `x`, `y` (one or several) and `color` name columns; `spec` is the Vega-Lite specification (version 5), with the data
    in it. Raises `UsageError` when there is nothing to draw.
    """

    def __init__(
        self, table: pa.Table, *, kind: _Name = None, x: _Name = None, y: _Names = None, color: _Name = None
    ) -> None:
        self.spec, self._text = draw(choose(table, kind=kind, x=x, y=y, color=color))

    def to_altair(self) -> Any:
        """Return the chart as one of Altair's, to change it."""
        return _library("altair").Chart.from_dict(self.spec)

    def save(self, path: str | Path) -> None:
        """Write the chart: `.json` for the specification, `.svg` or `.png` for a picture."""
        suffix = Path(path).suffix.lower()
        if suffix not in {".json", ".svg", ".png"}:
            raise UsageError("A chart is saved as .json, .svg or .png.", remedy="End the file's name with one of them.")
        content = json.dumps(self.spec).encode() if suffix == ".json" else self._picture(suffix[1:], scale=2)
        Path(path).write_bytes(content)

    def __repr__(self) -> str:
        return self._text

    def _repr_mimebundle_(self, **_options: object) -> tuple[dict[str, Any], dict[str, Any]]:
        data: dict[str, Any] = {_MIME_TYPE: self.spec, "text/plain": self._text}
        panels, has_picture = self.spec["vconcat"], find_spec("vl_convert") is not None
        if has_picture and panels[0]["layer"][0]["mark"]["type"] == "point":
            data["image/png"] = b64encode(self._picture("png", scale=1 if len(panels) == 1 else 0.7)).decode()
        elif has_picture:
            data["image/svg+xml"] = self._picture("svg").decode()
        # JupyterLab saves a PNG of its own beside an SVG, which for dense lines would be larger than all else.
        scale = (10_000 if has_picture else 20_000) / sum(len(panel["data"]["values"]) for panel in panels)
        return data, {_MIME_TYPE: {"embed_options": {"scaleFactor": {"png": min(round(scale, 2), 1), "svg": 1}}}}

    def _picture(self, file_type: str, *, scale: float = 1) -> bytes:
        vl_convert = _library("vl_convert")
        # Without the points that only a pointer shows, and without a description of each for screen readers.
        layers = [[layer for layer in panel["layer"] if "params" not in layer] for panel in self.spec["vconcat"]]
        panels = [panel | {"layer": drawn} for panel, drawn in zip(self.spec["vconcat"], layers, strict=True)]
        # In a font whose letters are as wide everywhere, as nothing moves aside once the picture is drawn.
        config = self.spec["config"] | {"aria": False, "font": "Arial, Helvetica, Liberation Sans, sans-serif"}
        still = self.spec | {"vconcat": panels, "background": "white", "config": config}
        if file_type == "svg":
            return str(vl_convert.vegalite_to_svg(still, vl_version=_VEGA_LITE)).encode()
        return bytes(vl_convert.vegalite_to_png(still, vl_version=_VEGA_LITE, scale=scale))


def _library(module: str) -> Any:
    if find_spec(module) is None:
        remedy = "Run %pip install 'micromegas_jupyter[charts]'."
        raise UsageError(f"This needs the package {module}, which is not installed here.", remedy=remedy)
    return import_module(module)
