"""Sessions share one memory pool and have a cap on what they spill."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.engine import EngineSettings
from micromegas_jupyter.engine.sessions import READ_ONLY, Sessions

if TYPE_CHECKING:
    from pathlib import Path

SMALL = EngineSettings(memory_limit_bytes=60 << 20, spill_limit_bytes=8 << 20, target_partitions=1)
# Its build side takes about 40 MB from the pool and keeps it while the other side streams.
HOLDING = (
    "SELECT b.value, a.s FROM (SELECT value AS v, repeat('x', 100) AS s FROM generate_series(1, 350000)) a "
    "JOIN generate_series(1, 100000000) b ON b.value = a.v"
)


@pytest.fixture
def sessions() -> Sessions:
    return Sessions(SMALL)


def test_two_sessions_take_from_one_pool(sessions: Sessions) -> None:
    holder = iter(sessions.open().sql(HOLDING).execute_stream())
    next(holder)

    with pytest.raises(Exception, match="Resources exhausted"):
        next(iter(sessions.open().sql(HOLDING).execute_stream()))

    del holder


def test_sessions_with_and_without_room_on_disk_take_from_one_pool(sessions: Sessions) -> None:
    holder = iter(sessions.open().sql(HOLDING).execute_stream())
    next(holder)

    with pytest.raises(Exception, match="Resources exhausted"):
        next(iter(sessions.open(can_spill=False).sql(HOLDING).execute_stream()))

    del holder


def test_a_session_without_room_on_disk_runs_out_of_memory(sessions: Sessions) -> None:
    wide = "SELECT md5(CAST(value AS VARCHAR)) AS s FROM generate_series(1, 3000000) ORDER BY s"
    context = sessions.open(can_spill=False)

    with pytest.raises(Exception, match="Resources exhausted"):
        next(iter(context.sql(wide).execute_stream()))


def test_a_session_alone_has_room(sessions: Sessions) -> None:
    assert next(iter(sessions.open().sql(HOLDING).execute_stream())).to_pyarrow().num_rows > 0


def test_spilling_stops_at_the_cap(sessions: Sessions) -> None:
    wide = "SELECT md5(CAST(value AS VARCHAR)) AS s FROM generate_series(1, 3000000) ORDER BY s"

    with pytest.raises(Exception, match="allowable limit"):
        next(iter(sessions.open().sql(wide).execute_stream()))


def test_what_is_spilled_lies_in_the_processs_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    sessions = Sessions(replace(SMALL, spill_limit_bytes=1 << 30))
    sort = "SELECT value * 7919 % 100003 AS n FROM generate_series(1, 10000000) ORDER BY n"
    rows = iter(sessions.open().sql(sort).execute_stream())
    next(rows)

    spilled = [path for path in tmp_path.rglob("*") if path.is_file()]

    assert sum(path.stat().st_size for path in spilled) > 1 << 20
    assert {path.stat().st_mode & 0o777 for path in spilled} == {0o600}
    del rows


def test_sessions_have_the_settings_that_were_measured() -> None:
    sessions = Sessions(replace(SMALL, batch_rows=1234))
    context = sessions.open()

    found = context.sql("SELECT name, value FROM information_schema.df_settings").to_pydict()
    settings = dict(zip(found["name"], found["value"], strict=True))

    assert settings["datafusion.execution.parquet.pushdown_filters"] == "true"
    assert settings["datafusion.execution.parquet.schema_force_view_types"] == "false"
    assert settings["datafusion.execution.batch_size"] == "1234"
    assert settings["datafusion.execution.target_partitions"] == "1"
    assert settings["datafusion.runtime.max_temp_directory_size"] == "8M"


def test_a_setting_of_one_session_is_not_seen_by_another(sessions: Sessions) -> None:
    sessions.open().sql("SET datafusion.execution.batch_size = 7")
    found = sessions.open().sql("SHOW datafusion.execution.batch_size").to_pydict()

    assert found["value"] == ["65536"]


def test_read_only_refuses_a_table(sessions: Sessions) -> None:
    with pytest.raises(ValueError, match="DDL not supported"):
        sessions.open().sql_with_options("CREATE TABLE t AS SELECT 1", READ_ONLY)
