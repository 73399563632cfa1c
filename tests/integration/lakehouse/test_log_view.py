"""The kernel's half of the log view against a real server and its lake: filters, patterns, and a follow."""

import json
import logging
import threading
import time
import uuid
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.core import jsonb
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.errors import MicromegasError, UsageError
from micromegas_jupyter.notebook.logs.lines import MAX_LINES, LogLines
from micromegas_jupyter.notebook.logs.view import LogQuery, LogView
from micromegas_jupyter.telemetry.log_lines import VIEW_COLUMNS, LogFilter
from micromegas_jupyter.telemetry.tables import LOG_ENTRIES
from tests.fakes.waiting import wait_until
from tests.integration.lakehouse.test_logs_command import start

pytestmark = pytest.mark.integration

PAGE = "page"
TRACE = "0af7651916cd43dd8448eb211c80319c"
LINES = [
    (4, "shop", "order 1 took 3 ms", {"http.route": "/cart", "otel.trace_id": TRACE}),
    (3, "shop", "order 2 took 812 ms", {"http.route": "/cart", "retries": 3}),
    (2, "bank", "card declined", {"quote": "it's \" ; DROP TABLE"}),
    (5, "bank", "order 3 took 4 ms", {}),
]
LONG_SECONDS, RECONNECT_SECONDS = 600, 10
BATCH_ROWS = {1000: 250, 5000: 1250}
EMPTY = pa.schema([pa.field(name, LOG_ENTRIES.schema.field(name).type) for name in VIEW_COLUMNS]).empty_table()


def send(client, lines, *, age_seconds=0.0, ingest_id=None):
    """Store lines of (level, exe, message, properties)."""
    now = datetime.now(UTC) - timedelta(seconds=age_seconds)
    encoded = {json.dumps(one): jsonb.encode(one) for *_, one in lines}
    columns = {
        "insert_time": [now] * len(lines),
        "exe": [exe for _, exe, _, _ in lines],
        "target": ["net.http"] * len(lines),
        "time": [now + timedelta(microseconds=index) for index in range(len(lines))],
        "level": [level for level, *_ in lines],
        "msg": [message for _, _, message, _ in lines],
        "properties": [encoded[json.dumps(one)] for *_, one in lines],
        "process_properties": [jsonb.encode({})] * len(lines),
    }
    arrays = [pa.array(columns.get(field.name, ["x"] * len(lines))).cast(field.type) for field in LOG_ENTRIES.schema]
    table = pa.table(arrays, schema=LOG_ENTRIES.schema)
    client.bulk_ingest("log_entries", table, mode="create_append", ingest_id=ingest_id)


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    stack = start(tmp_path_factory.mktemp("lake"))
    with FlightSQLClient(stack.uri) as client:
        send(client, LINES, age_seconds=60)
        yield client
    stack.__exit__(None, None, None)


def make_view(client, *, is_following=False, **conditions):
    now = datetime.now(UTC)
    query = LogQuery(begin=now - timedelta(minutes=15), end=None, conditions=LogFilter(**conditions))
    lines = EMPTY if is_following else query.fetch_lines(client, now)
    return LogView(lambda: client, query, lines, is_following=is_following, clock=SYSTEM_CLOCK)


@pytest.fixture
def ask(client):
    view = make_view(client)
    yield lambda op, **details: view.respond({"id": 1, "op": op, **details})
    view.close()


def shown(state):
    return [message for *_, message in state["tail"]["lines"]]


MESSAGES = [message for _, _, message, _ in LINES]


