"""Hands an administrator's limits to the parts that keep them."""

from collections.abc import Mapping
from dataclasses import replace

from micromegas_jupyter.assembly.spill_directory import check_spill_directory
from micromegas_jupyter.engine import EngineSettings, default_heavy_statements, processor_count
from micromegas_jupyter.server import FlightServerSettings
from micromegas_jupyter.settings import ServerLimits, parse_server_limits

_MIB = 1024 * 1024


def read_server_limits(environ: Mapping[str, str]) -> ServerLimits:
    """Return the limits that the variables set.

    Raises:
        ConfigurationError: One is malformed, or nothing can be written to the spill directory.
    """
    limits = parse_server_limits(environ)
    check_spill_directory(limits.spill_directory)
    return limits


def share_processors(limits: ServerLimits, workers: int) -> ServerLimits:
    """Return the limits of one of several workers, which leave the machine its processors for small queries.

    A number of heavy queries that somebody set counts for each worker by itself, and is left as it is.
    """
    heavy = limits.max_heavy_queries or max(1, default_heavy_statements() // max(1, workers))
    return replace(limits, max_heavy_queries=heavy)


def medium_queries_of(workers: int) -> int:
    """Return how many queries that are known to work for a while one of several workers runs at once."""
    return max(1, default_heavy_statements() // max(1, workers))


def partitions_of(workers: int) -> int | None:
    """Return in how many partitions a query of one of several workers runs; None for one per processor."""
    return None if workers <= 1 else max(1, processor_count() // workers)


def limit_flight(settings: FlightServerSettings, limits: ServerLimits) -> FlightServerSettings:
    """Return `settings` with the limits of calls and queries."""
    return replace(
        settings,
        query_timeout_seconds=float(limits.query_timeout_seconds) or None,
        max_rows=limits.max_rows or None,
        max_result_bytes=limits.max_result_mib * _MIB or None,
        max_concurrent_queries=limits.max_queries,
        max_queries_per_caller=limits.max_queries_per_caller,
        max_heavy_queries=limits.max_heavy_queries or None,
        admission_wait_seconds=float(limits.queue_seconds),
        max_receive_bytes=limits.max_message_mib * _MIB,
        max_metadata_bytes=limits.max_metadata_kib * 1024,
        max_concurrent_calls=limits.max_calls,
        max_calls_per_caller=limits.max_calls_per_caller,
        silent_client_seconds=float(limits.silent_client_seconds),
        ticket_life_seconds=float(limits.ticket_life_seconds),
        connection_idle_seconds=float(limits.connection_idle_seconds) or None,
        connection_age_seconds=float(limits.connection_age_seconds) or None,
        stalled_write_seconds=float(limits.stalled_client_seconds),
        ingest=replace(
            settings.ingest,
            max_bytes=limits.max_ingest_mib * _MIB,
            max_concurrent=limits.max_ingests,
            max_per_caller=limits.max_ingests_per_caller,
            max_tables_per_caller=limits.max_tables_per_caller,
            idle_seconds=float(limits.silent_client_seconds),
            max_seconds=float(limits.upload_seconds),
        ),
    )


def limit_engine(settings: EngineSettings, limits: ServerLimits) -> EngineSettings:
    """Return `settings` with the limits of spilling and of a statement's length."""
    return replace(
        settings,
        heavy_statements=limits.max_heavy_queries or None,
        spill_limit_bytes=limits.spill_mib * _MIB,
        max_statement_bytes=limits.max_statement_bytes,
    )
