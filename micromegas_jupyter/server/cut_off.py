"""Cuts off users at an administrator's request, on every server that shares the denials file.

Each server checks the file every second. It then rejects these users' calls, stops their open calls, and writes a
report into the file, so that the administrator's server can return what all of them have stopped.
"""

import asyncio
import json
import logging
import platform
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Protocol

import msgspec

from micromegas_jupyter.core.files import FileProblem
from micromegas_jupyter.core.protocols import AuthContext, AuthType
from micromegas_jupyter.core.read_only import check_may_change_state
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock
from micromegas_jupyter.core.text import JsonError, decode_strict_json
from micromegas_jupyter.engine.contract import MAX_STATEMENT_BYTES
from micromegas_jupyter.engine.functions.denial_store import (
    MAX_RULES,
    REPORT_PERIOD,
    Applied,
    CutOff,
    Denial,
    DenialStore,
    MalformedFile,
    with_hits,
)
from micromegas_jupyter.engine.scanner import fingerprints
from micromegas_jupyter.errors import (
    ConfigurationError,
    InvalidStatement,
    MicromegasError,
    PermissionDenied,
    QueryDenied,
    Rejected,
    Unavailable,
    UnsupportedRequest,
    UsageError,
)
from micromegas_jupyter.executors.launcher import await_shared, run_in_thread
from micromegas_jupyter.executors.scheduling import cut_off_error
from micromegas_jupyter.server.authentication import (
    ActionAudit,
    CallOrigin,
    Headers,
    claimed_names,
)
from micromegas_jupyter.server.flight_service import (
    Call,
    FlightService,
    find_origin,
    recorded,
)

if TYPE_CHECKING:
    from micromegas_jupyter.engine.functions.denials import MatchRules

CUT_OFF_ACTION: Final = "MicromegasCutOff"
_MAX_BODY_BYTES: Final = 8192
_REPORT_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 0.5
_WRITE_SECONDS: Final = 15.0
_MAX_SERVERS: Final = 32
_MAX_QUERY_IDS: Final = 8
_LOG: Final = logging.getLogger("micromegas_jupyter.server")
CHECK_SECONDS: Final = 1.0
MAX_AGE_SECONDS: Final = 4.0
_WAIT_SECONDS: Final = 5.0
_HITS_SECONDS: Final = 5.0
_MAX_UNREAD_SECONDS: Final = 10.0
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]


class _Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    operation: Literal["add", "remove", "list"]
    issuer: _Name | None = None
    subject: _Name | None = None
    email: _Name | None = None
    until: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


