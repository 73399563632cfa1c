"""Keeps what libraries say about strangers' connections out of a server's log, and out of what it records of itself.

Anybody who reaches a port can provoke these lines, as often as they like, and none of them is in the log's own form.
"""

import logging
import os
from collections.abc import MutableMapping
from typing import Final

_LOG: Final = logging.getLogger("micromegas_jupyter.server")
_TORNADO: Final = logging.getLogger("tornado.general")
_VERBOSITY: Final = "GRPC_VERBOSITY"
# The beginning of what `tornado.iostream` logs with the file descriptor, the peer and the error.
_HANDSHAKE: Final = "SSL Error on "
_FACTS: Final = 3


def quiet_libraries(environ: MutableMapping[str, str] = os.environ) -> None:
    """Have gRPC write no lines of its own, and tell failed handshakes of the HTTP port in one line at DEBUG.

    Call it before gRPC is used. Whoever has set `GRPC_VERBOSITY` gets gRPC's own lines on standard error, as plain
    text; what matters to a server of them (a port that is taken, files that cannot be used) it is told otherwise.
    """
    environ.setdefault(_VERBOSITY, "NONE")
    _TORNADO.addFilter(_without_handshakes)


def _without_handshakes(record: logging.LogRecord) -> bool:
    if not (isinstance(record.msg, str) and record.msg.startswith(_HANDSHAKE)):
        return True
    facts = record.args if isinstance(record.args, tuple) and len(record.args) == _FACTS else (None, None, None)
    peer, error = facts[1], facts[2]
    why = getattr(error, "reason", None) or type(error).__name__
    client = peer[0] if isinstance(peer, tuple) and peer else None
    _LOG.debug("A connection to the HTTP port made no TLS.", extra={"client": client, "why": why})
    return False
