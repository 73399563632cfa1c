"""A client that an organization's own module makes, behind the interface of this package's client.

`MICROMEGAS_PYTHON_MODULE_WRAPPER` names the module. Its `connect()` may return this package's client, upstream's, or
anything with `query_stream` or `query`.
"""

import importlib
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NoReturn

import pyarrow as pa

from micromegas_jupyter.client.calls import Call, Credential, CredentialSource
from micromegas_jupyter.client.flight_client import FlightSQLClient, QueryMethods, TimeArgument, format_time_range
from micromegas_jupyter.client.parameters import Params
from micromegas_jupyter.client.query_reader import Attempts, QueryReader, check_timeout
from micromegas_jupyter.client.transport import translate_failure
from micromegas_jupyter.config.client import WRAPPER_VARIABLE
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock
from micromegas_jupyter.errors import (
    ConfigurationError,
    InternalError,
    MicromegasError,
    UnsupportedRequest,
    UsageError,
)

DEPRECATION_NOTICE: Final = (
    f"{WRAPPER_VARIABLE} is deprecated: the wrapper's client is used and all other settings are ignored. Move what it "
    "sets to config.json or variables, then unset it; see the guide's page on migration."
)

_MODULE_NAME: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
_MAX_NAME_CHARACTERS: Final = 200


def wrapped_client(
    environ: Mapping[str, str] | None = None, *, clock: Clock = SYSTEM_CLOCK
) -> "FlightSQLClient | WrappedClient | None":
    """Return the client of the configured wrapper module, with a `FutureWarning`; None when there is no wrapper."""
    name = (os.environ if environ is None else environ).get(WRAPPER_VARIABLE)
    if not name:
        return None
    connect = getattr(_imported(name), "connect", None)
    if not callable(connect):
        raise _unusable("The wrapper module has no function connect().")
    try:
        made = connect()
    except Exception as error:
        raise _unusable(f"The wrapper module's connect() failed ({type(error).__name__}).") from error
    if not callable(getattr(made, "query_stream", None)) and not callable(getattr(made, "query", None)):
        raise _unusable("The wrapper module's connect() returned something that is not a client: it has no query.")
    warnings.warn(DEPRECATION_NOTICE, FutureWarning, stacklevel=3)
    return made if isinstance(made, FlightSQLClient) else WrappedClient(made, clock=clock)


class WrappedClient(QueryMethods):
    """Runs statements through another client; other attributes are that client's."""

    def __init__(self, inner: Any, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._inner = inner
        self._clock = clock

    def open_query(  # noqa: PLR0913 - the arguments of `FlightSQLClient.open_query`
        self,
        sql: str,
        begin: TimeArgument = None,
        end: TimeArgument = None,
        params: Params = None,
        *,
        limit: int | None = None,
        timeout_seconds: float | None = None,
    ) -> QueryReader:
        """Start a statement and return a reader of its batches; `limit` ends the reading here."""
        if params:
            raise UsageError(
                "The wrapper's client does not support parameters.",
                remedy="Write the values into the statement, or unset MICROMEGAS_PYTHON_MODULE_WRAPPER.",
            )
        check_timeout(timeout_seconds)
        begin_text, end_text = format_time_range(begin, end, now=self._clock.now())

        def open_stream(call: Call) -> "_ForeignStream":
            return _ForeignStream(_batches(self._inner, sql, begin_text, end_text), call, limit=limit)

        attempts = Attempts(CredentialSource(None), clock=self._clock, may_repeat=False)
        return QueryReader(attempts, self._call, open_stream, clock=self._clock)

    def whoami(self) -> NoReturn:
        """Raise `UnsupportedRequest`."""
        raise UnsupportedRequest("The wrapper's client cannot ask who you are.", remedy="Queries work all the same.")

    def list_tables(self, *, timeout_seconds: float | None = None) -> NoReturn:  # noqa: ARG002 - the client's signature
        """Raise `UnsupportedRequest`."""
        raise UnsupportedRequest(
            "The wrapper's client cannot list tables.", remedy="Query information_schema.tables instead."
        )

    def on_notice(self, callback: Callable[[str], None]) -> None:
        """Do nothing: another client has no notices."""

    def close(self) -> None:
        """Close the other client, if it can be closed."""
        close = getattr(self._inner, "close", None)
        if callable(close):
            close()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._inner, name)

    def _call(self, credential: Credential) -> Call:
        return Call(server="the wrapper's server", credential=credential, started_at=self._clock.now())


class _ForeignStream:
    """The batches of another client's answer; the first is fetched at once, because it has the schema."""

    def __init__(self, batches: Iterator[pa.RecordBatch], call: Call, *, limit: int | None) -> None:
        self._batches = batches
        self._call = call
        self._rows_left = limit
        self._is_cancelled = False
        self._waiting = self._next()

    @property
    def schema(self) -> pa.Schema:
        """The first batch's schema; without a batch there are no columns."""
        return pa.schema([]) if self._waiting is None else self._waiting.schema

    def read_batch(self) -> pa.RecordBatch | None:
        """Return the next batch, None at the end or once cancelled."""
        batch, self._waiting = self._waiting, None
        if batch is None and not self._is_cancelled:
            batch = self._next()
        if batch is None or self._rows_left is None:
            return batch
        batch = batch.slice(0, self._rows_left)
        self._rows_left -= batch.num_rows
        return batch if batch.num_rows else None

    def cancel(self) -> None:
        """Ask for no further batch."""
        self._is_cancelled = True

    def close(self) -> None:
        """Do nothing: the other client's answer ends with its iterator."""

    def _next(self) -> pa.RecordBatch | None:
        try:
            return next(self._batches, None)
        except (pa.ArrowException, MicromegasError) as error:
            raise translate_failure(error, self._call) from error
        except Exception as error:
            # What another's code raises may hold anything.
            raise InternalError(
                f"The wrapper's client failed ({type(error).__name__}).", remedy="Ask the wrapper's maintainer."
            ) from error


def _batches(inner: Any, sql: str, begin: str | None, end: str | None) -> Iterator[pa.RecordBatch]:
    if callable(getattr(inner, "query_stream", None)):
        yield from inner.query_stream(sql, begin, end)
    else:
        yield from pa.Table.from_pandas(inner.query(sql, begin, end), preserve_index=False).to_batches()


def _imported(name: str) -> Any:
    if len(name) > _MAX_NAME_CHARACTERS or not _MODULE_NAME.fullmatch(name):
        raise _unusable(f"{WRAPPER_VARIABLE} is not the name of a module.")
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise _unusable(f"The wrapper module {name} cannot be imported ({type(error).__name__}).") from error


def _unusable(what: str) -> ConfigurationError:
    return ConfigurationError(
        what, key=WRAPPER_VARIABLE, remedy=f"Correct {WRAPPER_VARIABLE}, or unset it to use the other settings."
    )
