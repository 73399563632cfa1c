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
# The beginnings of what `tornado.iostream` logs of a connection, its error last, and what is said instead.
_SENTENCES: Final = {
    "SSL Error on ": "A connection to the HTTP port made no TLS.",
    "error on read": "A connection to the HTTP port broke while it was read.",
    "Write error on ": "A connection to the HTTP port broke while it was written to.",
}


def quiet_libraries(environ: MutableMapping[str, str] = os.environ) -> None:
    """Have gRPC write no lines of its own, and tell of connections to the HTTP port that fail in one line at DEBUG.

    Call it before gRPC is used. Whoever has set `GRPC_VERBOSITY` gets gRPC's own lines on standard error, as plain
    text; what matters to a server of them (a port that is taken, files that cannot be used) it is told otherwise.
    """
    environ.setdefault(_VERBOSITY, "NONE")
    _TORNADO.addFilter(_without_connections)


def _without_connections(record: logging.LogRecord) -> bool:
    said = str(record.msg)
    sentence = next((ours for beginning, ours in _SENTENCES.items() if said.startswith(beginning)), None)
    if sentence is None:
        return True
    facts = record.args if isinstance(record.args, tuple) else ()
    client = next((fact[0] for fact in facts if isinstance(fact, tuple) and fact), None)
    why = getattr(facts[-1] if facts else None, "reason", None) or record.getMessage().partition(": ")[2]
    _LOG.debug(sentence, extra={"client": client, "why": why})
    return False
