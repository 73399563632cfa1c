"""The base class of the result, trace, and log widgets: replies to page requests, and the saved HTML."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anywidget
import traitlets
from IPython.core.getipython import get_ipython

from micromegas_jupyter.errors import MicromegasError
from micromegas_jupyter.notebook import SAVED_MIME_TYPE
from micromegas_jupyter.notebook.shell import Bundle, close_with_output, has_kernel, is_attended

if TYPE_CHECKING:
    from collections.abc import Mapping

STATIC: Final = Path(__file__).parent / "frontend" / "static"
"""The built scripts and style sheets of the widgets."""

_log = logging.getLogger(__name__)


def static_text(name: str) -> traitlets.Unicode[str, str | bytes]:
    """Return the trait for a script or style sheet. With a path, anywidget 0.11 would keep closed widgets in memory."""
    return traitlets.Unicode((STATIC / name).read_text(encoding="utf-8")).tag(sync=True)


class KernelWidget(anywidget.AnyWidget):
    """A widget whose page sends requests to the kernel: `{"id": int, "op": str, …}`.

    The reply is `{"id", "answer"}` with buffers, or `{"id", "error"}` with a sentence to show.
    """

    def __init__(self, **traits: object) -> None:
        super().__init__(**traits)
        close_with_output(self)
        self.on_msg(self._take_message)
        self.let_requests_overtake_cells()

    def let_requests_overtake_cells(self) -> None:
        """Forget which subshell sent a message other than a reply."""
        if self.comm is not None:
            # ipykernel 7.4 routes a page's requests to the shell that last sent through the comm. That would be the
            # cell's shell, where they would wait for all cells of a Run All command, instead of the subshell that
            # JupyterLab specifies.
            self.comm.__dict__.pop("_reply_subshell_id", None)

    def reply(self, message: Mapping[str, Any]) -> tuple[object, list[bytes]]:
        """Return the response to a request, and its buffers."""
        raise NotImplementedError

    def _take_message(self, _widget: object, content: object, _buffers: object) -> None:
        if not isinstance(content, dict) or not isinstance(content.get("id"), int):
            return  # not from one of our pages
        try:
            answer, buffers = self.reply(content)
        except MicromegasError as error:
            self.send({"id": content["id"], "error": f"{error.what} {error.remedy}".strip()})
        except Exception as error:  # noqa: BLE001 - the page must receive a reply
            _log.error("A widget could not reply.", extra={"kind": type(error).__name__})
            self.send({"id": content["id"], "error": "The kernel could not do that."})
        else:
            self.send({"id": content["id"], "answer": answer}, buffers)


def shows_widgets() -> bool:
    """Whether a user sees widgets: in notebooks that a user or Voila runs, but not in those run by other programs."""
    shell = get_ipython()
    return shell is not None and has_kernel(shell) and (is_attended(shell) or "VOILA_PREHEAT" in os.environ)


def widget_bundle(widget: anywidget.AnyWidget, saved: Mapping[str, str]) -> Bundle:
    """Return the notebook output: the widget, and `saved` (by MIME type) for when the widget can't be shown."""
    shown = widget._repr_mimebundle_()
    bundle, metadata = shown if isinstance(shown, tuple) else (shown, {})
    return {SAVED_MIME_TYPE: {"version": 1}, **(bundle or {}), **saved}, metadata