class DenyList:
    """Rejects queries that an administrator has denied, before they are planned, and tracks which users are cut off.

    Rules are created and removed at runtime; a change of the file takes effect within five seconds. A file that is
    unusable at startup raises ConfigurationError. `on_denied` is called with the rule's ID and must not block.
    `_hits_lock` guards unwritten hits; `_file_lock` lets one thread at a time read the file.
    """

    def __init__(
        self, location: str, *, clock: Clock = SYSTEM_CLOCK, on_denied: Callable[[str], None] = lambda _: None
    ) -> None:
        self.store = self._file = DenialStore(location, clock=clock)
        self._mark: str | None = None
        self._clock = clock
        self._on_denied = on_denied
        self._hits_lock = threading.Lock()
        self._hits: dict[str, datetime] = {}
        self._hits_due_at = float("-inf")
        self._changes = 0
        self._file_lock = threading.Lock()
        self._checked_at = clock.monotonic()  # when the last read began
        self._read_at = self._checked_at  # when the last successful read began
        self._refreshing: asyncio.Task[None] | None = None
        self._problem: str | None = None
        self._is_malformed = False
        #: The users who are cut off, by `issuer|subject`.
        self.cut_offs: Mapping[str, CutOff] = {}
        #: The rules as last read, and the object that applies them.
        self._denials: tuple[Sequence[Denial], MatchRules | None] = ((), None)
        try:
            self._denials = self._read()
        except (FileProblem, MalformedFile, InvalidStatement) as error:
            raise ConfigurationError(
                f"The list of denied queries ({self._file.name}) cannot be used: {_describe(error)}.",
                key=self._file.name,
                remedy="Correct or remove the file, and start again.",
            ) from None

    @property
    def is_current(self) -> bool:
        """Whether the file was recently read and applied successfully.

        Replicas share the file: a short storage failure must not make all of them unready.
        """
        return not self._is_malformed and self._clock.monotonic() - self._read_at < _MAX_UNREAD_SECONDS

    def find_cut_off(self, caller: AuthContext, headers: Headers) -> CutOff | None:
        """Return the entry that cuts off a caller, its API key's owner, or its headers' user; for any thread."""
        if not (known := self.cut_offs):
            return None
        found = [known.get(f"{caller.issuer}|{caller.subject}"), known.get(caller.owner or "")]
        if caller.auth_type is AuthType.API_KEY and (names := claimed_names(headers)):
            addresses = {name.lower() for name in names}
            found += [one for one in known.values() if one.subject in names or (one.email or "").lower() in addresses]
        now = self._clock.now()
        return next((one for one in found if one is not None and not one.is_over(now)), None)

    def check_caller(self, caller: AuthContext, headers: Headers) -> None:
        """Reject a caller who is cut off."""
        if self.find_cut_off(caller, headers) is not None:
            raise Rejected(reason="cut_off")

    async def check(self, origin: CallOrigin, sql: str) -> None:
        """Reject a query that a rule denies, except administrators' queries that call denial functions."""
        seen = -1
        # Rules may change during the check, and new rules don't stop queries that aren't listed yet.
        while seen != self._changes:
            seen = self._changes
            await self._check_once(origin, sql)

    async def _check_once(self, origin: CallOrigin, sql: str) -> None:
        await self.refresh()
        rules, matching = self._denials
        if matching is None or len(sql) > MAX_STATEMENT_BYTES:
            return  # longer statements are rejected anyway, and searching one would cost more than running a short one
        facts = {
            "user_id": origin.attribution.user,
            "email": origin.attribution.email,
            "service_account": origin.caller.subject if origin.caller.auth_type is AuthType.API_KEY else None,
            **{
                name: origin.tags.get(name) for name in ("client", "agent", "entrypoint", "session", "notebook", "cell")
            },
            "client_ip": origin.client_address,
            "sql": sql,
        }
        is_admin = origin.caller.is_admin

        def find_match() -> int | None:
            from micromegas_jupyter.engine.functions.denials import names_denial_function

            found = matching.first_match(facts, fingerprints(sql))
            return None if found is not None and is_admin and names_denial_function(sql) else found

        position = await asyncio.to_thread(find_match)
        if position is None:
            return
        rule = rules[position]
        with self._hits_lock:
            self._hits[rule.rule_id] = self._clock.now()
        self._on_denied(rule.rule_id)
        _LOG.warning("query denied by rule %s: %s, user=%s", rule.rule_id, rule.reason, origin.attribution.user)
        raise QueryDenied(f"This query is denied by rule {rule.rule_id}: {rule.reason.rstrip('.')}.", limit="denied")

    def write_hits(self) -> None:
        """Store when rules were last hit; log failures."""
        with self._hits_lock:
            hits, self._hits = self._hits, {}
        if not hits:
            return
        try:
            self._file.change(lambda rules: with_hits(rules, hits))
        except MicromegasError:
            _LOG.warning("the last hits of query denials could not be written")

    def invalidate(self) -> None:
        """Make the next query wait until the file is read again; belongs to the event loop of the queries."""
        self._checked_at, self._refreshing = float("-inf"), None  # a running read may have seen the previous file
        self._changes += 1

    async def refresh(self) -> None:
        """Wait until the rules are up to date, or until the storage has been unresponsive for several seconds."""
        came_at = self._clock.monotonic()
        while (age := came_at - self._checked_at) >= CHECK_SECONDS:
            refreshing = self._refreshing
            if refreshing is None:
                refreshing = self._refreshing = asyncio.get_running_loop().create_task(self._refresh_once())
                refreshing.add_done_callback(lambda task: task.cancelled() or task.exception())
            elif age < MAX_AGE_SECONDS:
                return  # another query checks
            done, _ = await asyncio.wait({refreshing}, timeout=_WAIT_SECONDS)
            if not done:
                return
            await await_shared(refreshing)

    async def _refresh_once(self) -> None:
        began_at = self._clock.monotonic()
        try:
            # Don't use a thread from the loop's pool, because storage may hang and the pool has only a few threads.
            await run_in_thread(self._refresh, name="denials")
            if self._problem is None:
                self._read_at = began_at
        finally:
            if self._refreshing is asyncio.current_task():
                self._checked_at, self._refreshing = began_at, None

    def reload(self) -> None:
        """Reread the file; if it is unusable, leave the rules unchanged."""
        with self._file_lock:
            try:
                self._denials, self._problem, self._is_malformed = self._read(), None, False
            except (FileProblem, MalformedFile, InvalidStatement) as error:
                self._is_malformed |= not isinstance(error, FileProblem)
                known, self._problem = self._problem, _describe(error)
                if self._problem != known:
                    text = "the list of denied queries cannot be used, the rules before it stay in force: %s"
                    _LOG.error(text, self._problem)

    def _refresh(self) -> None:
        now = self._clock.monotonic()
        if now >= self._hits_due_at:
            # Each write makes all replicas reread the file, and may conflict with a write that cuts off a user.
            self._hits_due_at = now + _HITS_SECONDS
            self.write_hits()
        with suppress(FileProblem):  # `reload` logged it during the last read
            if self._problem is None and self._file.mark() == self._mark:
                return
        self.reload()

    def _read(self) -> "tuple[Sequence[Denial], MatchRules | None]":
        self._mark = self._file.mark()
        found = self._file.read()
        rules = found.rules
        if len(rules) > MAX_RULES:
            raise MalformedFile(f"it has {len(rules)} rules, more than the maximum of {MAX_RULES}")
        self.cut_offs = {one.identity: one for one in found.cut_off}
        if not rules:
            return (), None
        expressions = tuple(rule.match_expr for rule in rules)
        matching = self._denials[1]
        if matching is None or matching.expressions != expressions:
            # Imports the engine, which most servers don't need.
            from micromegas_jupyter.engine.functions.denials import MatchRules

            matching = MatchRules(expressions)
        return rules, matching


