"""The file that holds a server's denials: read and replaced in one step, changed by one process at a time.

All workers of a server, and servers that share a lake, share the file; what a rule means is `engine.denials`' matter.
"""

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from micromegas_jupyter import private_files
from micromegas_jupyter.engine.denials import Denial
from micromegas_jupyter.errors import Unavailable
from micromegas_jupyter.strict_json import JsonError, decode_strict_json

MAX_FILE_BYTES: Final = 1024 * 1024
_LOCK_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.02
_VERSION: Final = 1
_TEXTS: Final = ("rule_id", "created_at", "created_by", "reason", "match_expr")


class MalformedFile(Exception):
    """The file is not one of denials; `args[0]` says what is wrong, without what it holds."""


class DenialFile:
    """Rules in one file; safe to use from several threads and processes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock_path = path.with_name(f".{path.name}.lock")

    @property
    def name(self) -> str:
        """Return the file's name without its folder."""
        return self._path.name

    def mark(self) -> private_files.FileMark | None:
        """Return what tells one state of the file from another; None when there is none.

        Raises:
            FileProblem: It cannot be looked at.
        """
        return private_files.mark_of(self._path)

    def read(self) -> tuple[Denial, ...]:
        """Return the rules; none when there is no file.

        Raises:
            FileProblem: It cannot be used safely.
            MalformedFile: It is not one of denials.
        """
        try:
            content, _ = private_files.read_private_file(self._path, max_bytes=MAX_FILE_BYTES)
        except private_files.NoSuchFile:
            return ()
        return _parse(content)

    def change(self, change: Callable[[tuple[Denial, ...]], Sequence[Denial]]) -> None:
        """Replace the rules by what `change` makes of them; what it returns unchanged is not written.

        Raises:
            Unavailable: The file cannot be read or written, or another process holds it for too long.
            QueryError: `change` raised it.
        """
        try:
            with FileLock(self._lock_path, timeout=_LOCK_SECONDS, mode=0o600, poll_interval=_POLL_SECONDS):
                rules = self.read()
                changed = tuple(change(rules))
                if changed != rules:
                    private_files.write_private_file(self._path, _encode(changed))
        except (Timeout, OSError, private_files.FileProblem, MalformedFile) as error:
            raise Unavailable("The list of denied queries cannot be changed now.") from error


def new_rule(*, match_expr: str, reason: str, created_by: str, now: datetime) -> Denial:
    """Return a new rule with an id of its own."""
    return Denial(
        rule_id=str(uuid.uuid4()), created_at=now, created_by=created_by, reason=reason, match_expr=match_expr
    )


def with_hits(rules: Sequence[Denial], hits: Mapping[str, datetime]) -> list[Denial]:
    """Return the rules, each with the latest of its hits."""
    return [
        replace(rule, last_hit_at=hit)
        if (hit := hits.get(rule.rule_id)) is not None and (rule.last_hit_at is None or hit > rule.last_hit_at)
        else rule
        for rule in rules
    ]


def _encode(rules: Sequence[Denial]) -> bytes:
    described = [
        {
            "rule_id": rule.rule_id,
            "created_at": rule.created_at.isoformat(),
            "created_by": rule.created_by,
            "reason": rule.reason,
            "match_expr": rule.match_expr,
            **({} if rule.last_hit_at is None else {"last_hit_at": rule.last_hit_at.isoformat()}),
        }
        for rule in rules
    ]
    return (json.dumps({"version": _VERSION, "rules": described}, indent=2) + "\n").encode()


def _parse(content: bytes) -> tuple[Denial, ...]:
    try:
        found = decode_strict_json(content.decode("utf-8"), max_depth=4)
    except (UnicodeDecodeError, JsonError) as error:
        raise MalformedFile("it is not JSON") from error
    if not isinstance(found, dict) or found.get("version") != _VERSION or not isinstance(found.get("rules"), list):
        raise MalformedFile('it is not an object with "version": 1 and a list of "rules"')
    rules = tuple(_parse_rule(place, rule) for place, rule in enumerate(found["rules"], start=1))
    if len({rule.rule_id for rule in rules}) < len(rules):
        raise MalformedFile("two of its rules have the same rule_id")
    return rules


def _parse_rule(place: int, rule: object) -> Denial:
    if not isinstance(rule, dict) or not all(isinstance(rule.get(name), str) and rule[name] for name in _TEXTS):
        raise MalformedFile(f"rule {place} lacks one of {', '.join(_TEXTS)}")
    last_hit = rule.get("last_hit_at")
    return Denial(
        rule_id=rule["rule_id"],
        created_at=_parse_time(place, rule["created_at"]),
        created_by=rule["created_by"],
        reason=rule["reason"],
        match_expr=rule["match_expr"],
        last_hit_at=None if last_hit is None else _parse_time(place, last_hit),
    )


def _parse_time(place: int, text: object) -> datetime:
    try:
        moment = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        moment = None
    if moment is None or moment.utcoffset() is None:
        raise MalformedFile(f"a time of rule {place} is not RFC 3339 with an offset")
    return moment.astimezone(UTC)
