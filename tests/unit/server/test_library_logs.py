"""What libraries say about strangers' connections is no line of a server's log."""

import logging
import ssl

import pytest

from micromegas_jupyter.server.recorder.log_records import quiet_libraries

TORNADO = logging.getLogger("tornado.general")


@pytest.fixture(autouse=True)
def _former_filters():
    before = list(TORNADO.filters)
    yield
    TORNADO.filters[:] = before


@pytest.mark.parametrize(("before", "after"), [({}, "NONE"), ({"GRPC_VERBOSITY": "INFO"}, "INFO")])
def test_grpc_is_silent_unless_somebody_asked_for_its_lines(before, after):
    quiet_libraries(before)

    assert before == {"GRPC_VERBOSITY": after}


def test_a_failed_handshake_is_one_short_line_in_detail_only(caplog):
    quiet_libraries({})
    error = ssl.SSLError(1, "[SSL: HTTP_REQUEST] http request (_ssl.c:1006)")
    error.reason = "HTTP_REQUEST"

    with caplog.at_level(logging.DEBUG, "micromegas_jupyter.server"):
        TORNADO.warning("SSL Error on %s %s: %s", 12, ("127.0.0.1", 37784), error)

    (record,) = caplog.records
    assert (record.name, record.levelno) == ("micromegas_jupyter.server", logging.DEBUG)
    assert record.message == "A connection to the HTTP port made no TLS."
    assert (record.client, record.why) == ("127.0.0.1", "HTTP_REQUEST")


def test_a_connection_that_breaks_is_told_in_detail_only(caplog):
    quiet_libraries({})

    with caplog.at_level(logging.DEBUG, "micromegas_jupyter.server"):
        TORNADO.warning("error on read: [SYS] unknown error (_ssl.c:2580)")  # it puts the error in by itself

    (record,) = caplog.records
    assert (record.levelno, record.message) == (logging.DEBUG, "A connection to the HTTP port broke while it was read.")
    assert (record.client, record.why) == (None, "[SYS] unknown error (_ssl.c:2580)")


def test_anything_else_that_the_library_says_is_left_alone(caplog):
    quiet_libraries({})

    TORNADO.warning("Something else: %s", "x")

    assert [record.name for record in caplog.records] == ["tornado.general"]