@pytest.mark.parametrize(
    ("op", "details", "expected"),
    [
        ("state", {}, MESSAGES),
        ("level", {"level": 3}, MESSAGES[1:3]),
        ("search", {"text": "ORDER"}, [MESSAGES[0], MESSAGES[1], MESSAGES[3]]),
        ("filter", {"line": 0, "key": "http.route", "is_excluded": False}, MESSAGES[:2]),
        ("filter", {"line": 0, "key": "http.route", "is_excluded": True}, MESSAGES[2:]),
        ("filter", {"line": 1, "key": "retries", "is_excluded": False}, MESSAGES[1:2]),
        ("filter", {"line": 2, "key": "quote", "is_excluded": False}, MESSAGES[2:3]),
        ("filter", {"line": 2, "key": "exe", "is_excluded": True}, MESSAGES[:2]),
        ("around", {"line": 0}, MESSAGES),
    ],
)
def test_a_view_shows_the_lines_that_match_and_counts_them(ask, op, details, expected):
    state = ask(op, **details)

    assert shown(state) == expected
    assert state["total"] == len(expected) == sum(map(sum, state["bars"]))
    assert (state["first"], state["next"], state["skipped"]) == (0, len(expected), 0)


def test_a_range_of_bars_has_their_lines_and_filters_are_removed(ask):
    state = ask("filter", line=0, key="exe", is_excluded=False)
    (bar,) = [index for index, levels in enumerate(state["bars"]) if any(levels)]
    begin = state["begin"] + bar * state["width"]

    assert shown(ask("range", begin=begin, end=begin + state["width"])) == MESSAGES[:2]
    assert shown(ask("unfilter", index=0)) == MESSAGES
    assert shown(ask("range", begin=begin - state["width"], end=begin)) == []


def test_a_line_has_its_properties_and_its_trace(ask):
    detail = ask("detail", line=0)

    assert detail["message"] == MESSAGES[0]
    assert detail["trace_id"] == TRACE
    assert ["http.route", "/cart"] in detail["values"]
    assert ask("detail", line=3)["trace_id"] == ""
    assert ask("patterns") == {"patterns": [["order <*> took <*> ms", 3, 3], ["card declined", 1, 2]], "count": 2}


@pytest.mark.parametrize(
    ("op", "details"),
    [("detail", {"line": 99}), ("filter", {"line": 0, "key": "none", "is_excluded": False}), ("other", {})],
)
def test_a_request_that_fits_nothing_changes_nothing(ask, op, details):
    before = ask("state")
    with pytest.raises(UsageError):
        ask(op, **details)

    assert ask("state") == before


def test_a_closed_view_reports_that_its_lines_are_gone(client):
    view = make_view(client)
    view.close()

    with pytest.raises(UsageError, match="no longer held"):
        view.respond({"id": 1, "op": "state"})


