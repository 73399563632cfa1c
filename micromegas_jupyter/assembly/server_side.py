"""Joins validator, engine, lake, recorder and Flight service into a server that runs."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from micromegas_jupyter.access import validator_from_environment
from micromegas_jupyter.engine import DataFusionEngine, EngineSettings
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.lakehouse import Lake
from micromegas_jupyter.seams import SYSTEM_CLOCK
from micromegas_jupyter.server import FlightServerSettings, Recorder, ServerThread
from micromegas_jupyter.settings import LOOPBACK_HOSTS

if TYPE_CHECKING:
    from micromegas_jupyter.contracts import TokenValidator

DEFAULT_PORT = 50051
DEFAULT_MEMORY_MIB = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """How a server runs.

    Attributes:
        lake: The folder of its tables; made when missing.
        host: The address it listens on.
        port: The port, 0 for any free one.
        disable_auth: Everyone is administrator.
        insecure: Allow plain text, or no authentication, on an address that others can reach.
        certificate_file: PEM file of the certificate chain; with `key_file` the server speaks TLS.
        key_file: PEM file of the private key.
        memory_mib: Memory for queries, in MiB.
        record: Whether the server writes its own logs and measurements into the lake.
        program: The name under which it records itself.
    """

    lake: Path
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    disable_auth: bool = False
    insecure: bool = False
    certificate_file: Path | None = None
    key_file: Path | None = None
    memory_mib: int = DEFAULT_MEMORY_MIB
    record: bool = True
    program: str = "micromegas serve"
    properties: Mapping[str, str] = field(default_factory=dict)


class ServerStack:
    """A running server with its engine, lake and recorder; a context manager that starts and stops them.

    Raises:
        ConfigurationError: The options or the environment do not make a server that is safe to run.
    """

    def __init__(self, options: ServeOptions, *, environ: Mapping[str, str] | None = None) -> None:
        check_exposure(options)
        self.options = options
        self.validator: TokenValidator | None = (
            None if options.disable_auth else validator_from_environment(os.environ if environ is None else environ)
        )
        self.lake = Lake(options.lake)
        self._engine = DataFusionEngine(self.lake, EngineSettings(memory_limit_bytes=options.memory_mib * 1024 * 1024))
        self._recorder = (
            Recorder(self.lake, exe=options.program, clock=SYSTEM_CLOCK, properties=options.properties)
            if options.record
            else None
        )
        self._server = ServerThread(
            engine=self._engine,
            validator=self.validator,
            settings=FlightServerSettings(
                host=options.host,
                port=options.port,
                certificate_file=options.certificate_file,
                key_file=options.key_file,
            ),
            clock=SYSTEM_CLOCK,
        )

    @property
    def uri(self) -> str:
        """The server's address, once it runs."""
        return self._server.uri

    def start(self) -> None:
        """Start recording and serving; returns when the server answers.

        Raises:
            ConfigurationError: The address is taken or the certificate cannot be used.
        """
        if self._recorder is not None:
            self._recorder.start()
        try:
            self._server.start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Drain running calls, flush the recorder, release everything; safe to call twice."""
        self._server.stop()
        if self._recorder is not None:
            self._recorder.stop()
        self._engine.close()
        if self.validator is not None:
            self.validator.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def check_exposure(options: ServeOptions) -> None:
    """Check that a server which others can reach is encrypted and asks who is calling.

    Raises:
        ConfigurationError: It is not, and `insecure` was not given.
    """
    if (options.certificate_file is None) != (options.key_file is None):
        raise ConfigurationError(
            "TLS needs both a certificate and a key.",
            key="--tls-certificate",
            remedy="Give --tls-certificate and --tls-key.",
        )
    if options.host in LOOPBACK_HOSTS or options.insecure:
        return
    if options.disable_auth:
        raise ConfigurationError(
            f"--disable-auth would let everyone who reaches {options.host} read everything.",
            key="--disable-auth",
            remedy="Listen on 127.0.0.1, or add --insecure if you really mean it.",
        )
    if options.certificate_file is None:
        raise ConfigurationError(
            f"Tokens would cross the network to {options.host} in plain text.",
            key="--host",
            remedy="Give --tls-certificate and --tls-key, or add --insecure behind a TLS proxy.",
        )
