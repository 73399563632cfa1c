"""Log records become rows and JSON lines: whole, bounded, without secrets, whatever they hold."""

import json
import logging
import ssl
from collections.abc import Iterator
from typing import Any

import pytest

from micromegas_jupyter.server.recorder.log_records import JsonFormatter, RecordingHandler, quiet_libraries
from micromegas_jupyter.telemetry.rows import LogRow

TORNADO = logging.getLogger("tornado.general")
TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"


@pytest.fixture
def handler() -> RecordingHandler:
    return RecordingHandler()


@pytest.fixture
def logger(handler: RecordingHandler) -> Iterator[logging.Logger]:
    logger = logging.getLogger("tests.log_handler")
    logger.addHandler(handler)
    logger.setLevel(1)
    logger.propagate = False
    yield logger
    logger.removeHandler(handler)


def _only(handler: RecordingHandler) -> LogRow:
    (row,) = handler.drain()[0]
    return row


def _record(msg: object = "a", *arguments: object, **fields: object) -> logging.LogRecord:
    return logging.makeLogRecord({"name": "n", "levelno": 20, "msg": msg, "args": arguments, **fields})


def _fail(message: str) -> None:
    raise ValueError(message)


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_a_record_becomes_a_row(handler: RecordingHandler, logger: logging.Logger) -> None:
    logger.warning("disk %s is %d%% full", "a", 93, extra={"free_bytes": 7, "where": "here"})

    row = _only(handler)

    assert (row.target, row.level, row.msg) == ("tests.log_handler", 3, "disk a is 93% full")
    assert row.properties == {"free_bytes": "7", "where": "here"}
    assert handler.drain() == ([], 0)


def test_a_traceback_is_kept_as_text(handler: RecordingHandler, logger: logging.Logger) -> None:
    try:
        _fail("broken")
    except ValueError:
        logger.exception("it failed")

    message = _only(handler).msg
    assert message.startswith("it failed\nTraceback (most recent call last)")
    assert message.endswith("ValueError: broken")


def test_a_traceback_that_came_as_text_and_a_stack_are_kept(handler: RecordingHandler) -> None:
    handler.handle(_record("it failed", exc_text="Traceback: far away", stack_info="Stack: here"))

    assert _only(handler).msg == "it failed\nTraceback: far away\nStack: here"


def test_what_other_formatters_leave_on_a_record_is_no_property(
    handler: RecordingHandler, logger: logging.Logger
) -> None:
    record = logger.makeRecord("a", logging.INFO, "f", 1, "m", (), None, extra={"own": "x"})
    logging.Formatter("%(asctime)s %(message)s").format(record)

    handler.handle(record)

    assert _only(handler).properties == {"own": "x"}


def test_no_secret_reaches_a_row(handler: RecordingHandler, logger: logging.Logger) -> None:
    logger.info("got Bearer %s", TOKEN, extra={"url": "http://a/cb?code=abc&x=1", "access_token": "opaque"})
    try:
        _fail(f"refused {TOKEN}")
    except ValueError:
        logger.exception("failed")

    first, second = handler.drain()[0]

    assert first.msg == "got Bearer ***"
    assert first.properties == {"url": "http://a/cb?code=***&x=1", "access_token": "***"}
    assert second.msg.endswith("ValueError: refused ***")


def test_a_token_that_is_cut_by_the_bound_does_not_slip_through(
    handler: RecordingHandler, logger: logging.Logger
) -> None:
    logger.info("%s%s", "x" * (16 * 1024 - 30) + " ", TOKEN)

    assert "eyJ" not in _only(handler).msg


def test_everything_is_bounded(handler: RecordingHandler, logger: logging.Logger) -> None:
    logger.info("ü" * 100_000, extra={f"k{number}": "v" * 5000 for number in range(100)})

    row = _only(handler)

    assert len(row.msg.encode()) <= 16 * 1024
    assert len(row.properties) == 32
    assert max(len(value.encode()) for value in row.properties.values()) == 1024


@pytest.mark.parametrize(
    ("message", "arguments", "expected"),
    [
        ("%d items", ("many",), "%d items"),
        ("%s %s", ("one",), "%s %s"),
        ("%s", (Unprintable(),), "%s"),
        (Unprintable(), (), "(a value that cannot be shown)"),
    ],
)
def test_a_message_that_cannot_be_formatted_is_kept_as_it_is(
    handler: RecordingHandler, message: object, arguments: tuple[object, ...], expected: str
) -> None:
    handler.handle(_record(message, *arguments))

    assert _only(handler).msg == expected


def test_a_property_that_cannot_be_shown_does_not_cost_the_row(
    handler: RecordingHandler, logger: logging.Logger
) -> None:
    logger.info("a", extra={"bad": Unprintable(), "good": 1})

    assert _only(handler).properties == {"bad": "(a value that cannot be shown)", "good": "1"}


@pytest.mark.parametrize("fields", [{"created": 1e300}, {"created": float("nan")}, {"levelno": None}, {"name": None}])
def test_a_record_that_fits_no_row_is_counted_and_let_go(handler: RecordingHandler, fields: dict[str, object]) -> None:
    handler.handle(_record(**fields))

    assert handler.drain() == ([], 1)


