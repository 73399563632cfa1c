"""What cannot be stored waits, up to a bound; neither a disk nor a defect stops the application or the recording."""

import logging
import platform
import subprocess
import threading
from concurrent.futures import Future

import psutil
import pytest
from deltalake import DeltaTable

from micromegas_jupyter.core.jsonb import decode, encode
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.errors import Unavailable
from micromegas_jupyter.executors.ingest_worker import ExportStore
from micromegas_jupyter.lake.writer import LakeWriter
from micromegas_jupyter.otlp.exchange import Signal
from micromegas_jupyter.server.recorder import recorder as recording
from micromegas_jupyter.server.recorder.log_records import LogRow
from micromegas_jupyter.server.recorder.recorder import ExportEncoder, MeasureRow, Recorder, WaitingExports
from tests.fakes.telemetry_rows import NOON_NS


@pytest.fixture
def logger():
    logger = logging.getLogger("tests.recorder")
    logger.setLevel(logging.INFO)
    yield logger
    logger.setLevel(logging.NOTSET)


class Door:
    """Stores exports as the ingest process does; once it `loses` answers, nobody hears of that."""

    def __init__(self, writer):
        self._store = ExportStore(writer)
        self.loses = False

    def send(self, request):
        outcome = Future()

        def answer(report):
            if self.loses:
                outcome.set_exception(Unavailable("It is not known whether the rows were stored."))
            elif isinstance(report, BaseException):
                outcome.set_exception(report)
            else:
                outcome.set_result(report)

        self._store.store(request, answer)
        return outcome


@pytest.fixture
def door(tmp_path):
    writer = LakeWriter(Storage(tmp_path / "lake"), interval_seconds=0)
    yield Door(writer)
    writer.close()


@pytest.fixture
def recorder(door, clock, logger):
    recorder = Recorder(door.send, exe="test", clock=clock, logger=logger, commit_interval_seconds=1.0)
    recorder.attach()
    yield recorder
    recorder.stop()


def _rows(folder, table):
    return DeltaTable(folder / "lake" / table).to_pyarrow_table().to_pylist()


def _log(*messages):
    rows = [LogRow(time_ns=NOON_NS, target="t", level=4, msg=message) for message in messages]
    (export,) = ExportEncoder({"service.name": "test"}).encode(Signal.LOGS, rows)
    return export


def test_rows_wait_while_the_disk_fails_which_is_reported_once_a_minute(recorder, clock, tmp_path, caplog):
    (tmp_path / "lake").write_text("not a folder")
    for number in range(4):
        logging.getLogger("tests.recorder").info("line %d", number)
        recorder._run_once()
        clock.advance(20.0)

    (tmp_path / "lake").unlink()
    recorder._run_once()

    warnings = [record for record in caplog.records if record.getMessage() == "telemetry could not be stored"]
    assert [record.failed_flushes for record in warnings] == [1, 4]
    assert all("Check the free space" in record.reason and record.exc_info is None for record in warnings)
    assert {f"line {number}" for number in range(4)} <= {row["msg"] for row in _rows(tmp_path, "log_entries")}


def test_a_table_that_cannot_be_stored_keeps_no_other_one_waiting(recorder, tmp_path):
    (tmp_path / "lake/log_entries").mkdir(parents=True)
    (tmp_path / "lake/log_entries/_delta_log").write_text("not a folder")
    logging.getLogger("tests.recorder").info("a line")

    recorder._run_once()

    assert _rows(tmp_path, "measures")
    assert recorder._waiting.row_count == 1


def test_what_was_dropped_is_reported_in_the_log(recorder, tmp_path, monkeypatch):
    monkeypatch.setattr("micromegas_jupyter.server.recorder.recorder.MAX_MEASURES", 1)
    recorder._handler.handle(logging.makeLogRecord({"created": float("nan")}))
    recorder.add_measures([MeasureRow(time_ns=1, target="a", name="n", unit="count", value=1.0)] * 3)
    monkeypatch.setattr(recorder._sampler, "sample", lambda **_: [])

    recorder._run_once()

    (row,) = _rows(tmp_path, "log_entries")
    lost = {"log_records": "1", "measures": "2", "otel.scope.name": "micromegas_jupyter.recorder"}
    assert (row["msg"], row["level"], row["properties"]) == ("telemetry was dropped", 3, encode(lost))


def test_a_lake_that_hangs_stops_neither_the_application_nor_its_end(door, tmp_path, logger):
    sent, outcomes = threading.Event(), []

    def hang(request):
        outcomes.append((request, Future()))
        sent.set()
        return outcomes[-1][1]

    recorder = Recorder(hang, exe="test", logger=logger, commit_interval_seconds=0.01)
    recorder.attach()
    logger.info("the application goes on")
    recorder.start()
    assert sent.wait(30)

    ended = recorder.stop(timeout_seconds=0.1)

    assert ended is False
    recorder._send = door.send
    for request, outcome in outcomes:
        outcome.set_result(door.send(request).result(30))
    assert recorder.stop(timeout_seconds=30) is True
    assert [row["msg"] for row in _rows(tmp_path, "log_entries")] == ["the application goes on"]
    assert logger.handlers == []


