"""A small server for one program of this machine: a free port of loopback, one key, nothing recorded.

A server for others, with sign-ins and telemetry, is `server_side`'s.
"""

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from micromegas_jupyter.access import ApiKeyValidator
from micromegas_jupyter.contracts import TableSource
from micromegas_jupyter.engine import DataFusionEngine, EngineSettings
from micromegas_jupyter.server import FlightServerSettings, ServerThread
from micromegas_jupyter.settings import ApiKeySetting

if TYPE_CHECKING:
    from micromegas_jupyter.engine.leftovers import LeftoverEvents
    from micromegas_jupyter.engine.owner import QueryOwner
    from micromegas_jupyter.server.neighbours import Neighbours
    from micromegas_jupyter.server.running_queries import CancelStatus

KEY_NAME: Final = "local"


class LocalServer:
    """A running server; a context manager that starts and stops it.

    Args:
        source: The tables; the bearer of the key reads all of them.
        key_sha256: The SHA-256 digest (32 bytes) of the one key that is accepted.
        memory_mib: Memory for queries, in MiB.
        port: The port to listen on, 0 for any free one.
        neighbours: The other processes on that port; None when it is this one's alone.
        leftover_events: Told of cancelled work that goes on.
    """

    def __init__(  # noqa: PLR0913 - the parts that a server is made of
        self,
        source: TableSource,
        *,
        key_sha256: bytes,
        memory_mib: int,
        port: int = 0,
        neighbours: "Neighbours | None" = None,
        leftover_events: "LeftoverEvents | None" = None,
    ) -> None:
        self._source = source
        self._engine = DataFusionEngine(
            source, EngineSettings(memory_limit_bytes=memory_mib * 1024 * 1024), leftover_events=leftover_events
        )
        self._server = ServerThread(
            engine=self._engine,
            validator=ApiKeyValidator([ApiKeySetting(name=KEY_NAME, sha256=key_sha256)]),
            settings=FlightServerSettings(port=port, share_port=neighbours is not None),
            neighbours=neighbours,
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
        try:
            self._server.start()
        except BaseException:
            self._engine.close()
            raise

    def cancel_query(self, key: bytes) -> "CancelStatus":
        """Cancel a query of this process by its key, for another process on the same port."""
        return self._server.cancel_query(key)

    def running_queries(self) -> "Sequence[QueryOwner]":
        """Return the queries that run in this process, as far as it is known whose they are."""
        return self._engine.running_queries()

    def has_turned(self) -> bool:
        """Whether the server's event loop has turned since the last call."""
        return self._server.has_turned()

    def stop(self, grace_seconds: float = 0.0, *, why: str = "") -> None:
        """End running calls after `grace_seconds`, telling them `why`, and release everything."""
        self._server.stop(grace_seconds, why=why)
        self._engine.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
