"""What a Flight SQL server that only reads says to calls that it does not offer: what it is, and what to do instead.

Which calls are offered is the server's decision; this is the wording for all others.
"""

from typing import Final

from micromegas_jupyter.errors import MicromegasError, StatementRefused, UnsupportedRequest

_MAX_NAME_LENGTH: Final = 80
_ONLY_READS: Final = "This server takes no updates: SQL only reads here."
_READ_INSTEAD: Final = "Run a reading statement as a query (execute, not executemany or execute_update)."
_NO_TRANSACTIONS: Final = "Leave transactions out (autocommit); each statement stands alone."
_SQL_INSTEAD: Final = "Send SQL."

_UPDATES: Final = frozenset({"CommandStatementUpdate", "CommandPreparedStatementUpdate"})
_REMEDIES: Final = {
    "CommandStatementSubstraitPlan": _SQL_INSTEAD,
    "CreatePreparedSubstraitPlan": _SQL_INSTEAD,
    "BeginTransaction": _NO_TRANSACTIONS,
    "EndTransaction": _NO_TRANSACTIONS,
    "BeginSavepoint": _NO_TRANSACTIONS,
    "EndSavepoint": _NO_TRANSACTIONS,
    "ListFlights": "List the tables with CommandGetTables.",
    "DoExchange": "Query with GetFlightInfo and DoGet.",
}


def refuse_command(name: str) -> MicromegasError:
    """Return the error for a command, by the name of its message."""
    if name in _UPDATES:
        return StatementRefused(_ONLY_READS, remedy=_READ_INSTEAD)
    return UnsupportedRequest(f"This server does not offer {printable_name(name)}.", remedy=_REMEDIES.get(name))


def refuse_action(name: str) -> UnsupportedRequest:
    """Return the error for an action, by its type."""
    what = f"This server does not offer the action {printable_name(name)}."
    return UnsupportedRequest(what, remedy=_REMEDIES.get(name))


def refuse_method(path: str) -> UnsupportedRequest:
    """Return the error for a method, by its path in gRPC."""
    remedy = _REMEDIES.get(path.rpartition("/")[2])
    return UnsupportedRequest(f"This server does not offer {printable_name(path)}.", remedy=remedy)


def printable_name(name: str) -> str:
    """Return a name that a caller sent so that it can stand in a sentence: short, printable ASCII."""
    return "".join(c if " " < c < "\x7f" else "?" for c in name[:_MAX_NAME_LENGTH])


def refuse_transaction() -> UnsupportedRequest:
    """Return the error for a statement that would belong to a transaction."""
    return UnsupportedRequest("This server has no transactions.", remedy=_NO_TRANSACTIONS)
