"""Stores the rules that deny queries, and the users who are cut off, in one file in a directory or a bucket.

The file is replaced completely if it has not changed since it was read. Servers that share a lake share the file.
`denials` decides whether a rule applies to a query, `server.cut_off` whether a caller is cut off.
"""

import logging
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from micromegas_jupyter.core import files as private_files
from micromegas_jupyter.core.storage import S3_SCHEME, Storage
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock, jitter
from micromegas_jupyter.core.text import JsonError, decode_strict_json
from micromegas_jupyter.errors import InvalidStatement, ResourcesExhausted, Unavailable, UsageError

#: The columns that rules can use. All are strings; NULL means that the client did not send the value.
MATCH_COLUMNS: Final = (
    "user_id", "email", "service_account", "client", "agent", "entrypoint", "session", "notebook", "cell", "client_ip",
    "sql", "sql_hash",
)  # fmt: skip

MAX_RULES: Final = 100
MAX_CUT_OFF: Final = 1000
REPORT_PERIOD: Final = timedelta(minutes=1)
_MAX_REPORTED: Final = 20
_MAX_DEPTH: Final = 7
_LOG: Final = logging.getLogger("micromegas_jupyter.server")
_MAX_REASON_LENGTH: Final = 256
_MAX_NAME_LENGTH: Final = 256
MAX_FILE_BYTES: Final = 1024 * 1024
_MAX_ATTEMPTS: Final = 20
_RETRY_SECONDS: Final = 0.1
_Text = Annotated[str, msgspec.Meta(min_length=1)]
_Time = Annotated[datetime, msgspec.Meta(tz=True)]


class MalformedFile(Exception):
    """The file cannot be parsed; `args[0]` describes the problem without quoting its content."""


