"""Requests about sign-ins on a kernel's control channel."""

import logging
from types import SimpleNamespace

import pytest

from micromegas_jupyter.auth.flows.base import is_worth_another_flow
from micromegas_jupyter.auth.flows.jupyter import (
    REPLY_TYPE,
    REQUEST_TYPE,
    RedirectLogins,
    Unknown,
    build_message,
    hides_requests,
    listen,
    open_redirects,
)
from micromegas_jupyter.errors import LoginFailed

KERNEL_ID = "4f72b256-c23a-4a31-bdf9-f9fbbb6ed380"
VARIABLE = "KERNEL_MICROMEGAS_REDIRECT"
REQUEST = {
    "header": {"msg_type": REQUEST_TYPE},
    "content": {"version": 1, "action": "answer", "query": "code=one-time&state=s"},
}


class Session:
    def __init__(self):
        self.sent = []

    def send(self, *parts):
        self.sent.append(parts)


class Kernel:
    """What the channel uses of an IPython kernel."""

    def __init__(self):
        self.control_handlers = {}
        self.session = Session()
        self.log = logging.getLogger("kernel")


def kernel_with(connection_file, **more):
    return SimpleNamespace(parent=SimpleNamespace(connection_file=connection_file), **more)


def listening(kernel):
    redirects = RedirectLogins(kernel_id="kernel-1", base_address="/")
    listen(kernel, redirects)
    listen(kernel, redirects)


def test_a_request_gets_its_reply_on_the_stream_that_it_came_by():
    kernel = Kernel()
    listening(kernel)
    request = {**REQUEST}

    kernel.control_handlers[REQUEST_TYPE]("stream", b"ident", request)

    assert kernel.session.sent == [("stream", REPLY_TYPE, build_message(Unknown()), request, b"ident")]
    assert "one-time" not in str(request)  # the kernel stores the last message


def test_a_kernel_that_logs_what_it_receives_leaves_requests_out():
    kernel = Kernel()
    listening(kernel)
    written = []
    handler = logging.Handler()
    handler.emit = lambda record: written.append(record.getMessage())  # type: ignore[method-assign]
    kernel.log.addHandler(handler)

    kernel.log.error("Control received: %s", {"header": {"msg_type": "interrupt_request"}})
    kernel.log.error("Control received: %s", REQUEST)
    kernel.log.error("plain")

    assert written == ["Control received: {'header': {'msg_type': 'interrupt_request'}}", "plain"]
    assert kernel.log.filters == [hides_requests]


@pytest.mark.parametrize(
    ("value", "is_base"),
    [
        ("/", True), ("/user/alice@example.com/", True), ("https://lab.example.com/x/", True),
        ("", False), ("x/", False), ("/x", False), ("//evil.example/", False), ("javascript:alert(1)/", False),
        ("/a b/", False), ("/x\n/", False),
    ],
)  # fmt: skip
def test_only_a_path_or_an_address_is_what_the_servers_pages_lie_below(value, is_base):
    kernel = kernel_with(f"kernel-{KERNEL_ID}.json", control_handlers={})

    assert (open_redirects(kernel, {VARIABLE: value}) is not None) is is_base
    assert open_redirects(None, {VARIABLE: value}) is None


@pytest.mark.parametrize(
    "kernel",
    [
        kernel_with(f"kernel-{KERNEL_ID}.json"),
        kernel_with(f"kernel-{KERNEL_ID}.json", control_handlers=None),
        *(
            kernel_with(name, control_handlers={})
            for name in (None, "connection.json", "kernel-a.b.json", "kernel-.json")
        ),
    ],
)
def test_a_kernel_that_takes_no_messages_gives_way_to_another_flow(kernel):
    with pytest.raises(LoginFailed) as refused:
        open_redirects(kernel, {VARIABLE: "/x/", "KERNEL_ID": "a/b"})

    assert is_worth_another_flow(refused.value)
