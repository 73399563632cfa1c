"""`micromegas trace` against a real server over a plain file."""

import json

import pyarrow.parquet as pq
import pytest

from micromegas_jupyter.cli.main import run
from micromegas_jupyter.config.server import ServerSettings
from micromegas_jupyter.wiring.server import ServerStack
from tests.unit.client.test_traces import CHECKOUT, TRACE

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    folder = tmp_path_factory.mktemp("telemetry")
    pq.write_table(CHECKOUT, folder / "otel_spans.parquet")
    with ServerStack(
        ServerSettings(no_http=True, lake=folder, port=0, disable_auth=True, telemetry_interval_seconds=0.2), environ={}
    ) as server:
        yield server.uri


def test_a_trace_is_printed_as_a_tree(uri, capsys):
    assert run(["trace", f"0x{TRACE.upper()}", "--uri", uri]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "checkout · 4 spans · 1 service · 1 ms · 1 error · 1 span without its parent"
    assert [line.split("  ")[0] for line in lines[2:]] == ["checkout", "", "", "lost (parent missing) shop"]
    assert "\x1b" not in "".join(lines)


def test_spans_are_written_as_rows(uri, capsys):
    assert run(["trace", TRACE, "--uri", uri, "--format", "jsonl"]) == 0

    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["name"], row["depth"], row["self_time"], row["critical_time"]) for row in rows] == [
        ("checkout", 0, 300_000, 300_000),
        ("charge", 1, 700_000, 700_000),
        ("log", 1, 1_000, 0),
        ("lost", 0, 50_000, 0),
    ]


def test_a_trace_that_nobody_sent_is_an_error_with_what_to_do(uri, capsys):
    assert run(["trace", "f" * 32, "--uri", uri]) == 2

    captured = capsys.readouterr()
    assert captured.out == ""
    assert "ffff has no spans" in captured.err
    assert "time range" in captured.err


def test_what_is_no_id_is_rejected_without_a_call(capsys):
    assert run(["trace", "checkout", "--uri", "grpc://127.0.0.1:9"]) == 2

    assert "not a trace ID" in capsys.readouterr().err
