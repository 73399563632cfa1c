"""Every error of the package: one tree, each class with one code, a remedy, and how it leaves the process.

What happened and what to do next travel together, so that the same class reaches a notebook cell, a terminal and a
remote client. A docstring says what an error means and what to do, with links to pages of docs/; docs/errors.md and
`micromegas explain CODE` show it.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, ClassVar, Final, NamedTuple, Self

#: Where it is documented what only Micromegas's own server has.
UPSTREAM_ONLY_PAGE: Final = 'See "What of Micromegas isn\'t here" in docs/migration.md.'


class Error(Exception):
    """Base of the errors of PEP 249 (DB-API); each class below is also one of these, and only those are raised."""


class InterfaceError(Error):
    """PEP 249: the fault is in how this package was set up."""


class DatabaseError(Error):
    """PEP 249: base of the errors of a server or a statement."""


class DataError(DatabaseError):
    """PEP 249: never raised; a value that is wrong in a statement is a `ProgrammingError`."""


class OperationalError(DatabaseError):
    """PEP 249: sign-in, availability, limits."""


class IntegrityError(DatabaseError):
    """PEP 249: never raised; tables have no constraints."""


class ProgrammingError(DatabaseError):
    """PEP 249: the statement or the call is wrong, or not permitted."""


class NotSupportedError(DatabaseError):
    """PEP 249: the server does not support this."""


class MicromegasError(Error):
    """Base of every error that this package raises on purpose; never raised as such.

    Args:
        what: One sentence: what happened. Never holds a secret, a path of the server or a traceback.
        remedy: What to do next; the class's general remedy when left out.
        query_id: The query that the error belongs to, when there is one.
    """

    sign_in_service: str | None = None  # the service that should have signed the user in: `JupyterHub`
    code: ClassVar[str] = "ERR000"
    default_remedy: ClassVar[str] = ""
    retryable: bool = False  # whether the same call may work later
    grpc_code: ClassVar[str] = "INTERNAL"
    http_status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, remedy: str | None = None, query_id: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = self.default_remedy if remedy is None else remedy
        self.query_id = query_id

    def _deprecated_service(self) -> str | None:
        warnings.warn("Use `sign_in_service` instead of `giver`.", DeprecationWarning, stacklevel=2)
        return self.sign_in_service

    giver: Any = property(_deprecated_service)

    def __str__(self) -> str:
        return f"{self.what} {self.remedy}".strip()

    def copy(self) -> Self:
        """Return an equal error without a traceback, for another caller who waited for the same result."""
        copied = type(self).__new__(type(self), *self.args)
        copied.__dict__.update(self.__dict__)
        copied.__cause__ = self.__cause__
        return copied


class ConfigurationError(MicromegasError, InterfaceError, ValueError):
    """A setting is missing or malformed; the message and `key` specify which one.

    Nothing starts with an invalid setting. Correct the named variable, option or line of `config.json`.
    """

    code = "CONF001"
    default_remedy = "Correct the setting and start again."
    grpc_code = "FAILED_PRECONDITION"
    exit_code = 2

    def __init__(self, what: str, *, key: str, remedy: str | None = None) -> None:
        super().__init__(what, remedy=remedy)
        self.key = key


class MissingPackage(ConfigurationError):
    """A package that this needs is not installed; the message has the command that installs it.

    `pip install .` brings the notebook and terminal client. A server, the demo, charts, and polars are extras.
    """

    code = "CONF002"
    default_remedy = "Install it with pip."

    def __init__(self, what: str, *, key: str = "", remedy: str | None = None) -> None:
        super().__init__(what, key=key, remedy=remedy)


@contextmanager
def extra(*names: str) -> Iterator[None]:
    """Raise `MissingPackage` for an import that fails inside: it comes with these extras, or else with the client."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package == __package__:
            raise
        wanted = [f"'{__package__}[{name}]'" for name in names] or [str(__package__)]
        raise MissingPackage(
            f"The package {package} is not installed.", key=package, remedy=f"Run: pip install {' '.join(wanted)}"
        ) from None


class UsageError(MicromegasError, ProgrammingError):
    """A call, magic or command line cannot be understood."""

    code = "USE001"
    grpc_code = "INVALID_ARGUMENT"
    http_status = 400
    exit_code = 2


class TableExists(UsageError):
    """A table of that name already exists, or has other columns than the rows; nothing was stored.

    Append to it, replace it, or choose another name.
    """

    code = "USE002"
    default_remedy = 'Append to it (mode "append"), or choose another name.'
    grpc_code = "ALREADY_EXISTS"
    http_status = 409


