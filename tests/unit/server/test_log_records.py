"""Log records become rows and JSON lines: whole, bounded, without secrets, whatever they hold."""

import json
import logging
import ssl

import pytest

from micromegas_jupyter.server.recorder.log_records import JsonFormatter, RecordingHandler, quiet_libraries

TORNADO = logging.getLogger("tornado.general")
TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"


@pytest.fixture
def handler():
    return RecordingHandler()


@pytest.fixture
def logger(handler):
    logger = logging.getLogger("tests.log_handler")
    logger.addHandler(handler)
    logger.setLevel(1)
    logger.propagate = False
    yield logger
    logger.removeHandler(handler)


def _only(handler):
    (row,) = handler.drain()[0]
    return row


def _record(msg="a", *arguments, **fields):
    return logging.makeLogRecord({"name": "n", "levelno": 20, "msg": msg, "args": arguments, **fields})


class Unprintable:
    def __str__(self):
        raise RuntimeError("no text")


def test_no_secret_reaches_a_row(handler, logger):
    logger.info("got Bearer %s", TOKEN, extra={"url": "http://a/cb?code=abc&x=1", "access_token": "opaque"})
    error = ValueError(f"refused {TOKEN}")
    logger.error("failed", exc_info=error)
    logger.info("%s%s", "x" * (16 * 1024 - 30) + " ", TOKEN)  # cut by the bound

    first, second, third = handler.drain()[0]

    assert first.msg == "got Bearer ***"
    assert first.properties == {"url": "http://a/cb?code=***&x=1", "access_token": "***"}
    assert second.msg == "failed\nValueError: refused ***"
    assert "eyJ" not in third.msg


def test_everything_is_bounded(handler, logger):
    logger.info("ü" * 100_000, extra={f"k{number}": "v" * 5000 for number in range(100)})

    row = _only(handler)

    assert len(row.msg.encode()) <= 16 * 1024
    assert len(row.properties) == 32
    assert max(len(value.encode()) for value in row.properties.values()) == 1024


@pytest.mark.parametrize(
    ("message", "arguments", "expected"),
    [
        ("%d items", ("many",), "%d items"),
        ("%s", (Unprintable(),), "%s"),
        (Unprintable(), (), "(a value that cannot be shown)"),
    ],
)
def test_a_message_that_cannot_be_formatted_is_kept_as_it_is(handler, message, arguments, expected):
    handler.handle(_record(message, *arguments))

    assert _only(handler).msg == expected


@pytest.mark.parametrize("fields", [{"created": float("nan")}, {"levelno": None}])
def test_a_record_that_fits_no_row_is_counted_and_let_go(handler, fields):
    handler.handle(_record(**fields))

    assert handler.drain() == ([], 1)


@pytest.mark.parametrize("bound", [{"max_records": 2}, {"max_characters": 1000}])
def test_a_full_queue_drops_the_newest_and_counts_them(bound):
    wakes = []
    handler = RecordingHandler(wake=lambda: wakes.append(1), **bound)

    for number in range(5):
        handler.handle(_record(f"{number}" * 400))

    rows, dropped = handler.drain()
    assert ([row.msg[0] for row in rows], dropped) == (["0", "1"], 3)
    assert wakes == ([1] if "max_records" in bound else [])  # half full, once
    handler.handle(_record("x" * 400))
    assert len(handler.drain()[0]) == 1


def test_a_value_that_logs_while_it_is_shown_does_not_lock_up(handler):
    class Chatty:
        def __str__(self):
            handler.handle(_record("inner"))
            return "outer"

    handler.handle(_record("%s", Chatty()))

    assert [row.msg for row in handler.drain()[0]] == ["inner", "outer"]


def line(message, *, name="micromegas_jupyter.server", **facts):
    record = logging.makeLogRecord({"name": name, "levelname": "INFO", "msg": message, "created": 0.25, **facts})
    return JsonFormatter().format(record)


def test_a_record_has_its_time_level_logger_message_and_facts():
    assert json.loads(line("Refused.", reason="expired", count=3)) == {
        "time": "1970-01-01T00:00:00.250Z",
        "level": "INFO",
        "logger": "micromegas_jupyter.server",
        "message": "Refused.",
        "facts": {"reason": "expired", "count": 3},
    }


@pytest.mark.parametrize("hostile", ["a\r\nINFO b", "\x1b[31m", "\x7f", "\u2028", "\x00", "\x85", "\ud800", "😀"])
def test_what_comes_from_outside_neither_breaks_the_line_nor_reaches_the_terminal(hostile):
    shown = line(hostile, fact=hostile)

    assert shown.isascii()
    assert shown.isprintable()
    assert json.loads(shown)["message"] == (hostile if hostile != "\ud800" else "?")


def test_secrets_are_masked_in_message_facts_and_traceback():
    error = ValueError(f"Bearer {TOKEN}")

    shown = line(
        f"Authorization: Bearer {TOKEN}",
        access_token="plain",
        url=f"x?code={TOKEN}",
        exc_info=(ValueError, error, error.__traceback__),
    )

    assert TOKEN not in shown
    assert "plain" not in shown
    assert "ValueError" in json.loads(shown)["exception"]


def test_an_audit_line_is_an_object_in_the_line():
    shown = json.loads(line('{"event":"access","outcome":"refused"}', name="micromegas_jupyter.audit.access"))

    assert shown["audit"] == {"event": "access", "outcome": "refused"}
    assert "message" not in shown


@pytest.fixture(autouse=True)
def _former_filters():
    before = list(TORNADO.filters)
    yield
    TORNADO.filters[:] = before


def _handshake_error():
    error = ssl.SSLError(1, "[SSL: HTTP_REQUEST] http request (_ssl.c:1006)")
    error.reason = "HTTP_REQUEST"
    return error


@pytest.mark.parametrize(
    ("message", "arguments", "client", "why"),
    [
        ("SSL Error on %s %s: %s", (12, ("127.0.0.1", 37784), _handshake_error()), "127.0.0.1", "HTTP_REQUEST"),
        # The library puts the error in by itself.
        ("error on read: [SYS] unknown error (_ssl.c:2580)", (), None, "[SYS] unknown error (_ssl.c:2580)"),
    ],
)
def test_a_connection_that_fails_is_one_short_line_at_debug_and_grpc_is_silent(message, arguments, client, why, caplog):
    environ = {"GRPC_VERBOSITY": "INFO"} if client else {}
    quiet_libraries(environ)

    with caplog.at_level(logging.DEBUG, "micromegas_jupyter.server"):
        TORNADO.warning(message, *arguments)

    (record,) = caplog.records
    assert environ == {"GRPC_VERBOSITY": "INFO" if client else "NONE"}
    assert (record.name, record.levelno) == ("micromegas_jupyter.server", logging.DEBUG)
    assert (record.__dict__["client"], record.__dict__["why"]) == (client, why)


def test_an_audit_line_stays_json_when_its_secrets_are_masked():
    sql = 'SELECT "token=hunter22hunter22" /* ' + "x" * 20_000
    line = json.dumps({"sql": sql, "reads": {"t": ["password=column"]}})
    handler = RecordingHandler()
    handler.handle(logging.LogRecord("micromegas_jupyter.audit", logging.INFO, "", 0, "%s", (line,), None))

    ((row,), dropped) = handler.drain()

    found = json.loads(row.msg)
    assert (dropped, found["reads"]) == (0, {"t": ["password=column"]})
    assert "hunter22" not in row.msg
    assert found["sql"].endswith("x" * 20_000)
