"""Takes a Jupyter server's requests on the kernel's control channel, which is answered while a cell runs.

What they are answered with is the desk's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from micromegas_jupyter.redirect.messages import REPLY_TYPE, REQUEST_TYPE

if TYPE_CHECKING:
    import logging
    from collections.abc import Mapping

    from micromegas_jupyter.auth.redirect_desk import RedirectDesk


class ControlChannel:
    """The control channel of an IPython kernel, whose handlers are looked up by the type of a message.

    Args:
        kernel: The kernel (`ipykernel`).
        desk: Answers.
    """

    def __init__(self, kernel: Any, desk: RedirectDesk) -> None:
        self.desk = desk
        self._kernel = kernel
        self._is_quiet = False

    def listen(self, seconds: float) -> None:  # noqa: ARG002 - a handler costs nothing, it stays
        """Take requests from now on, in place of an earlier desk of this kernel."""
        self._kernel.control_handlers[REQUEST_TYPE] = self._handle
        add_filter = getattr(getattr(self._kernel, "log", None), "addFilter", None)
        if callable(add_filter) and not self._is_quiet:
            add_filter(hides_requests)
            self._is_quiet = True

    def _handle(self, stream: object, ident: object, parent: dict[str, Any]) -> None:
        """Answer a request; runs on the kernel's control thread, so nothing here waits."""
        # The kernel keeps the message as the last one of its channel.
        content, parent["content"] = parent.get("content"), {}
        self._kernel.session.send(stream, REPLY_TYPE, self.desk.reply_to(content), parent, ident)


def hides_requests(record: logging.LogRecord) -> bool:
    """Whether a log line may be written: a kernel that logs what it receives would log a code."""
    arguments = record.args if isinstance(record.args, tuple) else (record.args,)
    return not any(_is_request(argument) for argument in arguments)


def _is_request(argument: Mapping[str, object] | object) -> bool:
    header = argument.get("header") if isinstance(argument, dict) else None
    return isinstance(header, dict) and header.get("msg_type") == REQUEST_TYPE
