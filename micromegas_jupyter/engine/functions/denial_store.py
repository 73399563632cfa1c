"""Stores the rules that deny queries: one file, replaced atomically, changed by one process at a time.

Servers that share a lake share the file. `denials` decides whether a rule applies to a query.
"""

import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from filelock import FileLock, Timeout

from micromegas_jupyter.core import files as private_files
from micromegas_jupyter.core.json import JsonError, decode_strict_json
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock
from micromegas_jupyter.errors import InvalidStatement, Unavailable

#: What a rule can name, all of them text; NULL is what the client did not send.
MATCH_COLUMNS: Final = (
    "user_id", "email", "service_account", "client", "agent", "entrypoint", "session", "notebook", "cell", "client_ip",
    "sql", "sql_hash",
)  # fmt: skip

MAX_RULES: Final = 100
_LOG: Final = logging.getLogger("micromegas_jupyter.server")
_MAX_REASON_LENGTH: Final = 256
_MAX_NAME_LENGTH: Final = 256
MAX_FILE_BYTES: Final = 1024 * 1024
_LOCK_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.02
_Text = Annotated[str, msgspec.Meta(min_length=1)]
_Time = Annotated[datetime, msgspec.Meta(tz=True)]


class MalformedFile(Exception):
    """The file cannot be parsed; `args[0]` says what is wrong, without its content."""


class Denial(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One rule: an expression over `MATCH_COLUMNS`, a reason that denied callers see, and when it last denied one."""

    rule_id: _Text
    created_at: _Time
    created_by: _Text
    reason: _Text
    match_expr: _Text
    last_hit_at: _Time | None = None


class _File(msgspec.Struct, frozen=True, kw_only=True):
    version: Literal[1]
    rules: tuple[Denial, ...]


class DenialStore:
    """Rules in one file. Safe to use from several threads and processes; whoever handles `has_changed` resets it."""

    def __init__(self, path: Path, *, clock: Clock = SYSTEM_CLOCK, max_rules: int = MAX_RULES) -> None:
        self._path = path
        self._clock = clock
        self._max_rules = max_rules
        self.has_changed = False
        self._lock_path = path.with_name(f".{path.name}.lock")

    @property
    def name(self) -> str:
        """Return the file's name without its folder."""
        return self._path.name

    def mark(self) -> private_files.FileMark | None:
        """Return what tells one state of the file from another; None when there is none."""
        return private_files.mark_of(self._path)

    def read(self) -> tuple[Denial, ...]:
        """Return the rules; none when there is no file."""
        try:
            content, _ = private_files.read_private_file(self._path, max_bytes=MAX_FILE_BYTES)
        except private_files.NoSuchFile:
            return ()
        return _parse(content)

    def change(self, change: Callable[[tuple[Denial, ...]], Sequence[Denial]]) -> None:
        """Replace the rules by what `change` makes of them; what it returns unchanged is not written."""
        try:
            with FileLock(self._lock_path, timeout=_LOCK_SECONDS, mode=0o600, poll_interval=_POLL_SECONDS):
                rules = self.read()
                changed = tuple(change(rules))
                if changed != rules:
                    private_files.write_private_file(self._path, _encode(changed))
        except (Timeout, OSError, private_files.FileProblem, MalformedFile) as error:
            raise Unavailable("The list of denied queries cannot be changed now.") from error

    def rules(self) -> Sequence[Denial]:
        """Return all rules."""
        try:
            return self.read()
        except (private_files.FileProblem, MalformedFile) as error:
            raise Unavailable("The list of denied queries cannot be read now.") from error

    def add(self, match_expr: str, reason: str, *, created_by: str) -> str:
        """Add a rule and return its id."""
        if not 0 < len(reason.strip()) <= _MAX_REASON_LENGTH or not reason.isprintable():
            raise InvalidStatement(
                f"A denial needs a reason of 1 to {_MAX_REASON_LENGTH} printable characters.",
                remedy="Say why: denied callers see it.",
            )
        rule_id, now = str(uuid.uuid4()), self._clock.now()
        maker = created_by[:_MAX_NAME_LENGTH]
        rule = Denial(rule_id=rule_id, created_at=now, created_by=maker, reason=reason, match_expr=match_expr)

        def added(rules: tuple[Denial, ...]) -> Sequence[Denial]:
            if len(rules) >= self._max_rules:
                raise InvalidStatement(
                    f"There are {len(rules)} denials already, the most that are allowed.",
                    remedy="Remove one first: SELECT remove_query_denial('…').",
                )
            return [*rules, rule]

        self.change(added)
        self.has_changed = True
        _LOG.warning("a query denial was added, rule_id=%s created_by=%s", rule_id, maker)
        return rule_id

    def remove(self, rule_id: str) -> bool:
        """Remove a rule; False when there is none with this id."""
        removed: list[Denial] = []

        def without_rule(rules: tuple[Denial, ...]) -> Sequence[Denial]:
            removed.extend(rule for rule in rules if rule.rule_id == rule_id)
            return [rule for rule in rules if rule.rule_id != rule_id]

        self.change(without_rule)
        if removed:
            self.has_changed = True
            _LOG.warning("a query denial was removed, rule_id=%s", rule_id)
        return bool(removed)


def with_hits(rules: Sequence[Denial], hits: Mapping[str, datetime]) -> list[Denial]:
    """Return the rules, each with the latest of its hits."""
    return [
        msgspec.structs.replace(rule, last_hit_at=hit)
        if (hit := hits.get(rule.rule_id)) is not None and (rule.last_hit_at is None or hit > rule.last_hit_at)
        else rule
        for rule in rules
    ]


def _encode(rules: tuple[Denial, ...]) -> bytes:
    return msgspec.json.format(msgspec.json.encode(_File(version=1, rules=rules)), indent=2) + b"\n"


def _parse(content: bytes) -> tuple[Denial, ...]:
    try:
        rules = msgspec.convert(decode_strict_json(content.decode("utf-8"), max_depth=4), _File).rules
    except (UnicodeDecodeError, JsonError) as error:
        raise MalformedFile("it is not JSON") from error
    except msgspec.ValidationError as error:
        raise MalformedFile(f"it is not a list of rules: {error}") from error
    if len({rule.rule_id for rule in rules}) < len(rules):
        raise MalformedFile("two of its rules have the same rule_id")
    return rules
