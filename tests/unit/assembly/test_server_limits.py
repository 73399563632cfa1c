"""Limits reach the parts that keep them, in their own units."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from micromegas_jupyter.assembly import server_limits
from micromegas_jupyter.assembly.serve_options import ServeOptions
from micromegas_jupyter.assembly.server_limits import build_flight_settings, build_pool_settings, build_worker_options
from micromegas_jupyter.executors.settings import PoolSettings, WorkerOptions
from micromegas_jupyter.server import FlightServerSettings
from micromegas_jupyter.server.ingest_settings import IngestSettings
from micromegas_jupyter.settings import RateLimits, ServerLimits

if TYPE_CHECKING:
    import pytest

OPTIONS = ServeOptions(lake=Path("lake"), host="127.0.0.2", memory_mib=1000)
LIMITS = ServerLimits(
    statement_memory_mib=2000,
    query_timeout_seconds=0,
    max_rows=7,
    max_result_mib=2,
    max_queries=5,
    max_queries_per_caller=3,
    max_ended_per_caller=4,
    queue_timeout_seconds=9,
    spill_mib=3,
    max_statement_bytes=100,
    max_message_mib=4,
    max_metadata_kib=16,
    max_calls=11,
    max_calls_per_caller=8,
    read_timeout_seconds=14,
    upload_seconds=15,
    connection_idle_seconds=0,
    connection_age_seconds=16,
    write_timeout_seconds=13,
    max_ingest_mib=6,
    max_ingests=12,
    max_ingests_per_caller=2,
    max_tables_per_caller=3,
)


def test_the_defaults_are_those_of_the_parts() -> None:
    options = ServeOptions(lake=Path("lake"))

    flight = build_flight_settings(
        ServerLimits(), options, rate_limits=RateLimits(), port=50051, is_port_reserved=False
    )

    assert flight == FlightServerSettings()
    # One server runs fewer statements at once than a pool by itself would.
    assert build_pool_settings(ServerLimits(), options) == PoolSettings(max_executors=32)


def test_flight_gets_its_limits() -> None:
    built = build_flight_settings(LIMITS, OPTIONS, rate_limits=RateLimits(), port=1, is_port_reserved=True)

    assert built == FlightServerSettings(
        host="127.0.0.2",
        port=1,
        is_port_reserved=True,
        max_rows=7,
        max_result_bytes=2 << 20,
        max_receive_bytes=4 << 20,
        max_metadata_bytes=16 << 10,
        max_concurrent_calls=11,
        max_calls_per_caller=8,
        read_timeout_seconds=14.0,
        connection_idle_seconds=None,
        connection_age_seconds=16.0,
        write_timeout_seconds=13.0,
        ingest=IngestSettings(
            max_bytes=6 << 20,
            max_concurrent=12,
            max_per_caller=2,
            max_tables_per_caller=3,
            idle_seconds=14.0,
            max_seconds=15.0,
        ),
    )


def test_the_pool_gets_its_limits() -> None:
    assert build_pool_settings(LIMITS, OPTIONS) == PoolSettings(
        max_executors=5,
        max_uploads=12,
        max_per_caller=3,
        queue_timeout_seconds=9.0,
        statement_timeout_seconds=None,
        write_timeout_seconds=13.0,
        memory_bytes=1000 << 20,
        max_ended_per_caller=4,
    )


def test_fewer_executors_are_kept_ready_where_each_is_a_new_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_limits, "can_fork", lambda: False)

    assert build_pool_settings(LIMITS, OPTIONS).spare_executors == 2


def test_executors_get_their_limits(tmp_path: Path) -> None:
    built = build_worker_options(
        LIMITS,
        memory_mib=1000,
        lake=tmp_path,
        denials_file=None,
        spill_directory=tmp_path / "spill",
        default_conditions={"log_entries": "level = 1"},
    )

    assert built == WorkerOptions(
        lake=str(tmp_path),
        denials_file=None,
        spill_directory=str(tmp_path / "spill"),
        memory_pool_bytes=500 << 20,
        data_limit_bytes=2000 << 20,
        spill_limit_bytes=3 << 20,
        max_statement_bytes=100,
        default_conditions={"log_entries": "level = 1"},
    )
