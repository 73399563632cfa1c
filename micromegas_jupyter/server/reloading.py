"""The action with which an administrator makes the server read its access configuration again.

What is read, and what becomes of a version that cannot be used, is the validator's business.
"""

import asyncio
import json
from typing import Final, Protocol, runtime_checkable

from micromegas_jupyter.access.audit import AccessAudit, AccessEvent, Claimed, checking_for
from micromegas_jupyter.core.protocols import AuthContext
from micromegas_jupyter.errors import (
    ConfigurationError,
    DeadlineExceeded,
    MicromegasError,
    PermissionDenied,
    UnsupportedRequest,
)
from micromegas_jupyter.flightsql import messages
from micromegas_jupyter.server.calls import Call

RELOAD_ACTION: Final = "micromegas.access.reload"
_RELOAD_SECONDS: Final = 30.0


@runtime_checkable
class Reloadable(Protocol):
    """A validator that can read its configuration again."""

    def reload(self) -> None:
        """Read the configuration and use it from now on; safe to call from several threads."""
        ...


class AccessReload:
    """Answers the action. Belongs to one event loop; one reload runs at a time."""

    def __init__(self, validator: object, *, audit: AccessAudit) -> None:
        self._reloadable: Reloadable | None = validator if isinstance(validator, Reloadable) else None
        self._audit = audit
        self._turn = asyncio.Lock()

    def is_offered_to(self, caller: AuthContext) -> bool:
        """Whether the caller may use the action, and there is something to reload."""
        return caller.is_admin and self._reloadable is not None

    async def run(self, call: Call) -> None:
        """Reload, then tell the client."""
        if not call.caller.is_admin:
            raise PermissionDenied("Only administrators may reload the configuration.", reason="not_administrator")
        if self._reloadable is None:
            raise UnsupportedRequest("This server has no access configuration that could be reloaded.")
        try:
            await self._reload(self._reloadable)
        except MicromegasError as error:
            self._record(call, "reload_failed", error.code)
            raise
        self._record(call, "reloaded", None)
        await call.answer(messages.Result(body=json.dumps({"reloaded": True}).encode()).SerializeToString())

    async def _reload(self, reloadable: Reloadable) -> None:
        try:
            async with asyncio.timeout(_RELOAD_SECONDS), self._turn:
                await asyncio.to_thread(reloadable.reload)
        except TimeoutError:
            raise DeadlineExceeded(
                "The configuration could not be read in time.", remedy="Try again, and look at the server's log."
            ) from None
        except ConfigurationError as error:
            if error.key in error.what:
                raise
            raise ConfigurationError(f"{error.key}: {error.what}", key=error.key, remedy=error.remedy) from error

    def _record(self, call: Call, outcome: str, code: str | None) -> None:
        who = Claimed(issuer=call.caller.issuer, subject=call.caller.subject)
        with checking_for(call.describe()):
            self._audit.record(AccessEvent(outcome=outcome, code=code, who=who))
