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

#: Where features that only Micromegas's own server has are documented.
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
    """Base class of all errors of this package; never raised directly.

    Args:
        what: One sentence: what happened. Never holds a secret, a path of the server or a traceback.
        remedy: What to do next; the class's general remedy when left out.
        query_id: The query that the error belongs to, when there is one.
    """

    sign_in_service: str | None = None  # the service that should have signed the user in: `JupyterHub`
    code: ClassVar[str] = "ERR000"
    default_remedy: ClassVar[str] = ""
    retryable: bool = False  # whether the same call may succeed later
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
    """A setting is missing or malformed.

    Check: The message and `key` identify the setting.

    Fix: Correct the variable, option, or line of `config.json`, then start again. See all
    [client](client-settings.md) and [server](server-settings.md) settings.
    """

    code = "CONF001"
    default_remedy = "Correct the setting and start again."
    grpc_code = "FAILED_PRECONDITION"
    exit_code = 2

    def __init__(self, what: str, *, key: str, remedy: str | None = None) -> None:
        super().__init__(what, remedy=remedy)
        self.key = key


class MissingPackage(ConfigurationError):
    """A required package isn't installed.

    Check: The message contains the command that installs it.

    Fix: Run that command.
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
    """A call, magic, or command line is invalid, or a ticket or prepared statement has expired.

    Check: The message identifies the invalid part.

    Fix: Correct the call (`--help` for a command, `%magic?` for a magic), or run the query again.
    """

    code = "USE001"
    grpc_code = "INVALID_ARGUMENT"
    http_status = 400
    exit_code = 2


class TableExists(UsageError):
    """A table with that name already exists, or its columns differ from those of the rows.

    Check: Nothing was stored. Compare the table's columns with yours.

    Fix: Append to the table, replace it, or choose a different name.
    """

    code = "USE002"
    default_remedy = 'Append to it (mode "append"), or choose another name.'
    grpc_code = "ALREADY_EXISTS"
    http_status = 409


class AuthenticationError(MicromegasError, OperationalError):
    """Base class of errors about missing or unusable credentials; never raised directly."""

    code = "AUTH000"
    default_remedy = "Run %micromegas_login in a notebook or `micromegas login` in a terminal."
    grpc_code = "UNAUTHENTICATED"
    http_status = 401
    exit_code = 3


class LoginRequired(AuthenticationError):
    """No user is signed in, or the stored sign-in has expired.

    Check: Run `micromegas whoami` or `%micromegas_whoami`. If JupyterHub should have signed you in, the message
    explains why it didn't.

    Fix: Run `%micromegas_login` or `micromegas login`. Unattended programs need a [service
    account](service-accounts.md).
    """

    code = "AUTH001"


class LoginFailed(AuthenticationError):
    """A sign-in finished without a token.

    Check: The message states the reason. `provider_code` contains the provider's error code, if any.

    Fix: Start the sign-in again. For programs, see [Troubleshoot a service
    account](service-accounts.md#troubleshoot-a-service-account).
    """

    code = "AUTH002"
    provider_code: str | None = None
    default_remedy = "Start the sign-in again."


class LoginTimedOut(LoginFailed):
    """The sign-in wasn't completed in time.

    Check: The limits are 5 minutes for the provider's page, 10 to paste its URL, and up to 30 for a device code.

    Fix: Start again. The previous page or code no longer works.
    """

    code = "AUTH003"


class LoginRefused(LoginFailed):
    """The provider or the user denied the sign-in.

    Check: The message contains the provider's reason, if any.

    Fix: Sign in again and approve the request, or ask the provider's administrator for access.
    """

    code = "AUTH004"


class ProviderMisbehaved(AuthenticationError):
    """The provider's response violates the protocol or doesn't belong to this sign-in.

    Check: Compare `MICROMEGAS_OIDC_ISSUER` with the provider's issuer. The message contains a
    [reason](errors.md#while-signing-in).

    Fix: Correct the issuer, paste the right URL, or choose a different flow. Otherwise, contact the provider's
    administrator.
    """

    code = "AUTH005"
    default_remedy = "Check the issuer setting. If it is correct, contact the identity provider's administrator."


class TokenStoreError(AuthenticationError):
    """The token file or the system keyring can't be used safely.

    Check: You must own the file, and it must not be a symbolic link. The
    [keyring](how-sign-in-works.md#the-keyring) must be unlocked.

    Fix: Repair or remove the file, unlock the keyring, or set `token_storage` to `file`. Then sign in again.
    """

    code = "AUTH006"
    default_remedy = "Check the file in the message, fix or remove it, and sign in again."


class Rejected(AuthenticationError):
    """The server doesn't accept the credential, for example because it is missing, expired, revoked, or denied.

    Check: The message adds what the client can detect, such as an expired token or a wrong clock. Only administrators
    can see the [reason](errors.md#reasons-for-rejected-credentials).

    Fix: Sign in again, with `--audience` if the token is for a different audience, or give the query ID to the server's
    administrator.

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
    """You are signed in but lack permission for this call.

    Check: The API key lacks a scope, or the call acts for a different user, changes a table that you don't own, or
    requires an administrator ([reasons](errors.md#permissions)).

    Fix: Use a key with the required scope, omit the `x-user-*` headers, or ask the server's administrator for
    permission.
    """

    code = "AUTH020"
    default_remedy = "Ask the server's administrator for permission."
    grpc_code = "PERMISSION_DENIED"
    http_status = 403

    def __init__(
        self, what: str, *, reason: str = "forbidden", remedy: str | None = None, query_id: str | None = None
    ) -> None:
        super().__init__(what, remedy=remedy, query_id=query_id)
        self.reason = reason


class ReadOnlyCall(PermissionDenied):
    """The [read-only call](flight-sql.md#read-only-calls) would have changed something, so it was rejected.

    Check: An agent made the call, or it has the header `x-micromegas-read-only: true`.

    Fix: To make the change, repeat the call over a connection that isn't read-only.
    """

    code = "AUTH021"
    default_remedy = "If you want this change, make it yourself over a connection that isn't read-only."


class Unavailable(MicromegasError, OperationalError):
    """A required component doesn't respond: usually the identity provider's keys or the tables' storage.

    Check: Check the server's `/ready` and its log. If `retryable` is false, only an administrator can fix the
    problem.

    Fix: Try again in a moment. Administrators: see [provider outages](access.md#provider-outages).
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
    """The identity provider, or the platform that issues a program's token, didn't respond in time.

    Check: Check the network, the [proxy](troubleshooting.md#behind-a-corporate-proxy), and the clock. The timeout
    is `MICROMEGAS_OIDC_TIMEOUT_SECONDS`, or 5 seconds for a platform.

    Fix: Try again. Your sign-in is kept, and its token works until it expires.
    """

    code = "AVAIL002"
    default_remedy = "Your sign-in is not at fault. Try again in a moment. Check the network, proxy, and clock."


class ServerUnavailable(Unavailable):
    """The Flight SQL server doesn't respond, is shutting down, or can't write its audit log.

    Check: Run `micromegas doctor`. Check the URI and the certificates. The message reports TLS mismatches.

    Fix: Correct the URI or the certificates, or try again. Administrators: see [audit log
    backpressure](monitoring.md#if-the-log-cannot-be-written) and [restarts without
    downtime](operating.md#restart-without-downtime).
    """

    code = "AVAIL003"
    default_remedy = (
        "Check that the server is running and that the URI is correct "
        "(MICROMEGAS_ANALYTICS_URI, or the one you specified)."
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
    """Base class of query errors; never raised directly.

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
    """The SQL contains a syntax error, or an invalid name, type, or value.

    Check: The message contains the line and column, if known, and similar names. Tables that you can't read are
    reported as unknown.

    Fix: Correct the statement. If the error has a `correction`, `error.correction.apply(sql)` returns the corrected
    statement.
    """

    code = "SQL001"
    default_remedy = "Correct the statement."


class StatementRefused(QueryError, NotSupportedError):
    """The statement isn't a read-only query within the limits.

    Check: The server rejects statements that change something, multiple statements in one call, and statements that
    exceed a length or nesting [limit](limits.md#fixed-limits).

    Fix: Send one shorter, read-only statement.
    """

    code = "SQL002"
    default_remedy = "Send one read-only statement within the documented limits."


class UnsupportedStatement(QueryError, NotSupportedError):
    """The SQL is valid, but the engine doesn't support it.

    Check: The message identifies the unsupported type or feature. See the [SQL reference](sql.md).

    Fix: Rewrite the statement to avoid it.
    """

    code = "SQL003"
    default_remedy = "Rewrite the statement; see the SQL reference of DataFusion, the engine."
    grpc_code = "UNIMPLEMENTED"
    http_status = 501


class ResourcesExhausted(QueryError, OperationalError):
    """A limit was exceeded, such as memory, spilled data, result size, concurrent queries, or calls.

    Check: The message contains the limit. Rows received before the error are correct but incomplete. If waiting
    helps, the delay is in `retry_after_seconds` and in the trailer `grpc-retry-pushback-ms`.

    Fix: Wait for the delay, or read less data ([fix for each limit](errors.md#sql004-by-limit)).
    """

    code = "SQL004"
    default_remedy = "Read less data: a shorter time range, fewer columns, or a LIMIT."
    grpc_code = "RESOURCE_EXHAUSTED"
    http_status = 429

    def __init__(self, what: str, *, retry_after_seconds: float | None = None, **options: Any) -> None:
        super().__init__(what, **options)
        self.retry_after_seconds = retry_after_seconds


class QueryDenied(ResourcesExhausted):
    """An administrator has denied this query, usually because it overloads the server.

    Check: The message contains the rule's ID and the reason.

    Fix: Change the query, or ask an administrator to [remove the denial](audit.md#denying-queries).
    """

    code = "SQL008"
    default_remedy = "Change the query, or have the server's administrator remove the denial."
    http_status = 403


class ScanTooLarge(ResourcesExhausted):
    """The statement would have read more bytes than your roles allow, so it wasn't run.

    Check: The message contains the estimate, and the columns and days that cost the most, unless you can read only some
    rows. Roles set the [limit](access.md#limit-how-much-a-query-reads).

    Fix: Select fewer columns or a shorter time range. `--dry-run` shows an estimate.
    """

    code = "SQL010"
    default_remedy = "Select fewer columns or a shorter time range."
    http_status = 403


class DeadlineExceeded(QueryError, OperationalError):
    """The query took longer than the server's limit or the caller's deadline.

    Check: The server's limits are [`--query-timeout`](limits.md#settings), `--write-timeout` for a client that
    doesn't read, and `--read-timeout` and `--upload-timeout` for one that doesn't send.

    Fix: Read less data, read or send it without pausing, or allow more time.
    """

    code = "SQL005"
    default_remedy = "Read less data, or allow more time."
    grpc_code = "DEADLINE_EXCEEDED"
    http_status = 504


class CursorExpired(QueryError, OperationalError):
    """A follow can't continue from its cursor because rows changed, or required log entries or files are gone.

    Check: All rows that were committed before `restart_from` were returned.

    Fix: Query the rows since `restart_from`, and start a new [follow](python.md#following-a-table).
    """

    code = "SQL009"
    default_remedy = "Query the rows since then, and start a new follow."
    grpc_code = "OUT_OF_RANGE"
    http_status = 410

    def __init__(self, what: str, *, restart_from: datetime | None = None, **options: Any) -> None:
        super().__init__(what, **options)
        self.restart_from = restart_from


class QueryCancelled(QueryError, OperationalError):
    """The query was canceled by its caller, in this program or with another call (`CancelFlightInfo`).

    Check: Look for an interrupt in your program.

    Fix: Run the query again if you still need it.
    """

    code = "SQL006"
    grpc_code = "ABORTED"
    http_status = 499


class UnsupportedRequest(QueryError, NotSupportedError):
    """The server doesn't support this Flight SQL call, such as a transaction, savepoint, or Substrait plan.

    Check: See the supported calls in [Flight SQL](flight-sql.md).

    Fix: Use a supported call instead.
    """

    code = "SQL007"
    grpc_code = "UNIMPLEMENTED"
    http_status = 501


class InternalError(MicromegasError, DatabaseError):
    """The server or client has a bug.

    Check: Find the traceback in the server's log by the query ID.

    Fix: Give the query ID to the server's administrator, who can report the bug.
    """

    code = "INT001"
    default_remedy = "Give the query ID to the server's administrator, who can find details in the server's log."


def _all_classes(base: type[MicromegasError]) -> list[type[MicromegasError]]:
    return [base] + [found for child in base.__subclasses__() for found in _all_classes(child)]


def error_classes() -> dict[str, type[MicromegasError]]:
    """Map every error code to its class, to rebuild an error that was sent."""
    return {found.code: found for found in _all_classes(MicromegasError)}
