"""`micromegas processes`, `process-log` and `process-metrics` against a real server over plain files."""

import json
import runpy
import sys
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet
import pytest

from micromegas_jupyter.cli.main import run
from micromegas_jupyter.config.server import ServerSettings
from micromegas_jupyter.wiring.server import ServerStack

pytestmark = pytest.mark.integration

LONG_EXE = "/opt/" + "x" * 80 + "/Game.exe"


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    folder = tmp_path_factory.mktemp("telemetry")
    now = datetime.now(UTC)  # the commands look back for an hour, so not when the tests are collected
    times = [now - timedelta(minutes=minutes) for minutes in (3, 2, 1)]
    tables = {
        "processes": {
            "process_id": ["p1", "it's"],
            "exe": [LONG_EXE, "server"],
            "start_time": times[:2],
            "username": ["alice", "bob"],
            "computer": ["host-a", "host-b"],
            "distro": ["d", "d"],
            "cpu_brand": ["c", "c"],
        },
        "log_entries": {
            "process_id": ["p1", "p1", "p1"],
            "time": times,
            "target": ["net", "disk", "net::http"],
            "level": [4, 2, 6],
            "msg": ["hello", "50% full", "bye"],
        },
        "measures": {
            "process_id": ["p1", "p1", "p1"],
            "time": times,
            "target": ["cpu", "cpu", "gpu"],
            "name": ["load", "load", "heat"],
            "value": [1.0, 3.0, 7.0],
        },
    }
    for name, columns in tables.items():
        pyarrow.parquet.write_table(pa.table(columns), folder / f"{name}.parquet")
    with ServerStack(
        ServerSettings(no_http=True, lake=folder, port=0, disable_auth=True, telemetry_interval_seconds=0.2), environ={}
    ) as server:
        yield server.uri


@pytest.fixture
def rows(uri, capsys):
    def ask(*words):
        assert run([*words, "--uri", uri, "--format", "json"]) == 0
        return json.loads(capsys.readouterr().out)

    return ask


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ["p1", "it's"]),
        (["--limit", "1"], ["p1"]),
        (["--exe", "GAME"], ["p1"]),
        (["--username", "^b.b$", "--computer", "B"], ["it's"]),
        (["--username", "alice", "--computer", "host-b"], []),
    ],
)
def test_programs_are_found_by_what_they_contain(rows, words, expected):
    assert [row["process_id"] for row in rows("processes", *words)] == expected


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ([], LONG_EXE[-64:]),
        (["--format", "table"], LONG_EXE[-64:]),
        (["--max-colwidth", "20"], LONG_EXE[-20:]),
        (["--max-colwidth", "0"], LONG_EXE),
    ],
)
def test_a_table_shows_the_end_of_a_long_path(uri, capsys, words, shown):
    assert run(["processes", *words, "--uri", uri]) == 0
    assert f"  {shown} " in capsys.readouterr().out


def test_other_formats_show_the_whole_path(rows):
    assert [row["exe"] for row in rows("processes", "--username", "alice")] == [LONG_EXE]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ["hello", "50% full", "bye"]),
        (["--first", "1"], ["hello"]),
        (["--last", "2"], ["50% full", "bye"]),
        (["--first", "1", "--last", "2"], ["50% full", "bye"]),
        (["--maxlevel", "4"], ["hello", "50% full"]),
        (["--maxlevel", "info"], ["hello", "50% full"]),
        (["--target", "NET"], ["hello", "bye"]),
        (["--target", "net", "--msg", "BYE"], ["bye"]),
        (["--msg", "50%"], ["50% full"]),
        (["--msg", "50_ f"], []),
        (["--msg", "h%o"], []),
        (["--msg", "\\"], []),
        (["--target", "n_t"], []),
        (["--msg", "'; DROP"], []),
        (["--begin", "10m", "--end", "5m"], []),
        (["--since", "10m"], ["hello", "50% full", "bye"]),
    ],
)
def test_a_log_is_shown_in_the_order_of_time(rows, words, expected):
    assert [row["msg"] for row in rows("process-log", "p1", *words)] == expected
    assert rows("process-log", "it's") == []


def test_measures_are_shown_as_they_are_or_summed_up(rows):
    assert [row["value"] for row in rows("process-metrics", "p1", "--limit", "2")] == [1.0, 3.0]
    assert [row["value"] for row in rows("process-metrics", "p1", "--target", "CPU", "--name", "load")] == [1.0, 3.0]
    assert rows("process-metrics", "p1", "--begin", "10m", "--end", "5m") == []
    assert rows("process-metrics", "p1", "--stats", "--begin", "10m") == [
        {"name": "heat", "count": 1, "min": 7.0, "mean": 7.0, "median": 7.0, "max": 7.0, "sum": 7.0},
        {"name": "load", "count": 2, "min": 1.0, "mean": 2.0, "median": 2.0, "max": 3.0, "sum": 4.0},
    ]


@pytest.mark.parametrize(
    "words",
    [
        ["processes", "--since", "2999-01-01T00:00:00Z"],
        ["processes", "--begin", "1h", "--end", "2h"],
        ["process-metrics", "p1", "--end", "1h"],
        ["processes", "--limit", "0"],
        ["process-log", "p1", "--maxlevel", "7"],
        ["process-log", "p1", "--maxlevel", "loud"],
        ["process-log", "p1", "--last", "-1"],
    ],
)
def test_a_number_that_makes_no_sense_is_refused_before_anything_is_sent(words):
    assert run([*words, "--uri", "grpc://127.0.0.1:1"]) == 2


@pytest.mark.parametrize("module", ["query_processes", "query_process_log", "query_process_metrics"])
def test_the_names_that_older_programs_call_still_work(module, uri, monkeypatch, capsys):
    words = [] if module == "query_processes" else ["p1"]
    monkeypatch.setattr(sys, "argv", [module, *words, "--uri", uri, "--format", "csv"])

    with pytest.raises(SystemExit) as ended:
        runpy.run_module(f"micromegas_jupyter.cli.{module}", run_name="__main__")

    printed = capsys.readouterr()
    assert (ended.value.code, printed.err) == (0, "")
    assert "process_id" in printed.out.splitlines()[0]
    assert "p1" in printed.out