def test_a_follow_runs_while_a_page_shows_it_and_continues_without_a_gap(client):
    view = make_view(client, is_following=True, service="follow")
    news = []
    view.on_news = news.append

    def wait_for(count):
        wait_until(lambda: news and news[-1]["total"] == count, f"{count} lines")

    send(client, [(4, "follow", "line 0", {})])
    view.respond({"id": 1, "op": "watch", "page": PAGE})
    wait_for(1)
    view.respond({"id": 2, "op": "leave", "page": PAGE})
    wait_until(lambda: not any(one.name == "micromegas-log-follow" for one in threading.enumerate()), "the end")
    send(client, [(4, "follow", "line 1", {}), (2, "follow", "line 2", {})])
    view.respond({"id": 3, "op": "watch", "page": PAGE})
    wait_for(3)
    stopped = view.respond({"id": 4, "op": "follow", "is_on": False})
    send(client, [(4, "follow", "line 3", {})])
    assert not stopped["is_following"]
    assert shown(stopped) == ["line 0", "line 1", "line 2"]
    view.respond({"id": 5, "op": "follow", "is_on": True})
    wait_for(4)
    assert view.respond({"id": 6, "op": "patterns"})["patterns"] == [["line <*>", 4, 2]]
    view.respond({"id": 7, "op": "level", "level": 2})
    wait_for(1)
    view.close()
    wait_until(lambda: not any(one.name == "micromegas-log-follow" for one in threading.enumerate()), "the end")


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [8, pytest.param(LONG_SECONDS, marks=pytest.mark.long)])
def test_each_line_is_counted_once_across_a_stall_and_a_restart(  # noqa: PLR0915 - one run
    tmp_path, seconds, caplog, monkeypatch
):
    """1,000 lines a second for the first half, 5,000 for the second one; the reader stalls, the server restarts."""
    stacks = [start(tmp_path)]
    uri = stacks[0].uri
    found, delays, committed, pauses = bytearray(6000 * seconds), [], {}, []
    is_over, add = threading.Event(), LogLines.add

    def count(lines, table):
        for message in table["msg"].to_pylist():
            found[int(message.split()[1])] += 1
        add(lines, table)

    monkeypatch.setattr(LogLines, "add", count)

    def restart():
        stopped_at = time.monotonic()
        stacks.pop().__exit__(None, None, None)
        stacks.append(start(tmp_path, int(uri.rpartition(":")[2])))
        pauses.append((stopped_at, time.monotonic() + RECONNECT_SECONDS))

    began = time.monotonic()

    def write():
        number = 0
        with FlightSQLClient(uri) as client:
            while not is_over.is_set():
                rate = 1000 if time.monotonic() < began + seconds / 2 else 5000
                size = BATCH_ROWS[rate]
                lines = [(4, "load", f"order {number + index} took {index % 97} ms", {}) for index in range(size)]
                ingest_id, next_at = str(uuid.uuid4()), time.monotonic() + size / rate
                while True:
                    with suppress(MicromegasError):
                        send(client, lines, ingest_id=ingest_id)
                        break
                number += size
                committed[number] = time.monotonic()
                is_over.wait(max(next_at - time.monotonic(), 0))
        return number

    stalls = [seconds / 4]

    def take_news(state):
        now = time.monotonic()
        delays.extend((committed.pop(number), now) for number in list(committed) if number <= state["total"])
        if stalls and now > began + stalls[0]:
            stalls.clear()
            time.sleep(min(seconds / 4, 30))  # what a busy interpreter does to the thread
            pauses.append((now, time.monotonic()))

    with FlightSQLClient(uri) as client, caplog.at_level(logging.INFO, logger="micromegas_jupyter.audit"):
        send(client, [(4, "other", "created", {})])
        view = make_view(client, is_following=True, service="load")
        view.on_news = take_news
        view.respond({"id": 1, "op": "watch", "page": PAGE})
        writer = threading.Thread(target=write)
        writer.start()
        restarting = threading.Timer(seconds * 5 / 8, restart)
        restarting.start()
        while not is_over.wait(min(10, seconds / 4)):
            view.respond({"id": 2, "op": "watch", "page": PAGE})
            if time.monotonic() > began + seconds:
                is_over.set()
        writer.join()
        restarting.join()
        total = max(index for index, times in enumerate(found) if times) + 1
        with FlightSQLClient(uri) as counting:
            stored = counting.query_arrow("SELECT count(*) AS n FROM log_entries WHERE exe = 'load'")["n"][0].as_py()
        wait_until(lambda: view.respond({"id": 3, "op": "state"})["total"] >= stored, "all lines")
        state, patterns = (view.respond({"id": 4, "op": op}) for op in ("state", "patterns"))
        view.close()
    stacks.pop().__exit__(None, None, None)

    total = stored
    undisturbed = sorted(
        shown - stored
        for stored, shown in delays
        if not any(begin < shown and stored < end + 1 for begin, end in pauses)
    )
    p95 = undisturbed[len(undisturbed) * 95 // 100]
    print(f"{total:,} lines, commit to news median {undisturbed[len(undisturbed) // 2]:.2f} s, p95 {p95:.2f} s")
    assert found[:total] == b"\x01" * total
    assert not any(found[total:])
    assert state["total"] == total == sum(map(sum, state["bars"])) == patterns["patterns"][0][1]
    assert state["skipped"] == max(total - MAX_LINES, 0)
    assert state["next"] - state["first"] == min(total, MAX_LINES)
    audits = [json.loads(one.getMessage()) for one in caplog.records if '"follow"' in one.getMessage()]
    assert len({one["query_id"] for one in audits}) == 1
    assert seconds < LONG_SECONDS or p95 < 1
