"""Refuses queries that an administrator has denied, before they are planned.

Rules are made and removed while the server runs, by SQL (`engine.denials`, in an executor) or in the file; a
change of the file holds within `check_seconds`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from micromegas_jupyter.core.files import FileMark, FileProblem
from micromegas_jupyter.core.protocols import AuthType
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock
from micromegas_jupyter.engine import fingerprints
from micromegas_jupyter.engine.contract import MAX_STATEMENT_BYTES
from micromegas_jupyter.engine.functions.denial_store import MAX_RULES, Denial, DenialStore, MalformedFile, with_hits
from micromegas_jupyter.errors import ConfigurationError, InvalidStatement, QueryDenied, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

    from micromegas_jupyter.engine.functions.denials import MatchRules
    from micromegas_jupyter.server.audit import QueryFacts

_LOG: Final = logging.getLogger("micromegas_jupyter.server")
CHECK_SECONDS: Final = 1.0
_HIT_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _State:
    """The rules as they were last read, ready to be applied."""

    rules: tuple[Denial, ...] = ()
    matching: MatchRules | None = None


class DenyList:
    """The denials of one server.

    `_lock` covers the state and the hits that are not written yet; it is free during reading and writing.

    Args:
        path: The file with the rules; it need not exist.
        clock: Tells the time.
        max_rules: How many rules there may be.
        check_seconds: How often the file is looked at, at most.
        on_denied: Called with the rule's id for each query that is denied; must not block.

    Raises:
        ConfigurationError: The file is there and cannot be used.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock = SYSTEM_CLOCK,
        max_rules: int = MAX_RULES,
        check_seconds: float = CHECK_SECONDS,
        on_denied: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._file = DenialStore(path, clock=clock)
        self._clock = clock
        self._max_rules = max_rules
        self._check_seconds = check_seconds
        self._on_denied = on_denied
        self._lock = threading.Lock()
        self._hits: dict[str, datetime] = {}
        self._written_at = clock.monotonic()
        self._checked_at = clock.monotonic()
        self._mark: FileMark | None = None
        self._state = _State()
        try:
            self._mark, self._state = self._read()
        except (FileProblem, MalformedFile, InvalidStatement) as error:
            raise ConfigurationError(
                f"The list of denied queries ({self._file.name}) cannot be used: {_problem(error)}.",
                key=self._file.name,
                remedy="Correct or remove the file, and start again.",
            ) from None

    async def check(self, facts: QueryFacts) -> None:
        """Let a query pass that no rule denies, and any of an administrator that names a function of denials.

        Raises:
            QueryDenied: A rule denies it.
        """
        now = self._clock.monotonic()
        if now - self._checked_at >= self._check_seconds:
            self._checked_at = now  # first, so that queries beside this one do not look as well
            await asyncio.to_thread(self._reload_if_changed)
        state = self._state
        if state.matching is None or len(facts.statement.sql) > MAX_STATEMENT_BYTES:
            return  # what is longer is refused for that, and reading it would cost more than running a short one
        found = _match_facts(facts)
        hashes = fingerprints(facts.statement.sql)
        if not state.matching.needs_engine:
            place = state.matching.first_match(found, hashes)
        else:
            place = await asyncio.to_thread(state.matching.first_match, found, hashes)
        if place is None:
            return
        from micromegas_jupyter.engine.functions.denials import names_denial_function

        if not (facts.caller.is_admin and names_denial_function(facts.statement.sql)):
            await self._deny(state.rules[place], facts)

    async def _deny(self, rule: Denial, facts: QueryFacts) -> None:
        now = self._clock.monotonic()
        with self._lock:
            self._hits[rule.rule_id] = self._clock.now()
            is_due = now - self._written_at >= _HIT_SECONDS
            if is_due:
                self._written_at = now
        self._on_denied(rule.rule_id)
        _LOG.warning("query denied by rule %s: %s, user=%s", rule.rule_id, rule.reason, facts.attribution.user)
        if is_due:
            await asyncio.to_thread(self.write_hits)
        raise QueryDenied(f"This query is denied by rule {rule.rule_id}: {rule.reason.rstrip('.')}.", limit="denied")

    def write_hits(self) -> None:
        """Write when rules were last hit; a file that cannot be written is only told in the log."""
        with self._lock:
            hits, self._hits = self._hits, {}
        if not hits:
            return
        try:
            self._file.change(lambda rules: with_hits(rules, hits))
        except Unavailable:
            _LOG.warning("the last hits of query denials could not be written")

    def _reload_if_changed(self) -> None:
        now = self._clock.monotonic()
        if self._hits and now - self._written_at >= _HIT_SECONDS:
            self._written_at = now
            self.write_hits()
        try:
            mark = self._file.mark()
        except FileProblem:
            mark = None
        if mark != self._mark:
            self.reload()

    def reload(self) -> None:
        """Read the file again; one that cannot be used leaves the rules as they were."""
        try:
            mark, state = self._read()
        except (FileProblem, MalformedFile, InvalidStatement) as error:
            # Told once for each state of the file.
            try:
                self._mark = self._file.mark()
            except FileProblem:
                self._mark = None
            _LOG.error(
                "the list of denied queries cannot be used, the rules before it stay in force: %s", _problem(error)
            )
            return
        with self._lock:
            self._mark, self._state = mark, state

    def _read(self) -> tuple[FileMark | None, _State]:
        mark = self._file.mark()
        rules = self._file.read()
        if len(rules) > self._max_rules:
            raise MalformedFile(f"it has {len(rules)} rules, more than the {self._max_rules} that there may be")
        expressions = tuple(rule.match_expr for rule in rules)
        if not rules:
            return mark, _State()
        before = self._state.matching
        if before is not None and before.expressions == expressions:
            return mark, _State(rules=rules, matching=before)
        from micromegas_jupyter.engine.functions.denials import (
            MatchRules,  # loads the engine, which most servers need not here
        )

        return mark, _State(rules=rules, matching=MatchRules(expressions))


def _match_facts(facts: QueryFacts) -> dict[str, str | None]:
    tags = facts.tags
    return {
        "user_id": facts.attribution.user,
        "email": facts.attribution.email,
        "service_account": facts.caller.subject if facts.caller.auth_type is AuthType.API_KEY else None,
        "client": tags.client,
        "agent": tags.agent,
        "entrypoint": tags.entrypoint,
        **{name: tags.optional.get(name) for name in ("session", "notebook", "cell")},
        "client_ip": facts.client_address,
        "sql": facts.statement.sql,
    }


def _problem(error: Exception) -> str:
    return error.what if isinstance(error, InvalidStatement) else str(error.args[0])
