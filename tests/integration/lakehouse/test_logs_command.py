"""`micromegas logs` against a real server and its lake: lines, patterns, and lines to come, also across a restart."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from micromegas_jupyter.cli.main import run
from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.config.server import ServerSettings
from micromegas_jupyter.core import jsonb
from micromegas_jupyter.telemetry.tables import LOG_ENTRIES
from micromegas_jupyter.wiring.server import ServerStack

pytestmark = pytest.mark.integration

WAIT_SECONDS = 60
HOSTILE = "\x1b[2Jcleared\nforged line"


def start(folder, port=0):
    return ServerStack(ServerSettings(no_http=True, lake=folder, port=port, disable_auth=True), environ={}).__enter__()


def send(uri, *lines, age_seconds=60):
    """Store lines of (level, exe, message)."""
    now = datetime.now(UTC) - timedelta(seconds=age_seconds)
    columns = {
        "insert_time": [now] * len(lines),
        "exe": [exe for _, exe, _ in lines],
        "target": ["net.http"] * len(lines),
        "time": [now + timedelta(milliseconds=index) for index in range(len(lines))],
        "level": [level for level, _, _ in lines],
        "msg": [text for _, _, text in lines],
        **{name: [jsonb.encode({})] * len(lines) for name in ("properties", "process_properties")},
    }
    arrays = [pa.array(columns.get(field.name, ["x"] * len(lines))).cast(field.type) for field in LOG_ENTRIES.schema]
    with FlightSQLClient(uri) as client:
        client.bulk_ingest("log_entries", pa.table(arrays, schema=LOG_ENTRIES.schema), mode="create_append")


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    stack = start(tmp_path_factory.mktemp("lake"))
    send(
        stack.uri,
        (4, "shop", "order 14 took 3.5 ms"),
        (3, "shop", "order 15 took 812 ms"),
        (2, "bank", "100% of cards failed"),
        (4, "bank", HOSTILE),
        (5, "bank", "order 16 took 4 ms"),
    )
    yield stack.uri
    stack.__exit__(None, None, None)


@pytest.fixture
def printed(uri, capsys):
    def call(*words):
        assert run(["logs", "--uri", uri, *words]) == 0
        return capsys.readouterr()

    return call


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ["order 14", "order 15", "100% of", r"\x1b[2Jcleared\nforged", "order 16"]),
        (["--level", "warn"], ["order 15", "100% of"]),
        (["--level", "2"], ["100% of"]),
        (["--search", "ORDER", "--service", "Shop"], ["order 14", "order 15"]),
        (["--search", "0%"], ["100% of"]),
        (["--target", "HTTP", "--last", "1"], ["order 16"]),
        (["--begin", "3h", "--end", "2h"], []),
    ],
)
def test_lines_are_printed_in_the_order_of_time(printed, words, expected):
    lines = printed(*words).out.splitlines()

    assert [line.split("http: ")[1][: len(text)] for line, text in zip(lines, expected, strict=True)] == expected


def test_a_line_tells_time_level_and_sender(printed):
    (line,) = printed("--search", "failed").out.splitlines()

    time, _, rest = line.partition(" ")
    assert datetime.now(UTC) - timedelta(minutes=5) < datetime.fromisoformat(time) < datetime.now(UTC)
    assert rest == "ERROR   bank net.http: 100% of cards failed"


def test_lines_are_written_as_rows(printed):
    rows = [json.loads(line) for line in printed("--format", "jsonl", "--service", "shop").out.splitlines()]

    assert [(row["level"], row["exe"], row["msg"]) for row in rows] == [
        (4, "shop", "order 14 took 3.5 ms"),
        (3, "shop", "order 15 took 812 ms"),
    ]


def test_patterns_count_messages_that_differ_in_numbers(printed):
    header, _, first, *rest = printed("--patterns").out.splitlines()

    assert header.split() == ["count", "level", "pattern"]
    assert first.split() == ["3", "WARNING", "order", "<*>", "took", "<*>", "ms"]
    assert len(rest) == 2


@pytest.mark.parametrize(
    "words",
    [["--level", "loud"], ["--last", "0"], ["-f", "--end", "1m"], ["-f", "--format", "parquet"], ["-f", "--patterns"],
     ["--patterns", "--format", "csv"], ["-f", "--output", "lines.csv"]],
)  # fmt: skip
def test_options_that_cannot_be_combined_are_rejected_without_a_call(words, capsys):
    assert run(["logs", "--uri", "grpc://127.0.0.1:9", *words]) == 2

    assert capsys.readouterr().out == ""


@pytest.mark.slow
@pytest.mark.parametrize("words", [[], ["--format", "jsonl"]])
def test_each_new_line_is_printed_once_also_after_a_restart(tmp_path, words):
    stack = start(tmp_path)
    port = int(stack.uri.rpartition(":")[2])
    send(stack.uri, (4, "shop", "line 0"))
    command = [
        sys.executable,
        "-m",
        "micromegas_jupyter.cli",
        "logs",
        "--follow",
        "--uri",
        stack.uri,
        "--service",
        "shop",
        *words,
    ]
    environ = {**os.environ, "MICROMEGAS_CONFIG_DIR": str(tmp_path / "config"), "MICROMEGAS_ANALYTICS_URI": stack.uri}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ) as follow:
        try:
            found = [follow.stdout.readline()]
            send(stack.uri, (4, "shop", "line 1"), (2, "shop", "line 2"), age_seconds=0)
            found += [follow.stdout.readline() for _ in range(2)]
            stack.__exit__(None, None, None)
            stack = start(tmp_path, port)
            # An hour late, but stored just now.
            send(stack.uri, (4, "shop", "line 3"), age_seconds=3600)
            found.append(follow.stdout.readline())
        finally:
            follow.terminate()
            stack.__exit__(None, None, None)
        rest, _ = follow.communicate(timeout=WAIT_SECONDS)

    assert [f"line {number}" in line for number, line in enumerate(found)] == [True] * 4
    assert rest == ""
