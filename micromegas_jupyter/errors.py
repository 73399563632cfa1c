"""Every error of the package: one tree, each class with one code, a remedy, and how it leaves the process.

What happened and what to do next travel together, so that the same class reaches a notebook cell, a terminal and a
remote client. docs/errors.md lists them by code; `micromegas explain CODE` shows its entries.
"""

from typing import Any, ClassVar


class MicromegasError(Exception):
    """Base of every error that this package raises on purpose.

    Args:
        what: One sentence: what happened. Never holds a secret, a path of the server or a traceback.
        remedy: What to do next; the class's general remedy when left out.
        query_id: The query that the error belongs to, when there is one.
    """

    giver: str | None = None  # what signs people in here by itself and did not, as people call it: `JupyterHub`
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

    def __str__(self) -> str:
        return f"{self.what} {self.remedy}".strip()


class ConfigurationError(MicromegasError, ValueError):
    """A setting is missing or malformed; `key` is its name."""

    code = "CONF001"
    default_remedy = "Correct the setting and start again."
    grpc_code = "FAILED_PRECONDITION"
    exit_code = 2

    def __init__(self, what: str, *, key: str, remedy: str | None = None) -> None:
        super().__init__(what, remedy=remedy)
        self.key = key


class UsageError(MicromegasError):
    """A call, a magic or a command line cannot be understood."""

    code = "USE001"
    grpc_code = "INVALID_ARGUMENT"
    http_status = 400
    exit_code = 2


class AuthenticationError(MicromegasError):
    """The caller has no usable credential."""

    code = "AUTH000"
    default_remedy = "Run %micromegas_login in a notebook or `micromegas login` in a terminal."
    grpc_code = "UNAUTHENTICATED"
    http_status = 401
    exit_code = 3


class LoginRequired(AuthenticationError):
    """Nobody is signed in, or the stored sign-in has ended."""

    code = "AUTH001"


class LoginFailed(AuthenticationError):
    """A sign-in was started and ended without a token; `provider_code` is the provider's error code, when it gave one.

    Source: RFC 6749 section 5.2.
    """

    code = "AUTH002"
    provider_code: str | None = None
    default_remedy = "Start the sign-in again."


class LoginTimedOut(LoginFailed):
    """Nobody came back from the provider's page in time."""

    code = "AUTH003"


class LoginRefused(LoginFailed):
    """The provider or the person refused the sign-in."""

    code = "AUTH004"


class ProviderMisbehaved(AuthenticationError):
    """The identity provider's answer breaks the protocol or does not fit this sign-in; nothing was kept."""

    code = "AUTH005"
    default_remedy = "Check the issuer setting; if it is right, tell whoever runs the identity provider."


class TokenStoreError(AuthenticationError):
    """The token file or its folder cannot be used safely."""

    code = "AUTH006"
    default_remedy = "Check the named file, fix or remove it, and sign in again."


class Rejected(AuthenticationError):
    """The credential was checked and is not accepted; `reason` is a fixed code for the audit log only."""

    code = "AUTH010"
    default_remedy = "Sign in again, or ask the server's administrator which tokens it accepts."

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


class PermissionDenied(MicromegasError):
    """The caller is known and may not do this; `reason` is a fixed code for the audit log."""

    code = "AUTH020"
    default_remedy = "Ask the server's administrator for the right."
    grpc_code = "PERMISSION_DENIED"
    http_status = 403

    def __init__(
        self, what: str, *, reason: str = "forbidden", remedy: str | None = None, query_id: str | None = None
    ) -> None:
        super().__init__(what, remedy=remedy, query_id=query_id)
        self.reason = reason


class Unavailable(MicromegasError):
    """Something that is needed does not answer, so nothing could be decided.

    The same call may work later, unless `retryable` is false: then somebody has to do something first.
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
    """The identity provider does not answer properly in time."""

    code = "AVAIL002"
    default_remedy = "Your sign-in is not at fault. Try again in a moment; check network, proxy and clock."


class ServerUnavailable(Unavailable):
    """The Flight SQL server does not answer."""

    code = "AVAIL003"
    default_remedy = (
        "Check that the server runs and that the address is right (MICROMEGAS_ANALYTICS_URI, or the one you named)."
    )


class QueryError(MicromegasError):
    """A query did not return its rows.

    `line` and `column` are a position in the SQL, from 1, when known. `limit` is a fixed name of the limit that was
    reached, for the server's metrics; it is not sent.
    """

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


class InvalidStatement(QueryError):
    """The SQL is wrong: syntax, a name or a type."""

    code = "SQL001"
    default_remedy = "Correct the statement."


class StatementRefused(QueryError):
    """The SQL would write, set or copy, or is larger or deeper than this server accepts."""

    code = "SQL002"
    default_remedy = "Only reading statements within the documented limits are accepted."


class UnsupportedStatement(QueryError):
    """The SQL is valid, but the engine does not implement it."""

    code = "SQL003"
    default_remedy = "Write it in another way; see the SQL reference of the engine, DataFusion."
    grpc_code = "UNIMPLEMENTED"
    http_status = 501


class ResourcesExhausted(QueryError):
    """Over a limit of memory, size or rate; if waiting helps, `retry_after_seconds` says how long."""

    code = "SQL004"
    default_remedy = "Ask for less at a time: a shorter time range, fewer columns, a LIMIT."
    grpc_code = "RESOURCE_EXHAUSTED"
    http_status = 429

    def __init__(self, what: str, *, retry_after_seconds: float | None = None, **options: Any) -> None:
        super().__init__(what, **options)
        self.retry_after_seconds = retry_after_seconds


class QueryDenied(ResourcesExhausted):
    """An administrator has denied this query; the sentence names the rule and the reason."""

    code = "SQL008"
    default_remedy = "Change the query, or ask the server's administrator to lift the denial."
    http_status = 403


class DeadlineExceeded(QueryError):
    """The query took longer than the caller or the server allows."""

    code = "SQL005"
    default_remedy = "Ask for less at a time, or allow more time."
    grpc_code = "DEADLINE_EXCEEDED"
    http_status = 504


class QueryCancelled(QueryError):
    """The caller stopped the query. Never sent by a server as its own decision.

    A server that was asked by another call says so with ABORTED: on CANCELLED some clients end their process.
    """

    code = "SQL006"
    grpc_code = "ABORTED"
    http_status = 499


class UnsupportedRequest(QueryError):
    """A Flight SQL call that this server does not offer."""

    code = "SQL007"
    grpc_code = "UNIMPLEMENTED"
    http_status = 501


class InternalError(MicromegasError):
    """A defect. The client gets an id, the server's log has the rest."""

    code = "INT001"
    default_remedy = "Give the query id to the server's administrator; the server's log has more."


def _all_classes(base: type[MicromegasError]) -> list[type[MicromegasError]]:
    return [base] + [found for child in base.__subclasses__() for found in _all_classes(child)]


def error_classes() -> dict[str, type[MicromegasError]]:
    """Map every error code to its class, to rebuild an error that was sent."""
    return {found.code: found for found in _all_classes(MicromegasError)}
