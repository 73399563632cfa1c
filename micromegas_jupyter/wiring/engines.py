"""Creates the engine that statements are forwarded to, checks the SQL parser's version, and warns of open engines."""

import logging
import socket
from importlib.metadata import version
from pathlib import Path
from typing import Final

import psutil

from micromegas_jupyter.config.access import AccessSettings
from micromegas_jupyter.config.server import EMBEDDED, ServerSettings
from micromegas_jupyter.core.files import FileProblem, read_shared_file
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.core.text import is_loopback
from micromegas_jupyter.errors import ConfigurationError, extra
from micromegas_jupyter.gateway.backend import Engine, EngineAddress, EngineSettings
from micromegas_jupyter.gateway.tables import EngineTables

_LOG: Final = logging.getLogger("micromegas_jupyter.gateway")
_MAX_TOKEN_BYTES: Final = 16 * 1024
_MAX_CA_BYTES: Final = 1024 * 1024
_CONNECT_SECONDS: Final = 0.5
#: Other versions parse or generate some statements differently, and the output determines the rows that a caller sees.
SQLGLOT_VERSION: Final = "30.31.0"


def check_sql_parser() -> None:
    """Raise an error unless the parser that rewrites statements is the tested version."""
    with extra("server"):
        found = version("sqlglot")
    if found != SQLGLOT_VERSION:
        raise ConfigurationError(
            f"Row filters rely on sqlglot {SQLGLOT_VERSION}, but {found} is installed.",
            key="sqlglot",
            remedy=f"Run: pip install sqlglot=={SQLGLOT_VERSION}",
        )


def build_engine(settings: ServerSettings) -> EngineTables | None:
    """Return the tables of the configured engine, or None for the embedded one."""
    if settings.engine == EMBEDDED:
        return None
    address = EngineAddress.parse(settings.engine)
    token = None
    if settings.engine_token_file is not None:
        text = _read(settings.engine_token_file, "--engine-token-file", _MAX_TOKEN_BYTES).decode("utf-8", "replace")
        token = Secret(text.strip())
        if not text.strip().isascii() or not text.strip().isprintable() or not text.strip():
            raise ConfigurationError(
                "The engine's token is not a single line of printable characters.",
                key="--engine-token-file",
                remedy="Write only the token to the file.",
            )
    if settings.engine_user and token is None:
        raise ConfigurationError(
            "The engine's user has no password.",
            key="--engine-user",
            remedy="Specify a file that contains it with --engine-token-file.",
        )
    ca = None
    if settings.engine_ca is not None:
        ca = _read(settings.engine_ca, "--engine-ca", _MAX_CA_BYTES)
        if not address.is_tls:
            raise ConfigurationError(
                "Engine certificates require TLS.", key="--engine-ca", remedy="Use grpc+tls://host:port."
            )
    return EngineTables(
        Engine(
            EngineSettings(
                address=address,
                dialect=settings.engine_dialect,
                user=settings.engine_user or None,
                token=token,
                ca=ca,
                silence_seconds=float(settings.engine_timeout_seconds),
            )
        )
    )


def check_no_scan_limit(access: AccessSettings) -> None:
    """Check that no role limits a statement's reads, which are unknown with an engine."""
    for name, role in (access.roles or {}).items():
        if role.max_scan_bytes is not None:
            raise ConfigurationError(
                f"The role {name!r} has max_scan_bytes, but this server can't estimate how much its engine reads.",
                key=f"roles.{name}.max_scan_bytes",
                remedy="Remove max_scan_bytes from the role, or omit --engine.",
            )


def warn_of_open_engine(engine: EngineTables) -> None:
    """Warn if others can read the engine's rows directly; check this machine for at most a few seconds."""
    settings = engine.engine.settings
    address = settings.address
    if is_loopback(address.host):
        if _listens_beyond_loopback(address.port):
            _LOG.warning(
                "the engine's port is open to others than this machine, past all rights that this server checks",
                extra={"port": address.port, "remedy": "Have the engine listen on 127.0.0.1, or close its port."},
            )
        return
    if not address.is_tls:
        _LOG.warning(
            "what the engine is asked and answers crosses the network in plain text",
            extra={"engine": address.target, "remedy": "Use grpc+tls://, or a private network."},
        )
    if settings.token is None:
        _LOG.warning(
            "the engine asks this server for no token, so whoever reaches its port reads everything",
            extra={"engine": address.target, "remedy": "Let only this server reach it: by a token or the network."},
        )


def _listens_beyond_loopback(port: int) -> bool:
    """Whether a program accepts connections on a port of one of this machine's other addresses."""
    for found in psutil.net_if_addrs().values():
        for one in found:
            if one.family is socket.AF_INET and not is_loopback(one.address):
                try:
                    socket.create_connection((one.address, port), _CONNECT_SECONDS).close()
                except OSError:
                    continue
                return True
    return False


def _read(path: Path, key: str, max_bytes: int) -> bytes:
    try:
        return read_shared_file(path, max_bytes=max_bytes)[0]
    except FileProblem as problem:
        raise ConfigurationError(
            f"The file cannot be read: {problem}.", key=key, remedy="Use a file that this server's user can read."
        ) from None