class AuthenticationError(MicromegasError, OperationalError):
    """Base of the errors that mean that there is no usable credential; never raised as such."""

    code = "AUTH000"
    default_remedy = "Run %micromegas_login in a notebook or `micromegas login` in a terminal."
    grpc_code = "UNAUTHENTICATED"
    http_status = 401
    exit_code = 3


class LoginRequired(AuthenticationError):
    """No user is signed in, or the stored sign-in has expired.

    Run `%micromegas_login` or `micromegas login`. An unattended program (nbconvert, papermill, a job) cannot do that:
    give it a workload identity, a private key or a client secret ([Service accounts](service-accounts.md)), or sign in
    beforehand on the same machine. If JupyterHub should have signed you in, the message explains why it didn't and
    what to change in the Hub; in Python, the error's `sign_in_service` is then `JupyterHub`.
    """

    code = "AUTH001"


class LoginFailed(AuthenticationError):
    """A sign-in finished without a token.

    It was canceled, the fixed port is taken, no pasted address matched, or the provider does not accept the
    application; `provider_code` is the provider's error code, when it gave one (RFC 6749 section 5.2). Start it again.
    For a program: the provider does not accept its secret or key, or its platform does not issue a token ([when a
    service account does not work](service-accounts.md#troubleshoot-a-service-account)).
    """

    code = "AUTH002"
    provider_code: str | None = None
    default_remedy = "Start the sign-in again."


class LoginTimedOut(LoginFailed):
    """The sign-in was not completed in time.

    That is five minutes for the provider's page, ten for pasting its address, and as long as the provider says for a
    code, at most half an hour. Start again; the page or code of the earlier attempt no longer works.
    """

    code = "AUTH003"


class LoginRefused(LoginFailed):
    """The provider or the user denied the sign-in, in the browser, on the device page, or in the pasted address.

    If the provider gave a reason, it is shown.
    """

    code = "AUTH004"


class ProviderMisbehaved(AuthenticationError):
    """The provider's response violates the protocol or does not belong to this sign-in; nothing was stored.

    It has another issuer, a wrong `state` or `nonce`, a token with a wrong signature, is a redirect, or something other
    than JSON; or the provider does not support device codes. A pasted address from another provider also causes it; you
    can paste again. Check `MICROMEGAS_OIDC_ISSUER`, and whether a proxy responds instead of the provider. For a
    program, the response may not have come from its platform, or the token is for a different audience.
    """

    code = "AUTH005"
    default_remedy = "Check the issuer setting; if it is right, contact the administrator of the identity provider."


class TokenStoreError(AuthenticationError):
    """The token file or the keyring cannot be used safely.

    The file is a symbolic link, belongs to another user, or is not a file: check it, fix or remove it, and sign in
    again. Or the sign-in is in the system's keyring, which cannot be used: unlock it, or set `token_storage` to `file`
    and sign in again ([the keyring](how-sign-in-works.md#the-keyring)).
    """

    code = "AUTH006"
    default_remedy = "Check the named file, fix or remove it, and sign in again."


class Rejected(AuthenticationError):
    """The server does not accept the credential.

    Its response is the same for every reason; the reason is in its audit log. The message adds what the client knows
    about the token, for example that it has expired or that this machine's clock is wrong. Sign in again, or give the
    query ID to the server's administrator. For administrators: `micromegas access explain` shows why a token is
    rejected ([reasons](access-reasons.md)).

    Args:
        what: One sentence: what happened.
        reason: A fixed code, for the audit log only.
        remedy: What to do next.
        query_id: The query that the error belongs to, when there is one.
    """

    code = "AUTH010"
    default_remedy = "Sign in again, or contact the server's administrator about accepted tokens."

    def __init__(
        self,
        what: str = "The server does not accept this credential.",
        *,
        reason: str = "rejected",
        remedy: str | None = None,
        query_id: str | None = None,
    ) -> None:
        super().__init__(what, remedy=remedy, query_id=query_id)
        self.reason = reason


class PermissionDenied(MicromegasError, ProgrammingError):
    """You are signed in but may not do this.

    You act on behalf of another user, read with a key that is for ingestion only, write to a table that is not yours,
    or reload the server's configuration without being an administrator. `reason` is a fixed code for the audit log.
    """

    code = "AUTH020"
    default_remedy = "Ask the server's administrator for the right."
    grpc_code = "PERMISSION_DENIED"
    http_status = 403

    def __init__(
        self, what: str, *, reason: str = "forbidden", remedy: str | None = None, query_id: str | None = None
    ) -> None:
        super().__init__(what, remedy=remedy, query_id=query_id)
        self.reason = reason


