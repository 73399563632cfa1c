"""A chart as the value of a cell: Vega-Lite where it is understood, a picture everywhere else."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.notebook.charts.columns import choose
from micromegas_jupyter.notebook.charts.specification import draw

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

_MIME_TYPE = "application/vnd.vegalite.v5+json"
_VEGA_LITE = "5.20"
_MAX_SPARSE_POINTS = 300
_LIBRARIES = {"altair": "altair", "vl_convert": "vl-convert-python"}


class Chart:
    """A chart of the rows, drawn as `kind` or as the columns' types suggest.

    `x`, `y` (one or several) and `color` name columns. Raises `UsageError` when there is nothing to draw.
    """

    def __init__(
        self,
        table: pa.Table,
        *,
        kind: str | None = None,
        x: str | None = None,
        y: str | Sequence[str] | None = None,
        color: str | None = None,
    ) -> None:
        self._drawing = draw(choose(table, kind=kind, x=x, y=y, color=color))

    @property
    def spec(self) -> dict[str, Any]:
        """The Vega-Lite specification (version 5), with the data in it."""
        return self._drawing.spec

    def to_altair(self) -> Any:
        """Return the chart as one of Altair's, to change it."""
        _check_installed("altair")
        import altair as alt

        return alt.Chart.from_dict(self.spec)

    def save(self, path: str | Path) -> None:
        """Write the chart: `.json` for the specification, `.svg` or `.png` for a picture."""
        suffix = Path(path).suffix.lower()
        if suffix not in {".json", ".svg", ".png"}:
            raise UsageError("A chart is saved as .json, .svg or .png.", remedy="End the file's name with one of them.")
        if suffix != ".json":
            _check_installed("vl_convert")
        content = json.dumps(self.spec).encode() if suffix == ".json" else _picture(self.spec, suffix[1:], scale=2)
        try:
            Path(path).write_bytes(content)
        except OSError as error:
            raise UsageError("The chart could not be written.", remedy="Check the folder and its rights.") from error

    def __repr__(self) -> str:
        return self._drawing.text

    def _repr_mimebundle_(self, **_options: object) -> tuple[dict[str, Any], dict[str, Any]]:
        # JupyterLab saves a PNG of its own, which for dense lines would be larger than all the rest.
        is_dense = self._drawing.points > _MAX_SPARSE_POINTS
        return self._bundle, {
            _MIME_TYPE: {"embed_options": {"scaleFactor": {"png": 0.5, "svg": 1}}}
        } if is_dense else {}

    @cached_property
    def _bundle(self) -> dict[str, Any]:
        data: dict[str, Any] = {_MIME_TYPE: self.spec, "text/plain": self._drawing.text}
        if find_spec("vl_convert") is None:
            return data
        if self._drawing.is_scatter and self._drawing.points > _MAX_SPARSE_POINTS:
            return {**data, "image/png": b64encode(_picture(self.spec, "png", scale=1)).decode()}
        return {**data, "image/svg+xml": _picture(self.spec, "svg").decode()}


def _check_installed(module: str) -> None:
    if find_spec(module) is None:
        raise UsageError(
            f"This needs {_LIBRARIES[module]}, which is not installed here.",
            remedy="Run %pip install 'micromegas_jupyter[charts]'.",
        )


def _picture(spec: dict[str, Any], file_type: str, *, scale: float = 1) -> bytes:
    import vl_convert

    # Without a description of each point for screen readers, of which the text has more.
    still = json.dumps({**_still(spec), "background": "white", "config": {**spec["config"], "aria": False}})
    if file_type == "png":
        picture: bytes = vl_convert.vegalite_to_png(still, vl_version=_VEGA_LITE, scale=scale)
        return picture
    svg = vl_convert.vegalite_to_svg(still, vl_version=_VEGA_LITE)
    # On a page with several pictures each needs names of its own.
    own = f"{crc32(svg.encode()):08x}"
    return re.sub(r'(id="|url\(#)(\w)', rf"\g<1>{own}-\2", svg).encode()


def _still(part: Any) -> Any:
    """Return the specification without what only a pointer shows."""
    if isinstance(part, list):
        is_hidden = [isinstance(each, dict) and str(each.get("name")).startswith("near_") for each in part]
        return [_still(each) for each, hidden in zip(part, is_hidden, strict=True) if not hidden]
    if not isinstance(part, dict):
        return part
    if "condition" in part:
        part = {name: value for name, value in part["condition"].items() if name != "param"}
    return {name: _still(value) for name, value in part.items() if name not in {"params", "tooltip"}}
