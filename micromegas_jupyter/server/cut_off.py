"""Ends the access of users whom an administrator has cut off, on every server that shares the file of denials.

Each server looks at the file every second. It then rejects the calls of these users, ends those that are open, and
writes a report into the file, so that the server that the administrator asked can return what all of them have ended.
"""

import asyncio
import json
import logging
import platform
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, Final, Literal

import msgspec

from micromegas_jupyter.core.system import Clock
from micromegas_jupyter.core.text import JsonError, decode_strict_json
from micromegas_jupyter.engine.functions.denial_store import REPORT_PERIOD, Applied, CutOff
from micromegas_jupyter.errors import (
    MicromegasError,
    PermissionDenied,
    Unavailable,
    UnsupportedRequest,
    UsageError,
)
from micromegas_jupyter.executors.launcher import run_in_thread
from micromegas_jupyter.executors.scheduling import cut_off_error
from micromegas_jupyter.server.authentication import ActionAudit
from micromegas_jupyter.server.flight_service import Call, FlightService, find_origin, recorded
from micromegas_jupyter.server.queries import CHECK_SECONDS, DenyList, QueryRunner

CUT_OFF_ACTION: Final = "MicromegasCutOff"
_MAX_BODY_BYTES: Final = 8192
_REPORT_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 0.5
_WRITE_SECONDS: Final = 15.0
_MAX_SERVERS: Final = 32
_MAX_QUERY_IDS: Final = 8
_LOG: Final = logging.getLogger("micromegas_jupyter.server")
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]


class _Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    operation: Literal["add", "remove", "list"]
    issuer: _Name | None = None
    subject: _Name | None = None
    email: _Name | None = None
    until: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