class ReadOnlyCall(PermissionDenied):
    """The call is read-only, and it would have changed something; nothing was changed.

    An agent made the call, or it has the header `x-micromegas-read-only: true`
    ([read-only calls](flight-sql.md#read-only-calls)). Administrators can't change anything in such a call, either. To
    make the change, repeat it over a connection that isn't read-only. It is a `PermissionDenied`.
    """

    code = "AUTH021"
    default_remedy = "If you want this change, make it yourself over a connection that isn't read-only."


class Unavailable(MicromegasError, OperationalError):
    """A required component does not respond, so nothing could be decided.

    A server usually cannot reach the identity provider for its keys. If only an administrator can help (a bucket
    rejects the server's credentials, a table can't be read), `retryable` is false, and the client does not retry.
    """

    code = "AVAIL001"
    default_remedy = "Try again in a moment."
    retryable = True
    grpc_code = "UNAVAILABLE"
    http_status = 503
    exit_code = 4

    def __init__(self, what: str, *, retryable: bool = True, **options: Any) -> None:
        super().__init__(what, **options)
        self.retryable = retryable


class ProviderUnavailable(Unavailable):
    """The identity provider did not respond properly in time, or a program's platform did not.

    A request to the provider may take ten seconds (`MICROMEGAS_OIDC_TIMEOUT_SECONDS`), one to a platform five. Check
    the network, the proxy and the machine's clock: [behind a proxy](troubleshooting.md#behind-a-corporate-proxy). An
    existing sign-in is kept, and its token works until it expires.
    """

    code = "AVAIL002"
    default_remedy = "Your sign-in is not at fault. Try again in a moment; check network, proxy and clock."


class ServerUnavailable(Unavailable):
    """The Flight SQL server does not respond.

    Check that it is running and that the address is right: `MICROMEGAS_ANALYTICS_URI`, or the one that you passed to
    `--uri` or `%micromegas_connect`. If another program responds there, the message reports what it probably
    requires: TLS or no TLS (`grpc+tls://` or `grpc://`), a
    [client certificate](operating.md#require-client-certificates), another name, or another authority for the server's
    certificate. From `micromegas serve --take-over`, it means that the running server can't
    [hand over its ports](operating.md#restart-without-downtime) now. A server that responds with this code is
    stopping, or can't [record the call in its audit](monitoring.md#if-the-log-cannot-be-written).
    """

    code = "AVAIL003"
    default_remedy = (
        "Check that the server runs and that the address is right (MICROMEGAS_ANALYTICS_URI, or the one you named)."
    )


class Correction(NamedTuple):
    """A change that may correct a statement: `length` characters at a line and column, both from 1, become `text`."""

    line: int
    column: int
    length: int
    text: str

    def apply(self, sql: str) -> str:
        """Return the corrected statement."""
        start = sum(len(text) + 1 for text in sql.split("\n")[: self.line - 1]) + self.column - 1
        return sql[:start] + self.text + sql[start + self.length :]


class QueryError(MicromegasError, DatabaseError):
    """Base of the errors of a query that did not return its rows; never raised as such.

    Args:
        what: One sentence: what happened.
        line: The line of the SQL, from 1, when known.
        column: The column of the SQL, from 1, when known.
        remedy: What to do next; the class's general remedy when left out.
        query_id: The query that the error belongs to.
        limit: A fixed name of the limit that was reached, for the server's metrics; it is not sent.
    """

    correction: Correction | None = None  # of the statement, if the server suggests one
    code = "SQL000"
    grpc_code = "INVALID_ARGUMENT"
    http_status = 400

    def __init__(  # noqa: PLR0913 - what any query error may tell
        self,
        what: str,
        *,
        line: int | None = None,
        column: int | None = None,
        remedy: str | None = None,
        query_id: str | None = None,
        limit: str | None = None,
    ) -> None:
        super().__init__(what, remedy=remedy, query_id=query_id)
        self.line = line
        self.column = column
        self.limit = limit


class InvalidStatement(QueryError, ProgrammingError):
    """The SQL is wrong: syntax, a name, a type, a value.

    The error has the `line` and `column`, if known, and perhaps a `correction`:
    `error.correction.apply(sql)` returns the corrected statement.
    """

    code = "SQL001"
    default_remedy = "Correct the statement."


class StatementRefused(QueryError, NotSupportedError):
    """The server is read-only: statements that write, copy, set or create are rejected.

    It also rejects several statements in one call, a statement over 128 KiB
    ([`MICROMEGAS_SERVER_MAX_STATEMENT_BYTES`](limits.md#settings)), and one that nests brackets deeper than 47 levels.
    """

    code = "SQL002"
    default_remedy = "Only reading statements within the documented limits are accepted."


class UnsupportedStatement(QueryError, NotSupportedError):
    """Valid SQL that the engine does not implement, unknown types included: write it in another way."""

    code = "SQL003"
    default_remedy = "Write it in another way; see the SQL reference of the engine, DataFusion."
    grpc_code = "UNIMPLEMENTED"
    http_status = 501


