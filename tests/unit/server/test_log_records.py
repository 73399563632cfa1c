import logging
from collections.abc import Iterator

import pytest

from micromegas_jupyter.server.recorder.log_records import RecordingHandler
from micromegas_jupyter.telemetry import LogRow

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


def test_the_time_is_that_of_the_record(handler: RecordingHandler) -> None:
    record = _record(created=1_795_521_600.25)

    handler.handle(record)

    assert _only(handler).time_ns == 1_795_521_600_250_000_000


def test_rows_come_in_the_order_of_their_records(handler: RecordingHandler, logger: logging.Logger) -> None:
    for number in range(3):
        logger.info("%d", number)

    assert [row.msg for row in handler.drain()[0]] == ["0", "1", "2"]


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
    ("message", "arguments", "kept"),
    [
        ("%d items", ("many",), "%d items"),
        ("%s %s", ("one",), "%s %s"),
        ("%s", (Unprintable(),), "%s"),
        (Unprintable(), (), "(a value that cannot be shown)"),
    ],
)
def test_a_message_that_cannot_be_formatted_is_kept_as_it_is(
    handler: RecordingHandler, message: object, arguments: tuple[object, ...], kept: str
) -> None:
    handler.handle(_record(message, *arguments))

    assert _only(handler).msg == kept


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


def test_a_half_full_queue_asks_for_a_drain_once() -> None:
    asked: list[int] = []
    handler = RecordingHandler(max_records=10, wake=lambda: asked.append(1))

    for _ in range(8):
        handler.handle(_record())

    assert asked == [1]


def test_a_value_that_logs_while_it_is_shown_does_not_lock_up(handler: RecordingHandler) -> None:
    class Chatty:
        def __str__(self) -> str:
            handler.handle(_record("inner"))
            return "outer"

    handler.handle(_record("%s", Chatty()))

    assert [row.msg for row in handler.drain()[0]] == ["inner", "outer"]


def test_a_filter_is_respected(handler: RecordingHandler, logger: logging.Logger) -> None:
    handler.addFilter(lambda record: record.levelno >= logging.WARNING)

    logger.info("a")
    logger.warning("b")

    assert [row.msg for row in handler.drain()[0]] == ["b"]