def _describe(error: Exception) -> str:
    return error.what if isinstance(error, InvalidStatement) else str(error.args[0])


class EndsQueries(Protocol):
    """Stops running queries by their IDs."""

    def end(self, query_id: str, *, ended_by: str) -> bool:
        """Stop a query by a user who was cut off; return False if no query with this ID is running."""


class CutOffService:
    """Stops open calls of users who are cut off, and handles the action. Belongs to one event loop."""

    def __init__(
        self,
        deny_list: DenyList | None,
        queries: EndsQueries,
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
        """Check the file every second and apply it, until canceled."""
        while self._deny_list is not None:
            await asyncio.sleep(CHECK_SECONDS)
            try:
                await self._deny_list.refresh()
                self._apply()
            except Exception:  # noqa: BLE001 - a defect in one round must not end the rounds
                _LOG.exception("users who are cut off could not be looked up")

    def _apply(self) -> None:
        """Stop open calls of users who are cut off, and report them."""
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
            raise Unavailable("The storage for the denials file is not responding.") from None

    async def handle(self, call: Call, body: bytes) -> bytes:
        """Cut off a user, restore a user's access, or list the users who are cut off; for administrators."""
        if not call.caller.is_admin:
            raise PermissionDenied("Only administrators may cut off users.", reason="not_administrator")
        if self._deny_list is None:
            raise UnsupportedRequest(
                "This server doesn't have a denials file.",
                remedy="Set MICROMEGAS_QUERY_DENIALS_FILE for all its replicas.",
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
        check_may_change_state(call, "end or restore a user's access")
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
        """Cut off a user, and return the servers' reports from the next five seconds."""
        if cut_off.until is not None and cut_off.until <= cut_off.created_at:
            raise UsageError(
                "The cut-off's end time must be in the future.", remedy="Specify a later time, or omit it."
            )
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
        """Read the file immediately, apply it here, and return the users who are cut off."""
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