class CutOffService:
    """Ends open calls of users who are cut off, and handles the action. Belongs to one event loop."""

    def __init__(
        self,
        deny_list: DenyList | None,
        queries: QueryRunner,
        *,
        port: Callable[[], int],
        clock: Clock,
    ) -> None:
        self._deny_list = deny_list
        self._queries = queries
        self._port = port
        self._clock = clock
        self._reported: set[tuple[str, datetime]] = set()
        self._reporting: set[asyncio.Task[None]] = set()
        self.service: FlightService | None = None

    async def watch(self) -> None:
        """Look at the file every second, and apply it, until this is cancelled."""
        while self._deny_list is not None:
            await asyncio.sleep(CHECK_SECONDS)
            try:
                await self._deny_list.refresh()
                self._apply()
            except Exception:  # noqa: BLE001 - a defect in one round must not end the rounds
                _LOG.exception("users who are cut off could not be looked up")

    def _apply(self) -> None:
        """End what users who are cut off have open, and report it."""
        deny_list = self._deny_list
        if deny_list is None or not deny_list.cut_offs or self.service is None:
            return
        ended: dict[str, list[str]] = {}
        for call in self.service.open_calls():
            cut_off = deny_list.find_cut_off(call.caller, call.headers)
            if cut_off is not None:
                ended.setdefault(cut_off.identity, []).append(call.query_id)
                if not self._queries.end(call.query_id, ended_by=cut_off.created_by):
                    self.service.end_call(call, cut_off_error())
        now = self._clock.now()
        current = {(one.identity, one.created_at): one for one in deny_list.cut_offs.values() if not one.is_over(now)}
        self._reported &= current.keys()
        for key, cut_off in current.items():
            ids = ended.get(cut_off.identity, [])
            if ids:
                _LOG.warning("calls of a user who is cut off were ended, user=%s calls=%d", cut_off.identity, len(ids))
            if key not in self._reported and now - cut_off.created_at < REPORT_PERIOD:
                self._reported.add(key)
                task = asyncio.create_task(self._report(cut_off, ids))
                self._reporting.add(task)
                task.add_done_callback(self._reporting.discard)

    async def _report(self, cut_off: CutOff, ids: Sequence[str]) -> None:
        report = Applied(
            server=f"{platform.node() or 'server'}:{self._port()}",
            ended=len(ids),
            query_ids=tuple(ids[:_MAX_QUERY_IDS]),
        )

        def reported(found: tuple[CutOff, ...]) -> Sequence[CutOff]:
            return [
                msgspec.structs.replace(one, applied=(*one.applied, report)[:_MAX_SERVERS])
                if (one.identity, one.created_at) == (cut_off.identity, cut_off.created_at)
                and report not in one.applied
                else one
                for one in found
            ]

        try:
            await self._change(reported)
        except MicromegasError as error:
            _LOG.warning("a cut-off holds at this server, but could not be reported: %s", error.what)

    async def _change(self, change: Callable[[tuple[CutOff, ...]], Sequence[CutOff]]) -> None:
        assert self._deny_list is not None  # noqa: S101 - callers have checked
        store = self._deny_list.store
        try:
            async with asyncio.timeout(_WRITE_SECONDS):
                await run_in_thread(lambda: store.change_cut_off(change), name="denials")
        except TimeoutError:
            raise Unavailable("The storage of the denials file does not respond.") from None

    async def handle(self, call: Call, body: bytes) -> bytes:
        """Cut a user off, restore a user's access, or list the users who are cut off; for administrators."""
        if not call.caller.is_admin:
            raise PermissionDenied("Only administrators may end a user's access.", reason="not_administrator")
        if self._deny_list is None:
            raise UnsupportedRequest(
                "This server has no file of denials.", remedy="Set MICROMEGAS_QUERY_DENIALS_FILE for all its replicas."
            )
        try:
            found = decode_strict_json(body[: _MAX_BODY_BYTES + 1].decode("utf-8"), max_depth=1)
            request = msgspec.convert(found, _Request)
        except (UnicodeDecodeError, JsonError, msgspec.ValidationError):
            raise _unusable() from None
        if request.operation == "list":
            now = self._clock.now()
            listed = [one for one in await self._reread() if not one.is_over(now)]
            shown = [msgspec.to_builtins(msgspec.structs.replace(one, applied=())) for one in listed]
            return json.dumps({"cut_off": shown}).encode()
        if not request.issuer or not request.subject:
            raise _unusable()
        if request.operation == "add" and (request.issuer, request.subject) == call.caller_key:
            raise UsageError("You cannot end your own access.", remedy="Have another administrator do it.")
        origin, now = find_origin(call), self._clock.now()
        cut_off = CutOff(
            issuer=request.issuer,
            subject=request.subject,
            email=request.email,
            until=request.until,
            created_at=now,
            created_by=origin.attribution.user,
        )
        asked = {name: value for name, value in msgspec.to_builtins(request).items() if value is not None}
        audit = ActionAudit(origin, self._clock, "cut_off", operation=asked.pop("operation"))
        audit.fields |= {**{f"target_{name}": value for name, value in asked.items()}, "servers": ()}
        async with recorded(audit, call, lambda _status, _error: None):
            if request.operation == "remove":
                return json.dumps({"removed": await self._remove(cut_off.identity)}).encode()
            servers = audit.fields["servers"] = await self._add(cut_off)
            return json.dumps({"servers": servers}).encode()

    async def _add(self, cut_off: CutOff) -> list[dict[str, Any]]:
        """Cut a user off, and return what the servers report within five seconds."""
        if cut_off.until is not None and cut_off.until <= cut_off.created_at:
            raise UsageError("The end of the cut-off is not in the future.", remedy="Give a later time, or none.")
        await self._change(lambda found: [*(one for one in found if one.identity != cut_off.identity), cut_off])
        _LOG.warning("a user was cut off, user=%s by=%s", cut_off.identity, cut_off.created_by)
        await self._reread()
        reports: tuple[Applied, ...] = ()
        deadline = self._clock.monotonic() + _REPORT_SECONDS
        while self._clock.monotonic() < deadline:
            await asyncio.sleep(_LOOK_SECONDS)
            found = next((one for one in await self._reread() if one.created_at == cut_off.created_at), None)
            reports = reports if found is None else found.applied
        return [msgspec.to_builtins(one) for one in reports]

    async def _remove(self, identity: str) -> bool:
        removed: list[CutOff] = []

        def without(found: tuple[CutOff, ...]) -> Sequence[CutOff]:
            removed[:] = [one for one in found if one.identity == identity]
            return [one for one in found if one.identity != identity]

        await self._change(without)
        await self._reread()
        if removed:
            _LOG.warning("a user's access was restored, user=%s", identity)
        return bool(removed)

    async def _reread(self) -> Sequence[CutOff]:
        """Read the file now, apply it here, and return who is cut off."""
        assert self._deny_list is not None  # noqa: S101 - callers have checked
        self._deny_list.invalidate()
        await self._deny_list.refresh()
        self._apply()
        return tuple(self._deny_list.cut_offs.values())


def _unusable() -> UsageError:
    return UsageError(
        f"The body of {CUT_OFF_ACTION} cannot be used.",
        remedy="Send one JSON object: the operation (add, remove or list), and the user's issuer and subject.",
    )