class ResourcesExhausted(QueryError, OperationalError):
    """A limit was exceeded: memory, spilled data, rows or bytes of a result, concurrent queries, or calls.

    The message contains the limit ([all limits](limits.md#settings)). Rows received before the error are correct, but
    incomplete. Request less data at a time.

    A statement that needs too much memory, crashes the engine, nests too deeply for it, or takes more than 10 s of CPU
    time to plan is stopped together with the process that runs it; other statements are not affected. The message
    explains what to change. A caller with many such statements within a minute is rejected for a minute.

    A statement that joins without an equality (`ON a.time BETWEEN b.begin AND b.end`, `EXISTS` with such a condition)
    must fit into memory, because the engine would lose rows if it spilled such joins to disk: filter and aggregate
    before you join.

    If waiting helps (you call too often, too many of your statements were stopped, or too many credentials from your
    address were rejected), the message contains the delay. It is also in `retry_after_seconds` and in the trailer
    `grpc-retry-pushback-ms`, which gRPC clients with a retry policy honor automatically.
    """

    code = "SQL004"
    default_remedy = "Request less at a time: a shorter time range, fewer columns, a LIMIT."
    grpc_code = "RESOURCE_EXHAUSTED"
    http_status = 429

    def __init__(self, what: str, *, retry_after_seconds: float | None = None, **options: Any) -> None:
        super().__init__(what, **options)
        self.retry_after_seconds = retry_after_seconds


class QueryDenied(ResourcesExhausted):
    """An administrator has denied this query, usually because running it often harms the server.

    The message has the rule's id and the reason. Running it again does not help. Change the query, or have an
    administrator [remove the denial](audit.md#denying-queries). It is a `ResourcesExhausted`.
    """

    code = "SQL008"
    default_remedy = "Change the query, or have the server's administrator remove the denial."
    http_status = 403


class ScanTooLarge(ResourcesExhausted):
    """The statement would read more bytes than your roles allow; it was not run.

    The message has the estimate, and the columns and days that cost most. Ask for fewer columns or a shorter time
    range. `--dry-run` shows what a statement will read. If you may read only some rows of a table, the message has no
    estimate, and whole files of the days in the call's time range count
    ([`max_scan_bytes`](access.md#limit-how-much-a-query-reads)). It is a `ResourcesExhausted`.
    """

    code = "SQL010"
    default_remedy = "Ask for fewer columns or a shorter time range."
    http_status = 403


class DeadlineExceeded(QueryError, OperationalError):
    """The query took longer than the server allows, or than the caller's own deadline.

    The server's limit is [`--query-timeout`](limits.md#settings). The error also comes if the client read no data for
    too long (`--write-timeout`).
    """

    code = "SQL005"
    default_remedy = "Ask for less at a time, or allow more time."
    grpc_code = "DEADLINE_EXCEEDED"
    http_status = 504


class CursorExpired(QueryError, OperationalError):
    """A follow cannot continue at its cursor: log entries or files that it needs are gone, or rows were changed.

    Everything that was committed before `restart_from` has been returned. Query the rows since then, and begin a new
    follow ([Following a table](python.md#following-a-table)).
    """

    code = "SQL009"
    default_remedy = "Query the rows since then, and begin a new follow."
    grpc_code = "OUT_OF_RANGE"
    http_status = 410

    def __init__(self, what: str, *, restart_from: datetime | None = None, **options: Any) -> None:
        super().__init__(what, **options)
        self.restart_from = restart_from


class QueryCancelled(QueryError, OperationalError):
    """You canceled the query, in this program or with another call (`CancelFlightInfo`).

    A server never sends it on its own initiative, and never as `CANCELLED`, on which some clients exit.
    """

    code = "SQL006"
    grpc_code = "ABORTED"
    http_status = 499


class UnsupportedRequest(QueryError, NotSupportedError):
    """A Flight SQL call that this server does not offer."""

    code = "SQL007"
    grpc_code = "UNIMPLEMENTED"
    http_status = 501


class InternalError(MicromegasError, DatabaseError):
    """A bug. The server's log has the details under the query id."""

    code = "INT001"
    default_remedy = "Give the query id to the server's administrator; the server's log has more."


def _all_classes(base: type[MicromegasError]) -> list[type[MicromegasError]]:
    return [base] + [found for child in base.__subclasses__() for found in _all_classes(child)]


def error_classes() -> dict[str, type[MicromegasError]]:
    """Map every error code to its class, to rebuild an error that was sent."""
    return {found.code: found for found in _all_classes(MicromegasError)}