def test_a_defect_does_not_end_the_recording(door, tmp_path, logger, monkeypatch):
    recorder = Recorder(door.send, exe="test", logger=logger, commit_interval_seconds=0.01)
    failed, failing = threading.Event(), iter([True, True])

    def fail_twice(**_):
        if next(failing, False):
            raise ZeroDivisionError
        failed.set()
        return []

    monkeypatch.setattr(recorder._sampler, "sample", fail_twice)
    recorder.attach()
    recorder.start()
    assert failed.wait(30)
    logger.info("still here")

    assert recorder.stop(timeout_seconds=30) is True
    assert "still here" in [row["msg"] for row in _rows(tmp_path, "log_entries")]


def test_warnings_still_reach_stderr(door, capsys):
    alone = logging.getLogger("tests.recorder_alone")
    alone.propagate = False

    recorder = Recorder(door.send, exe="test", logger=alone)
    recorder.attach()
    alone.warning("seen by people")
    recorder.stop()

    assert capsys.readouterr().err == "seen by people\n"


def test_an_export_whose_outcome_is_not_known_is_stored_once(door, tmp_path):
    waiting, door.loses = WaitingExports(), True
    waiting.add(_log("a", "b"))
    with pytest.raises(Unavailable):
        waiting.store(door.send)
    waiting.add(_log("c"))
    door.loses = False

    waiting.store(door.send)

    assert sorted(row["msg"] for row in _rows(tmp_path, "log_entries")) == ["a", "b", "c"]
    assert (waiting.row_count, waiting.take_lost_count()) == (0, 0)


def test_one_that_is_still_on_its_way_is_not_sent_again_and_no_more_follow_than_may_be_there_at_once():
    waiting, sent = WaitingExports(), []
    for number in range(recording.MAX_SENT_AT_ONCE + 1):
        waiting.add(_log(str(number)))

    for _ in range(2):
        with pytest.raises(Unavailable):
            waiting.store(lambda request: sent.append(request) or Future(), timeout_seconds=0.0)

    assert len(sent) == recording.MAX_SENT_AT_ONCE


def test_the_oldest_exports_go_when_they_take_too_much_and_what_the_lake_refuses(door, tmp_path):
    waiting = WaitingExports(max_bytes=3 * len(_log("a" * 100).request.body))
    waiting.add(_log("x", "y"))
    for text in "abc":
        waiting.add(_log(text * 100))
    (after_2262,) = ExportEncoder({}).encode(Signal.LOGS, [LogRow(time_ns=2**63, target="t", level=4, msg="")])
    waiting.add(after_2262)

    assert waiting.row_count == 3
    waiting.store(door.send)

    assert sorted(row["msg"][0] for row in _rows(tmp_path, "log_entries")) == ["b", "c"]
    assert (waiting.take_lost_count(), waiting.take_lost_count(), waiting.row_count) == (4, 0, 0)


def test_rows_are_stored_as_they_were_however_many_exports_they_take(door, tmp_path):
    log = [
        LogRow(
            time_ns=NOON_NS + 1000 * level, target=f"t{level // 2}", level=level, msg="ü" * level,
            properties={"n": f"{level}"},
        )
        for level in range(1, 7)
    ]  # fmt: skip
    measures = [
        MeasureRow(
            time_ns=NOON_NS + 1000 * number, target=f"t{number % 2}", name="n", unit="bytes", value=number / 2,
            properties={"core": f"{number}"},
        )
        for number in range(6)
    ]  # fmt: skip
    encoder = ExportEncoder({"service.name": "test", "user.full_name": ""}, max_bytes=150)

    exports = encoder.encode(Signal.LOGS, log) + encoder.encode(Signal.METRICS, measures)
    for export in exports:
        door.send(export.request).result(30)

    def found(table, *names):
        rows = sorted(_rows(tmp_path, table), key=lambda row: row["time"])
        return [(*(row[name] for name in names), decode(row["properties"])) for row in rows]

    assert len(exports) > 4
    assert sum(export.row_count for export in exports) == 12
    assert found("log_entries", "target", "level", "msg") == [
        (row.target, row.level, row.msg, {**row.properties, "otel.scope.name": row.target}) for row in log
    ]
    assert found("measures", "target", "name", "unit", "value") == [
        (row.target, row.name, row.unit, row.value, {**row.properties, "otel.metric.kind": "gauge"}) for row in measures
    ]


def test_a_counter_is_reported_as_growth_per_second_where_that_means_anything():
    def counter(value, core="0"):
        return recording.Reading("disk_reads", "count/s", value, ("core", core))

    def measure(*previous, seconds=2.0):
        rows = recording.build_measures(list(previous), [counter(150)], elapsed_seconds=seconds, time_ns=NOON_NS)
        return [row.value for row in rows]

    assert measure(counter(100)) == [25.0]
    # No sample before, another core, it ran backwards, no time passed.
    assert measure() == measure(counter(100, "1")) == measure(counter(200)) == measure(counter(100), seconds=0.0) == []


def test_no_program_is_started_that_would_inherit_the_servers_environment(monkeypatch):
    started = []
    monkeypatch.setattr(subprocess, "Popen", lambda *arguments, **_options: started.append(arguments))
    monkeypatch.setattr(platform, "_uname_cache", None)

    found = recording.describe_process("x" * 1000)

    assert started == []
    assert (found["process.owner"], found["host.name"]) == (psutil.Process().username(), platform.node())
    assert len(found["service.name"].encode()) == 255
