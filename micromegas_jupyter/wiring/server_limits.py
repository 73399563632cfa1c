"""Hands an administrator's limits to the parts that keep them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from micromegas_jupyter.config.access import RateLimits
from micromegas_jupyter.config.server_limits import ServerLimits
from micromegas_jupyter.executors.processes import can_fork
from micromegas_jupyter.executors.settings import PoolSettings, WorkerOptions
from micromegas_jupyter.server import FlightServerSettings
from micromegas_jupyter.server.settings import IngestSettings
from micromegas_jupyter.wiring.serve_options import ServeOptions

_MIB: Final = 1024 * 1024
_MAX_POOL_MIB: Final = 512
#: Each takes two seconds to start where there is no fork.
_SPAWNED_SPARES: Final = 2


def build_worker_options(  # noqa: PLR0913 - all that executors are told
    limits: ServerLimits,
    *,
    memory_mib: int,
    lake: Path | None,
    denials_file: Path | None,
    spill_directory: Path,
    default_conditions: Mapping[str, str],
) -> WorkerOptions:
    """Return what all executors have in common."""
    return WorkerOptions(
        lake=None if lake is None else str(lake.absolute()),
        denials_file=None if denials_file is None else str(denials_file),
        spill_directory=str(spill_directory),
        # Half of what all may take: a statement is to spill before the largest is ended for its memory.
        memory_pool_bytes=min(_MAX_POOL_MIB, limits.statement_memory_mib // 4, memory_mib // 2) * _MIB,
        data_limit_bytes=limits.statement_memory_mib * _MIB,
        spill_limit_bytes=limits.spill_mib * _MIB,
        max_statement_bytes=limits.max_statement_bytes,
        default_conditions=dict(default_conditions),
    )


def build_pool_settings(limits: ServerLimits, options: ServeOptions) -> PoolSettings:
    """Return how many executors there are, and what they may take together."""
    spare = options.spare_executors if can_fork() else min(options.spare_executors, _SPAWNED_SPARES)
    return PoolSettings(
        max_executors=limits.max_queries,
        spare_executors=spare,
        max_uploads=limits.max_ingests,
        max_per_caller=limits.max_queries_per_caller,
        queue_timeout_seconds=float(limits.queue_timeout_seconds),
        statement_timeout_seconds=float(limits.query_timeout_seconds) or None,
        write_timeout_seconds=float(limits.write_timeout_seconds),
        memory_bytes=options.memory_mib * _MIB,
        max_ended_per_caller=limits.max_ended_per_caller,
    )


def build_flight_settings(
    limits: ServerLimits, options: ServeOptions, *, rate_limits: RateLimits, port: int, is_port_reserved: bool
) -> FlightServerSettings:
    """Return how the Flight server listens, and the limits of calls."""
    return FlightServerSettings(
        host=options.host,
        port=port,
        is_port_reserved=is_port_reserved,
        certificate_file=options.certificate_file,
        key_file=options.key_file,
        client_ca_file=options.client_ca_file,
        trusted_proxies=options.trusted_proxies,
        rate_limits=rate_limits,
        max_rows=limits.max_rows or None,
        max_result_bytes=limits.max_result_mib * _MIB or None,
        max_receive_bytes=limits.max_message_mib * _MIB,
        max_metadata_bytes=limits.max_metadata_kib * 1024,
        max_concurrent_calls=limits.max_calls,
        max_calls_per_caller=limits.max_calls_per_caller,
        read_timeout_seconds=float(limits.read_timeout_seconds),
        write_timeout_seconds=float(limits.write_timeout_seconds),
        ticket_life_seconds=float(limits.ticket_life_seconds),
        connection_idle_seconds=float(limits.connection_idle_seconds) or None,
        connection_age_seconds=float(limits.connection_age_seconds) or None,
        ingest=IngestSettings(
            max_bytes=limits.max_ingest_mib * _MIB,
            max_concurrent=limits.max_ingests,
            max_per_caller=limits.max_ingests_per_caller,
            max_tables_per_caller=limits.max_tables_per_caller,
            idle_seconds=float(limits.read_timeout_seconds),
            max_seconds=float(limits.upload_seconds),
        ),
    )