class Denial(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One rule: an expression over `MATCH_COLUMNS`, a reason that denied callers see, and its last hit."""

    rule_id: _Text
    created_at: _Time
    created_by: _Text
    reason: _Text
    match_expr: _Text
    last_hit_at: _Time | None = None


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """A server's report that it is rejecting a user's calls: the number of stopped calls, and some query IDs."""

    server: _Text
    ended: int = 0
    query_ids: tuple[str, ...] = ()


class CutOff(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A user whose calls are rejected, either permanently or `until` a time; `applied` is cleared after a minute."""

    issuer: _Text
    subject: _Text
    created_at: _Time
    created_by: _Text
    email: str | None = None
    until: _Time | None = None
    applied: tuple[Applied, ...] = ()

    @property
    def identity(self) -> str:
        """The user as configured, `issuer|subject`."""
        return f"{self.issuer}|{self.subject}"

    def is_over(self, now: datetime) -> bool:
        """Whether it has expired."""
        return self.until is not None and self.until <= now


class DenialFile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The content of the file. Version 2 adds `cut_off`; servers that don't support it must not rewrite the file."""

    version: Literal[1, 2]
    rules: tuple[Denial, ...]
    cut_off: tuple[CutOff, ...] = ()


_NO_DENIALS: Final = DenialFile(version=1, rules=())


class DenialStore:
    """Rules and cut-off users in one file: a path, or a URL such as `s3://bucket/prefix/name.json`.

    Safe to use from several threads and processes; the code that handles `has_changed` resets it.
    """

    def __init__(self, location: Path | str, *, clock: Clock = SYSTEM_CLOCK, max_rules: int = MAX_RULES) -> None:
        text = str(location)
        folder, _, self.name = (
            text.rpartition("/") if text.startswith(S3_SCHEME) else (Path(text).parent, "", Path(text).name)
        )
        self._storage = Storage(folder)
        self._clock = clock
        self._max_rules = max_rules
        self.has_changed = False

    def mark(self) -> str | None:
        """Return a string that identifies the file's content, or None if the file does not exist. Uses the network."""
        found = self._load()
        return None if found is None else found[1]

    def read(self) -> DenialFile:
        """Return the content, which is empty if the file does not exist."""
        found = self._load()
        return _NO_DENIALS if found is None else _parse(found[0])

    def change(self, change: Callable[[tuple[Denial, ...]], Sequence[Denial]]) -> None:
        """Replace the rules with the result of `change`, which is called again after a conflicting write."""
        self._change(lambda file: msgspec.structs.replace(file, rules=tuple(change(file.rules))))

    def change_cut_off(self, change: Callable[[tuple[CutOff, ...]], Sequence[CutOff]]) -> None:
        """Like `change`, but replaces the list of cut-off users; also drops expired entries.

        Raises:
            Unavailable: The file cannot be read or written now.
        """

        def changed(file: DenialFile) -> DenialFile:
            now = self._clock.now()
            kept = [one for one in change(file.cut_off) if not one.is_over(now)]
            # Reports are kept only as long as an administrator may be waiting for them.
            newest = sorted(one.created_at for one in kept)[-_MAX_REPORTED:]
            kept = [
                one
                if now - one.created_at <= REPORT_PERIOD and one.created_at in newest
                else msgspec.structs.replace(one, applied=())
                for one in kept
            ]
            if len(kept) > MAX_CUT_OFF:
                raise UsageError(
                    f"{MAX_CUT_OFF} users are already cut off, which is the maximum.",
                    remedy="Remove users from the identity provider, and restore their access here.",
                )
            return msgspec.structs.replace(file, version=2 if kept else 1, cut_off=tuple(kept))

        self._change(changed)

    def _change(self, change: Callable[[DenialFile], DenialFile]) -> None:
        written: bytes | None = None
        try:
            for attempt in range(_MAX_ATTEMPTS):
                if attempt:
                    threading.Event().wait(_RETRY_SECONDS * jitter())
                content, mark = self._load() or (b"", None)
                if written is not None and content == written:
                    return  # only the response to this write was lost
                found = _parse(content) if mark is not None else _NO_DENIALS
                changed = change(found)
                if changed == found:
                    return
                written = _encode(changed)
                if len(written) > MAX_FILE_BYTES:
                    # Servers couldn't read a larger file.
                    raise UsageError(
                        "The denial file would exceed 1 MiB.",
                        remedy="Remove denials, or restore the access of former users.",
                    )
                if self._storage.replace(self.name, written, mark=mark):
                    return
        except (private_files.FileProblem, MalformedFile, ResourcesExhausted) as error:
            raise Unavailable("The list of denied queries can't be changed right now.") from error
        raise Unavailable("Other users keep changing the list of denied queries.")

    def _load(self) -> tuple[bytes, str] | None:
        if self._storage.is_local:
            private_files.check_replaceable(Path(self._storage.child_uri(self.name)))
        try:
            return self._storage.read(self.name, max_bytes=MAX_FILE_BYTES)
        except Unavailable as error:
            raise private_files.FileProblem("is too large or cannot be read") from error

    def rules(self) -> Sequence[Denial]:
        """Return all rules."""
        try:
            return self.read().rules
        except (private_files.FileProblem, MalformedFile) as error:
            raise Unavailable("The list of denied queries cannot be read right now.") from error

    def add(self, match_expr: str, reason: str, *, created_by: str) -> str:
        """Add a rule and return its ID."""
        if not 0 < len(reason.strip()) <= _MAX_REASON_LENGTH or not reason.isprintable():
            raise InvalidStatement(
                f"A denial requires a reason of 1 to {_MAX_REASON_LENGTH} printable characters.",
                remedy="Specify a reason, which denied callers will see.",
            )
        rule_id, now = str(uuid.uuid4()), self._clock.now()
        maker = created_by[:_MAX_NAME_LENGTH]
        rule = Denial(rule_id=rule_id, created_at=now, created_by=maker, reason=reason, match_expr=match_expr)

        def added(rules: tuple[Denial, ...]) -> Sequence[Denial]:
            if any(one.rule_id == rule_id for one in rules):
                return rules  # only the response was lost, and other writers have changed the file since
            if len(rules) >= self._max_rules:
                raise InvalidStatement(
                    f"There are already {len(rules)} denials, which is the maximum.",
                    remedy="Remove one first: SELECT remove_query_denial('…').",
                )
            return [*rules, rule]

        self.change(added)
        self.has_changed = True
        _LOG.warning("a query denial was added, rule_id=%s created_by=%s", rule_id, maker)
        return rule_id

    def remove(self, rule_id: str) -> bool:
        """Remove a rule, or return False if no rule has this ID."""
        removed: list[Denial] = []

        def without_rule(rules: tuple[Denial, ...]) -> Sequence[Denial]:
            removed[:] = [rule for rule in rules if rule.rule_id == rule_id]
            return [rule for rule in rules if rule.rule_id != rule_id]

        self.change(without_rule)
        if removed:
            self.has_changed = True
            _LOG.warning("a query denial was removed, rule_id=%s", rule_id)
        return bool(removed)


def with_hits(rules: Sequence[Denial], hits: Mapping[str, datetime]) -> list[Denial]:
    """Return the rules, each with its latest hit."""
    return [
        msgspec.structs.replace(rule, last_hit_at=hit)
        if (hit := hits.get(rule.rule_id)) is not None and (rule.last_hit_at is None or hit > rule.last_hit_at)
        else rule
        for rule in rules
    ]


def _encode(file: DenialFile) -> bytes:
    members = {"version": file.version, "rules": file.rules, **({"cut_off": file.cut_off} if file.cut_off else {})}
    return msgspec.json.format(msgspec.json.encode(members), indent=2) + b"\n"


def _parse(content: bytes) -> DenialFile:
    try:
        file = msgspec.convert(decode_strict_json(content.decode("utf-8"), max_depth=_MAX_DEPTH), DenialFile)
    except (UnicodeDecodeError, JsonError) as error:
        raise MalformedFile("it is not JSON") from error
    except msgspec.ValidationError as error:
        raise MalformedFile(f"it is not a list of rules: {error}") from error
    if len({rule.rule_id for rule in file.rules}) < len(file.rules):
        raise MalformedFile("two of its rules have the same rule_id")
    return file
