"""Limits reach the parts that keep them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.assembly import server_limits
from micromegas_jupyter.assembly.server_limits import (
    limit_engine,
    limit_flight,
    partitions_of,
    read_server_limits,
    share_processors,
)
from micromegas_jupyter.engine import EngineSettings
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.server import FlightServerSettings
from micromegas_jupyter.server.ingest_settings import IngestSettings
from micromegas_jupyter.settings import ServerLimits

if TYPE_CHECKING:
    from pathlib import Path


def test_the_defaults_are_those_of_the_parts() -> None:
    assert limit_flight(FlightServerSettings(), ServerLimits()) == FlightServerSettings()
    assert limit_engine(EngineSettings(), ServerLimits()) == EngineSettings()


def test_flight_gets_its_limits_in_its_own_units() -> None:
    limits = ServerLimits(
        query_timeout_seconds=0,
        max_rows=7,
        max_result_mib=2,
        max_queries=5,
        max_queries_per_caller=3,
        max_heavy_queries=2,
        queue_seconds=9,
        max_message_mib=4,
        max_metadata_kib=16,
        max_calls=11,
        max_calls_per_caller=8,
        silent_client_seconds=14,
        upload_seconds=15,
        connection_idle_seconds=0,
        connection_age_seconds=16,
        stalled_client_seconds=13,
        max_ingest_mib=6,
        max_ingests=12,
        max_ingests_per_caller=2,
        max_tables_per_caller=3,
    )

    assert limit_flight(FlightServerSettings(port=1), limits) == FlightServerSettings(
        port=1,
        query_timeout_seconds=None,
        max_rows=7,
        max_result_bytes=2 << 20,
        max_concurrent_queries=5,
        max_queries_per_caller=3,
        max_heavy_queries=2,
        admission_wait_seconds=9.0,
        max_receive_bytes=4 << 20,
        max_metadata_bytes=16 << 10,
        max_concurrent_calls=11,
        max_calls_per_caller=8,
        silent_client_seconds=14.0,
        connection_idle_seconds=None,
        connection_age_seconds=16.0,
        stalled_write_seconds=13.0,
        ingest=IngestSettings(
            max_bytes=6 << 20,
            max_concurrent=12,
            max_per_caller=2,
            max_tables_per_caller=3,
            idle_seconds=14.0,
            max_seconds=15.0,
        ),
    )


def test_the_engine_gets_its_limits_in_its_own_units() -> None:
    limits = ServerLimits(max_heavy_queries=2, spill_mib=3, max_statement_bytes=100)

    assert limit_engine(EngineSettings(planning_threads=1), limits) == EngineSettings(
        planning_threads=1,
        heavy_statements=2,
        spill_limit_bytes=3 << 20,
        max_statement_bytes=100,
    )


def test_a_spill_directory_that_is_not_there_stops_the_server(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")

    for name in ("missing", "file"):
        with pytest.raises(ConfigurationError) as caught:
            read_server_limits({"MICROMEGAS_SERVER_SPILL_DIRECTORY": str(tmp_path / name)})

        assert caught.value.key == "MICROMEGAS_SERVER_SPILL_DIRECTORY"
        assert str(tmp_path) not in str(caught.value)


def test_a_spill_directory_that_is_there_is_taken(tmp_path: Path) -> None:
    found = read_server_limits({"MICROMEGAS_SERVER_SPILL_DIRECTORY": str(tmp_path)})

    assert found.spill_directory == str(tmp_path)


@pytest.mark.parametrize(
    ("processors", "workers", "heavy", "partitions"),
    [(2, 1, 1, None), (2, 2, 1, 1), (8, 2, 2, 4), (8, 3, 1, 2), (64, 4, 8, 16), (1, 4, 1, 1)],
)
def test_workers_divide_the_processors(
    monkeypatch: pytest.MonkeyPatch, processors: int, workers: int, heavy: int, partitions: int | None
) -> None:
    monkeypatch.setattr(server_limits, "processor_count", lambda: processors)
    monkeypatch.setattr(server_limits, "default_heavy_statements", lambda: max(1, processors // 2))

    assert share_processors(ServerLimits(), workers).max_heavy_queries == heavy
    assert partitions_of(workers) == partitions


def test_a_number_of_heavy_queries_that_somebody_set_is_each_workers() -> None:
    assert share_processors(ServerLimits(max_heavy_queries=7), 4).max_heavy_queries == 7
