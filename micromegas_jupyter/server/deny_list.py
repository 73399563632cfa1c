"""Refuses queries that an administrator has denied, before they are planned.

Rules are made and removed while the server runs, by SQL (`engine.denial_functions`) or in the file; every worker sees a
change of the file within `check_seconds`.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from micromegas_jupyter.contracts import AuthType
from micromegas_jupyter.engine import fingerprints
from micromegas_jupyter.engine.denial_functions import names_denial_function
from micromegas_jupyter.engine.denials import Denial, MatchRules, check_match
from micromegas_jupyter.engine.settings import MAX_STATEMENT_BYTES
from micromegas_jupyter.errors import ConfigurationError, InvalidStatement, QueryDenied, Unavailable
from micromegas_jupyter.private_files import FileMark, FileProblem
from micromegas_jupyter.seams import SYSTEM_CLOCK, Clock
from micromegas_jupyter.server.audit import QueryFacts
from micromegas_jupyter.server.denial_file import DenialFile, MalformedFile, new_rule, with_hits

if TYPE_CHECKING:
    from datetime import datetime

_LOG: Final = logging.getLogger("micromegas_jupyter.server")
MAX_RULES: Final = 100
CHECK_SECONDS: Final = 1.0
_HIT_SECONDS: Final = 5.0
_LONGEST_REASON: Final = 256
_LONGEST_NAME: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class _State:
    """The rules as they were last read, ready to be applied."""

    rules: tuple[Denial, ...] = ()
    matching: MatchRules = field(default_factory=lambda: MatchRules(()))


class DenyList:
    """The denials of one server; implements `engine.denials.Denials`.

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
        self._file = DenialFile(path)
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

    def rules(self) -> Sequence[Denial]:
        """Return all rules as they stand in the file, with this process's latest hits.

        Raises:
            Unavailable: The file cannot be read now.
        """
        try:
            rules = self._file.read()
        except (FileProblem, MalformedFile) as error:
            raise Unavailable("The list of denied queries cannot be read now.") from error
        with self._lock:
            return with_hits(rules, self._hits)

    def add(self, match_expr: str, reason: str, *, created_by: str) -> str:
        """Add a rule and return its id; it holds in this process at once.

        Raises:
            InvalidStatement: The expression or the reason cannot be used, or there are too many rules.
            Unavailable: The file cannot be written now.
        """
        if not 0 < len(reason.strip()) <= _LONGEST_REASON or not reason.isprintable():
            raise InvalidStatement(
                f"A denial needs a reason of 1 to {_LONGEST_REASON} printable characters.",
                remedy="Say why: whoever is denied is told it.",
            )
        check_match(match_expr)
        rule = new_rule(
            match_expr=match_expr, reason=reason, created_by=created_by[:_LONGEST_NAME], now=self._clock.now()
        )

        def added(rules: tuple[Denial, ...]) -> Sequence[Denial]:
            if len(rules) >= self._max_rules:
                raise InvalidStatement(
                    f"There are {len(rules)} denials already, as many as there may be.",
                    remedy="Remove one first: SELECT remove_query_denial('…').",
                )
            return [*rules, rule]

        self._file.change(added)
        _LOG.warning("a query denial was added, rule_id=%s created_by=%s", rule.rule_id, rule.created_by)
        self._reload()
        return rule.rule_id

    def remove(self, rule_id: str) -> bool:
        """Remove a rule; False when there is none with this id.

        Raises:
            Unavailable: The file cannot be written now.
        """
        removed: list[Denial] = []

        def kept(rules: tuple[Denial, ...]) -> Sequence[Denial]:
            removed.extend(rule for rule in rules if rule.rule_id == rule_id)
            return [rule for rule in rules if rule.rule_id != rule_id]

        self._file.change(kept)
        if removed:
            _LOG.warning("a query denial was removed, rule_id=%s", rule_id)
        self._reload()
        return bool(removed)

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
        if not state.rules or len(facts.request.sql) > MAX_STATEMENT_BYTES:
            return  # what is longer is refused for that, and reading it would cost more than running a short one
        found = _match_facts(facts)
        hashes = fingerprints(facts.request.sql)
        if state.matching.are_quick:
            place = state.matching.first_match(found, hashes)
        else:
            place = await asyncio.to_thread(state.matching.first_match, found, hashes)
        if place is not None and not (facts.caller.is_admin and names_denial_function(facts.request.sql)):
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
            self._reload()

    def _reload(self) -> None:
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
        before = self._state.matching
        return mark, _State(
            rules=rules, matching=before if before.expressions == expressions else MatchRules(expressions)
        )


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
        "sql": facts.request.sql,
    }


def _problem(error: Exception) -> str:
    return error.what if isinstance(error, InvalidStatement) else str(error.args[0])
