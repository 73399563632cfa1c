"""A small server for one program of this machine: a free port of loopback, one key, nothing recorded.

A server for others, with sign-ins and telemetry, is `server_side`'s.
"""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from micromegas_jupyter.access import ApiKeyValidator
from micromegas_jupyter.assembly.serve_options import ServeOptions
from micromegas_jupyter.assembly.server_limits import build_pool_settings, build_worker_options
from micromegas_jupyter.assembly.spill_directory import make_process_folder, remove_spilled_by_the_dead
from micromegas_jupyter.contracts import TableSource
from micromegas_jupyter.errors import Unavailable
from micromegas_jupyter.executors.pool import Pool
from micromegas_jupyter.executors.processes import open_launcher
from micromegas_jupyter.server import FlightServerSettings, ServerThread
from micromegas_jupyter.settings import ApiKeySetting, ServerLimits

KEY_NAME: Final = "local"
_SPARE_EXECUTORS: Final = 1


class LocalServer:
    """A running server; a context manager that starts and stops it.

    Args:
        source: The tables; the bearer of the key reads all of them.
        key_sha256: The SHA-256 digest (32 bytes) of the one key that is accepted.
        memory_mib: Memory of all statements together, in MiB.

    Raises:
        Unavailable: No temporary folder can be made.
    """

    def __init__(self, source: TableSource, *, key_sha256: bytes, memory_mib: int) -> None:
        self._source = source
        limits = ServerLimits()
        remove_spilled_by_the_dead(None)
        try:
            self._spill_folder = make_process_folder(None)
        except OSError as error:
            raise Unavailable(f"No folder for temporary files can be made: {error.strerror}.") from None
        options = build_worker_options(
            limits,
            memory_mib=memory_mib,
            lake=None,
            denials_file=None,
            spill_directory=self._spill_folder.path,
            default_conditions={},
        )
        serve_options = ServeOptions(lake=Path(), memory_mib=memory_mib, spare_executors=_SPARE_EXECUTORS)
        pool = Pool(
            open_launcher(options), source, settings=build_pool_settings(limits, serve_options), options=options
        )
        self._server = ServerThread(
            pool=pool,
            validator=ApiKeyValidator([ApiKeySetting(name=KEY_NAME, sha256=key_sha256)]),
            settings=FlightServerSettings(port=0),
        )

    @property
    def uri(self) -> str:
        """The server's address, once it runs."""
        return self._server.uri

    def table_names(self) -> Sequence[str]:
        """Return the names of the tables as they stand now.

        Raises:
            Unavailable: They cannot be listed.
        """
        return tuple(snapshot.name for snapshot in self._source.snapshot())

    def start(self) -> None:
        """Start serving; returns when the server answers.

        Raises:
            ConfigurationError: The address is taken.
        """
        self._server.start()

    def stop(self, grace_seconds: float = 0.0) -> None:
        """End running calls after `grace_seconds` and release everything."""
        self._server.stop(grace_seconds)
        self._spill_folder.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
