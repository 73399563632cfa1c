import logging
from typing import Any

from micromegas_jupyter.auth.redirect_desk import RedirectDesk
from micromegas_jupyter.notebook.control_channel import ControlChannel, hides_requests
from micromegas_jupyter.redirect.messages import REPLY_TYPE, REQUEST_TYPE, Unknown, reply_content

REQUEST: dict[str, Any] = {
    "header": {"msg_type": REQUEST_TYPE},
    "content": {"version": 1, "action": "answer", "query": "code=one-time&state=s"},
}


class Session:
    def __init__(self) -> None:
        self.sent: list[tuple[object, ...]] = []

    def send(self, *parts: object) -> None:
        self.sent.append(parts)


class Kernel:
    """What the channel uses of an IPython kernel."""

    def __init__(self) -> None:
        self.control_handlers: dict[str, Any] = {}
        self.session = Session()
        self.log = logging.getLogger("kernel")


def listening(kernel: Kernel) -> ControlChannel:
    channel = ControlChannel(kernel, RedirectDesk(kernel_id="kernel-1", base_address="/"))
    channel.listen(1)
    channel.listen(1)
    return channel


def test_a_request_gets_its_reply_on_the_stream_that_it_came_by() -> None:
    kernel = Kernel()
    listening(kernel)
    request = {**REQUEST}

    kernel.control_handlers[REQUEST_TYPE]("stream", b"ident", request)

    assert kernel.session.sent == [("stream", REPLY_TYPE, reply_content(Unknown()), request, b"ident")]


def test_what_the_kernel_keeps_of_a_request_holds_no_code() -> None:
    kernel = Kernel()
    listening(kernel)
    request = {**REQUEST}

    kernel.control_handlers[REQUEST_TYPE]("stream", b"ident", request)

    assert "one-time" not in str(request)


def test_a_kernel_that_logs_what_it_receives_leaves_requests_out() -> None:
    kernel = Kernel()
    listening(kernel)
    written: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: written.append(record.getMessage())  # type: ignore[method-assign]
    kernel.log.addHandler(handler)

    kernel.log.error("Control received: %s", {"header": {"msg_type": "interrupt_request"}})
    kernel.log.error("Control received: %s", REQUEST)
    kernel.log.error("plain")

    assert written == ["Control received: {'header': {'msg_type': 'interrupt_request'}}", "plain"]
    assert kernel.log.filters == [hides_requests]
