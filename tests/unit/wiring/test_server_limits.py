"""Limits reach the parts that keep them, in the units of those."""

from __future__ import annotations

from pathlib import Path

import pytest

from micromegas_jupyter.config.access import RateLimits
from micromegas_jupyter.config.server_limits import ServerLimits
from micromegas_jupyter.executors.settings import PoolSettings, WorkerOptions
from micromegas_jupyter.server import FlightServerSettings
from micromegas_jupyter.server.settings import IngestSettings
from micromegas_jupyter.wiring import server_limits
from micromegas_jupyter.wiring.serve_options import ServeOptions
from micromegas_jupyter.wiring.server_limits import build_flight_settings, build_pool_settings, build_worker_options

MIB = 1 << 20
OPTIONS = ServeOptions(lake=Path("lake"))


def _worker_options(limits: ServerLimits, *, memory_mib: int = 4096) -> WorkerOptions:
    return build_worker_options(
        limits,
        memory_mib=memory_mib,
        lake=None,
        denials_file=None,
        spill_directory=Path("/spill"),
        default_conditions={"t": "a"},
    )


def test_the_defaults_are_those_of_the_parts() -> None:
    flight = build_flight_settings(
        ServerLimits(), OPTIONS, rate_limits=RateLimits(), port=50051, is_port_reserved=False
    )

    assert flight == FlightServerSettings()
    # One server runs fewer statements at once than a pool by itself would.
    assert build_pool_settings(ServerLimits(), OPTIONS) == PoolSettings(max_executors=32)


def test_flight_gets_its_limits_in_its_own_units() -> None:
    limits = ServerLimits(
        max_rows=7,
        max_result_mib=2,
        max_message_mib=4,
        max_metadata_kib=16,
        max_calls=11,
        max_calls_per_caller=8,
        read_timeout_seconds=14,
        write_timeout_seconds=13,
        ticket_life_seconds=17,
        upload_seconds=15,
        connection_idle_seconds=0,
        connection_age_seconds=16,
        max_ingest_mib=6,
        max_ingests=12,
        max_ingests_per_caller=2,
        max_tables_per_caller=3,
    )

    found = build_flight_settings(limits, OPTIONS, rate_limits=RateLimits(), port=1, is_port_reserved=True)

    assert found == FlightServerSettings(
        port=1,
        is_port_reserved=True,
        max_rows=7,
        max_result_bytes=2 * MIB,
        max_receive_bytes=4 * MIB,
        max_metadata_bytes=16 << 10,
        max_concurrent_calls=11,
        max_calls_per_caller=8,
        read_timeout_seconds=14.0,
        write_timeout_seconds=13.0,
        ticket_life_seconds=17.0,
        connection_idle_seconds=None,
        connection_age_seconds=16.0,
        ingest=IngestSettings(
            max_bytes=6 * MIB,
            max_concurrent=12,
            max_per_caller=2,
            max_tables_per_caller=3,
            idle_seconds=14.0,
            max_seconds=15.0,
        ),
    )


def test_the_pool_gets_its_limits_in_its_own_units() -> None:
    limits = ServerLimits(
        query_timeout_seconds=0,
        max_queries=5,
        max_queries_per_caller=3,
        max_ended_per_caller=4,
        queue_timeout_seconds=9,
        write_timeout_seconds=13,
        max_ingests=12,
    )

    found = build_pool_settings(limits, ServeOptions(lake=Path("lake"), memory_mib=100, spare_executors=2))

    assert found == PoolSettings(
        max_executors=5,
        spare_executors=2,
        max_uploads=12,
        max_per_caller=3,
        queue_timeout_seconds=9.0,
        statement_timeout_seconds=None,
        write_timeout_seconds=13.0,
        memory_bytes=100 * MIB,
        max_ended_per_caller=4,
    )


def test_where_processes_start_slowly_few_are_started_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_limits, "can_fork", lambda: False)

    assert build_pool_settings(ServerLimits(), OPTIONS).spare_executors == 2


def test_executors_get_their_limits_in_their_own_units() -> None:
    limits = ServerLimits(statement_memory_mib=1600, spill_mib=3, max_statement_bytes=100)

    assert _worker_options(limits) == WorkerOptions(
        lake=None,
        denials_file=None,
        spill_directory="/spill",
        memory_pool_bytes=400 * MIB,
        data_limit_bytes=1600 * MIB,
        spill_limit_bytes=3 * MIB,
        max_statement_bytes=100,
        default_conditions={"t": "a"},
    )


@pytest.mark.parametrize(("memory_mib", "pool_mib"), [(8192, 512), (1024, 512), (512, 256), (100, 50)])
def test_a_statement_spills_before_it_is_ended_for_its_memory(memory_mib: int, pool_mib: int) -> None:
    assert _worker_options(ServerLimits(), memory_mib=memory_mib).memory_pool_bytes == pool_mib * MIB


def test_paths_are_absolute_wherever_executors_run() -> None:
    found = build_worker_options(
        ServerLimits(),
        memory_mib=1,
        lake=Path("lake"),
        denials_file=Path("/lake/query_denials.json"),
        spill_directory=Path("/spill"),
        default_conditions={},
    )

    assert (found.lake, found.denials_file) == (str(Path("lake").absolute()), "/lake/query_denials.json")