def test_a_full_queue_drops_the_newest_and_counts_them() -> None:
    handler = RecordingHandler(max_records=2)

    for number in range(5):
        handler.handle(_record(str(number)))

    rows, dropped = handler.drain()
    assert ([row.msg for row in rows], dropped) == (["0", "1"], 3)
    assert handler.drain() == ([], 0)


def test_the_queue_is_bounded_by_text_as_well() -> None:
    handler = RecordingHandler(max_characters=1000)

    for _ in range(5):
        handler.handle(_record("x" * 400))

    rows, dropped = handler.drain()
    assert (len(rows), dropped) == (2, 3)
    handler.handle(_record("x" * 400))
    assert len(handler.drain()[0]) == 1


def test_a_half_full_queue_requests_a_drain_once() -> None:
    wakes: list[int] = []
    handler = RecordingHandler(max_records=10, wake=lambda: wakes.append(1))

    for _ in range(8):
        handler.handle(_record())

    assert wakes == [1]


def test_a_value_that_logs_while_it_is_shown_does_not_lock_up(handler: RecordingHandler) -> None:
    class Chatty:
        def __str__(self) -> str:
            handler.handle(_record("inner"))
            return "outer"

    handler.handle(_record("%s", Chatty()))

    assert [row.msg for row in handler.drain()[0]] == ["inner", "outer"]


def line(message: str, *, name: str = "micromegas_jupyter.server", **facts: object) -> str:
    record = logging.makeLogRecord({"name": name, "levelname": "INFO", "msg": message, "created": 0.25, **facts})
    return JsonFormatter().format(record)


def members(message: str, **facts: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(line(message, **facts))
    return found


def test_a_record_has_its_time_level_logger_message_and_facts() -> None:
    assert members("Refused.", reason="expired", count=3) == {
        "time": "1970-01-01T00:00:00.250Z",
        "level": "INFO",
        "logger": "micromegas_jupyter.server",
        "message": "Refused.",
        "facts": {"reason": "expired", "count": 3},
    }


@pytest.mark.parametrize(
    "hostile", ["a\nb", "a\r\nINFO b", "\x1b[31m", "\x7f", "\u2028", "\x00", "\x85", "\ud800", "😀"]
)
def test_what_comes_from_outside_neither_breaks_the_line_nor_reaches_the_terminal(hostile: str) -> None:
    shown = line(hostile, fact=hostile)

    assert shown.isascii()
    assert shown.isprintable()
    assert json.loads(shown)["message"] == (hostile if hostile != "\ud800" else "?")


def test_secrets_are_masked_in_message_facts_and_traceback() -> None:
    secret = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln"
    error = ValueError(f"Bearer {secret}")

    shown = line(
        f"Authorization: Bearer {secret}",
        access_token="plain",
        url=f"x?code={secret}",
        exc_info=(ValueError, error, error.__traceback__),
    )

    assert secret not in shown
    assert "plain" not in shown
    assert "ValueError" in json.loads(shown)["exception"]


def test_an_audit_line_is_an_object_in_the_line() -> None:
    shown = members('{"event":"access","outcome":"refused"}', name="micromegas_jupyter.audit.access", event="access")

    assert shown["audit"] == {"event": "access", "outcome": "refused"}
    assert "facts" not in shown
    assert "message" not in shown


def test_length_is_bounded() -> None:
    shown = line("x" * 1_000_000, **{f"fact_{number}": "y" * 100_000 for number in range(100)})

    assert len(shown) < 64 * 1024


@pytest.fixture(autouse=True)
def _former_filters() -> Iterator[None]:
    before = list(TORNADO.filters)
    yield
    TORNADO.filters[:] = before


@pytest.mark.parametrize(("before", "after"), [({}, "NONE"), ({"GRPC_VERBOSITY": "INFO"}, "INFO")])
def test_grpc_is_silent_unless_somebody_asked_for_its_lines(before: dict[str, str], after: str) -> None:
    quiet_libraries(before)

    assert before == {"GRPC_VERBOSITY": after}


def _handshake_error() -> ssl.SSLError:
    error = ssl.SSLError(1, "[SSL: HTTP_REQUEST] http request (_ssl.c:1006)")
    error.reason = "HTTP_REQUEST"
    return error


@pytest.mark.parametrize(
    ("message", "arguments", "expected"),
    [
        (
            "SSL Error on %s %s: %s",
            (12, ("127.0.0.1", 37784), _handshake_error()),
            ("A connection to the HTTP port made no TLS.", "127.0.0.1", "HTTP_REQUEST"),
        ),
        (
            "error on read: [SYS] unknown error (_ssl.c:2580)",  # the library puts the error in by itself
            (),
            ("A connection to the HTTP port broke while it was read.", None, "[SYS] unknown error (_ssl.c:2580)"),
        ),
    ],
)
def test_a_connection_that_fails_is_one_short_line_at_debug(
    message: str, arguments: tuple[object, ...], expected: tuple[object, ...], caplog: pytest.LogCaptureFixture
) -> None:
    quiet_libraries({})

    with caplog.at_level(logging.DEBUG, "micromegas_jupyter.server"):
        TORNADO.warning(message, *arguments)

    (record,) = caplog.records
    assert (record.name, record.levelno) == ("micromegas_jupyter.server", logging.DEBUG)
    facts = record.__dict__
    assert (record.message, facts["client"], facts["why"]) == expected
