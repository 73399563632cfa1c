"""What a caller gets from an engine behind the gateway, over worlds that differ only in hidden rows."""

from micromegas_jupyter.core.protocols import TableAccess
from micromegas_jupyter.errors import MicromegasError
from micromegas_jupyter.gateway.rewrite import rewrite, try_plan
from tests.unit.engine.hidden_worlds import CONDITIONS, SCHEMAS, statements


def forwarded(sql, condition, dialect):
    """Return the text that an engine gets, or the error that the caller gets instead."""
    access = TableAccess(filters={"logs": (condition,), "other": ("exe = 'x'",)})
    try:
        found = rewrite(sql, access=access, tables=SCHEMAS, dialect=dialect)
        try_plan(found, sql=sql, tables=SCHEMAS, dialect=dialect, hides_values=True)
    except MicromegasError as error:
        return error
    return found.sql


def differences(engines, dialect, count):
    """Run statements in each world; return those that differ, how many returned rows, and how many failed there."""
    different, succeeded, failed = [], 0, 0
    for number, sql in enumerate(statements(seed=32, count=count)):
        text = forwarded(sql, CONDITIONS[number % len(CONDITIONS)], dialect)
        if isinstance(text, MicromegasError):
            continue
        found = [_outcome(run, text) for run in engines]
        failed += found[0] is None
        succeeded += found[0] is not None
        if found[0] != found[1]:
            different.append((sql[:300], text[:300], str(found)[:300]))
    return different, succeeded, failed


def _outcome(run, text):
    """Return the rows, or None when the engine fails: the gateway shows no reason to a caller who sees some rows."""
    try:
        return [str(row) for row in run(text).to_pylist()]
    except Exception:  # noqa: BLE001 - an engine's own error
        return None
