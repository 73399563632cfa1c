"""API keys: the validator of configured keys, and the file that `micromegas keys` keeps them in."""

import hashlib
import logging
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from hmac import compare_digest
from pathlib import Path
from typing import TypeAlias

from filelock import FileLock, Timeout

from micromegas_jupyter.access.audit import Claimed, record_event
from micromegas_jupyter.access.rate_limit import DailyTurns
from micromegas_jupyter.access.roles import Rights
from micromegas_jupyter.access.validator import (
    Accepted,
    DecidingValidator,
    Decision,
    Refused,
    digest_name,
    plausible_digest,
    token_digest,
)
from micromegas_jupyter.config.access import (
    API_KEY_ISSUER,
    ApiKeySetting,
    LegacyApiKeys,
    parse_api_keys,
    render_api_keys,
)
from micromegas_jupyter.core import files as private_files
from micromegas_jupyter.core.protocols import AuthContext, AuthType, Secret
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock, Randomness
from micromegas_jupyter.errors import ConfigurationError, Unavailable, UsageError

_ID = re.compile(r"[0-9a-f]{8,64}")
_LONGER_ID_DIGITS = 16
_MAX_SHOWN_CHARACTERS = 60


def key_digest(key: ApiKeySetting) -> bytes:
    """Return the SHA-256 digest of the key, whichever way it is configured."""
    if key.sha256 is not None:
        return key.sha256
    return token_digest("" if key.key is None else key.key.reveal())


def key_id(key: ApiKeySetting) -> str:
    """Return the key's short id, under which the server's log names it too."""
    return digest_name(key_digest(key))


def key_state(key: ApiKeySetting, *, now: datetime) -> str:
    """Return `valid`, `revoked` or `expired`."""
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at is not None and now >= key.expires_at else "valid"


def find_keys(keys: Sequence[ApiKeySetting], wanted: str) -> list[ApiKeySetting]:
    """Return all keys of that name, or else the one with that id.

    Raises:
        UsageError: There is none, or the text could mean several things.
    """
    named = [key for key in keys if key.name == wanted]
    digits = wanted.lower()
    numbered = [key for key in keys if key_digest(key).hex().startswith(digits)] if _ID.fullmatch(digits) else []
    if not named and not numbered:
        # Somebody may have given the key itself, so it is not repeated.
        raise UsageError("No key in the file has that name or id.", remedy="`micromegas keys list` shows them.")
    others = [key for key in numbered if key not in named]
    if (named and others) or len(others) > 1:
        ids = ", ".join(key_digest(key).hex()[:_LONGER_ID_DIGITS] for key in (*named, *others))
        raise UsageError(
            f"{wanted[:_MAX_SHOWN_CHARACTERS]!r} could mean several keys: {ids}.", remedy="Give more digits of the id."
        )
    return named or numbered


LEGACY_NOTICE = (
    "The server keeps your API key in an older form, which will be refused one day. "
    "Ask the server's administrator for a new key."
)

_SETTING = "MICROMEGAS_API_KEYS"
_DIGEST_BYTES = 32
# 128 bits are 22 characters of base64 or 32 of hexadecimal; anything below 16 characters cannot hold them.
_MIN_KEY_CHARACTERS = 16
_MAX_ROLE_WARNINGS = 100


class _KnownKey:
    """One key: its digest, what its bearer gets, and what may stand against that.

    Attributes:
        is_free: Whether nothing has to be looked at before the bearer gets it.
        refused: Set when the key is refused whatever the time.
        expired: The refusal once `ends_at` is there.
        warns_at: When the next warning about its form is due, in monotonic seconds.
    """

    __slots__ = ("accepted", "context", "digest", "ends_at", "expired", "is_free", "name", "refused", "warns_at")

    def __init__(
        self,
        digest: bytes,
        context: AuthContext,
        *,
        refused: Refused | None,
        warns: bool,
    ) -> None:
        self.name = context.subject
        self.digest = digest
        self.context = context
        self.accepted = Accepted(context=context)
        self.refused = refused
        self.ends_at = context.expires_at
        self.expired = None if self.ends_at is None else _refusal("api_key_expired", self.name)
        self.warns_at = 0.0 if warns else math.inf
        self.is_free = refused is None and self.ends_at is None and not warns


class ApiKeyValidator(DecidingValidator):
    """Knows each key by its SHA-256 digest only; the cost of a look-up does not depend on the number of keys.

    The bearer of a key is never an administrator, and may say on whose behalf it calls. A role that is not configured
    counts for nothing; where there are no roles at all, a key that names one is refused, because it would read
    everything. Safe to share between threads: nothing changes but the time of the next warning.

    Args:
        keys: The keys; several may have one name.
        legacy: What becomes of keys that are configured as plain text.
        rights: What the configured roles allow; None for everything.
        denied: Names whose keys are refused.
        clock: Tells the time.
        warnings: Remembers which keys were warned of; None for a memory of its own.

    Raises:
        ConfigurationError: One key stands there twice, be it as itself or as its digest, or a key is empty.
    """

    def __init__(  # noqa: PLR0913 - what a key may depend on
        self,
        keys: Iterable[ApiKeySetting],
        *,
        legacy: LegacyApiKeys = LegacyApiKeys.WARN,
        rights: Rights | None = None,
        denied: AbstractSet[str] = frozenset(),
        clock: Clock = SYSTEM_CLOCK,
        warnings: DailyTurns | None = None,
    ) -> None:
        self._clock = clock
        self._warnings = DailyTurns(clock) if warnings is None else warnings
        self._legacy = legacy
        self._rights = Rights() if rights is None else rights
        self._denied = denied
        self._keys: dict[bytes, _KnownKey] = {}
        self._role_warnings = 0
        for setting in keys:
            self._add(setting)

    def cached_context(self, token: str) -> AuthContext | None:
        """Return the key's context; a look-up needs no I/O, so this knows every key."""
        digest = plausible_digest(token)
        return None if digest is None else self.cached_by_digest(digest)

    def cached_by_digest(self, digest: bytes) -> AuthContext | None:
        """Return what `cached_context` returns for the credential with this digest."""
        known = self._keys.get(digest)
        if known is None or not compare_digest(known.digest, digest):
            return None
        if known.is_free:
            return known.context
        return known.context if self._refusal_of(known) is None else None

    def decide(self, token: str) -> Decision:
        """Look the key up."""
        digest = token_digest(token)
        known = self._keys.get(digest)
        if known is None or not compare_digest(known.digest, digest):
            return Refused(reason="unknown_api_key")
        return known.accepted if known.is_free else self._refusal_of(known) or known.accepted

    def _refusal_of(self, known: _KnownKey) -> Refused | None:
        if known.refused is not None:
            return known.refused
        if known.ends_at is not None and self._clock.now() >= known.ends_at:
            return known.expired
        if known.warns_at is not math.inf and self._clock.monotonic() >= known.warns_at:
            self._warn(known)
        return None

    def _warn(self, known: _KnownKey) -> None:
        is_due, known.warns_at = self._warnings.take(known.digest)
        if is_due:
            record_event(
                logging.WARNING,
                "An API key is kept as plain text; replace it with one that `micromegas keys create` makes.",
                subject=known.name,
                credential=digest_name(known.digest),
            )

    def _add(self, setting: ApiKeySetting) -> None:
        digest = _digest_of(setting)
        known = self._keys.get(digest)
        if known is not None:
            raise ConfigurationError(
                f"The API keys of {known.name!r} and {setting.name!r} are the same key.",
                key=_SETTING,
                remedy="Give each entry its own key.",
            )
        is_legacy = setting.key is not None
        if setting.key is not None and len(setting.key.reveal()) < _MIN_KEY_CHARACTERS:
            record_event(logging.WARNING, "An API key is short enough to be guessed.", subject=setting.name)
        warns = is_legacy and self._legacy is LegacyApiKeys.WARN
        roles = self._rights.all_roles(setting.roles)
        table_access = self._rights.table_access(roles, is_admin=False)
        refused = self._lasting_refusal(setting, has_roles=table_access is not None)
        self._warn_of_roles(setting, digest, [role for role in setting.roles if role not in roles])
        context = AuthContext(
            subject=setting.name,
            issuer=API_KEY_ISSUER,
            auth_type=AuthType.API_KEY,
            expires_at=setting.expires_at,
            may_delegate=True,
            roles=roles,
            scopes=setting.scopes,
            table_access=table_access,
            notice=LEGACY_NOTICE if warns else None,
        )
        self._keys[digest] = _KnownKey(digest, context, refused=refused, warns=warns)

    def _warn_of_roles(self, setting: ApiKeySetting, digest: bytes, unknown: Iterable[str]) -> None:
        """Tell, once a day, of roles that are not configured; of a key that has ended nothing is said."""
        if key_state(setting, now=self._clock.now()) != "valid":
            return
        for role in unknown:
            if self._role_warnings >= _MAX_ROLE_WARNINGS:
                return
            is_due, _ = self._warnings.take(digest + role.encode("utf-8", "surrogatepass"))
            if is_due:
                self._role_warnings += 1
                record_event(
                    logging.WARNING,
                    "An API key names a role that is not configured; the role counts for nothing.",
                    subject=setting.name,
                    credential=digest_name(digest),
                    role=role,
                )

    def _lasting_refusal(self, setting: ApiKeySetting, *, has_roles: bool) -> Refused | None:
        if setting.revoked_at is not None:
            return _refusal("api_key_revoked", setting.name)
        if setting.name in self._denied:
            return _refusal("denied", setting.name)
        if setting.roles and not has_roles:
            return _refusal("api_key_roles_not_configured", setting.name)
        if setting.key is not None and self._legacy is LegacyApiKeys.REFUSE:
            return _refusal("legacy_api_key_refused", setting.name)
        return None


def _refusal(reason: str, name: str) -> Refused:
    return Refused(reason=reason, claimed=Claimed(issuer=API_KEY_ISSUER, subject=name))


def _digest_of(setting: ApiKeySetting) -> bytes:
    text = None if setting.key is None else setting.key.reveal()
    if (text is None) == (setting.sha256 is None) or text == "":
        raise ConfigurationError(
            f"The API key of {setting.name!r} is not exactly one of a key and the digest of one.", key=_SETTING
        )
    digest = key_digest(setting)
    if len(digest) != _DIGEST_BYTES:
        raise ConfigurationError(f"The digest of {setting.name!r} does not have {_DIGEST_BYTES} bytes.", key=_SETTING)
    return digest


API_KEY_PREFIX = "mmk_"
MAX_KEY_FILE_BYTES = 32 * 1024 * 1024
LOCK_WAIT_SECONDS = 20.0

_KEY_BYTES = 32

Keys: TypeAlias = tuple[ApiKeySetting, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewApiKey:
    """A key that was just made: what its bearer gets, and what is kept of it."""

    secret: Secret
    setting: ApiKeySetting


def make_api_key(  # noqa: PLR0913 - what a key may be limited to
    name: str,
    *,
    randomness: Randomness,
    now: datetime,
    scopes: frozenset[str],
    roles: Sequence[str] = (),
    expires_at: datetime | None = None,
) -> NewApiKey:
    """Draw a key of 256 bits; only its digest is in the setting."""
    text = API_KEY_PREFIX + randomness.token_urlsafe(_KEY_BYTES)
    setting = ApiKeySetting(
        name=name,
        sha256=hashlib.sha256(text.encode("ascii")).digest(),
        scopes=scopes,
        roles=tuple(dict.fromkeys(roles)),
        created_at=now,
        expires_at=expires_at,
    )
    return NewApiKey(secret=Secret(text), setting=setting)


class KeyFile:
    """Keys in a file. Holds nothing open between calls; safe to use from several threads and processes.

    A file that cannot be read in full is never written to. One that is there keeps its owner, group and mode, so
    that the server's account can read it as before; a new one is open to its owner only.

    Args:
        path: The file; `~` is expanded. Beside it lies `<name>.lock`.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(os.path.abspath(Path(path).expanduser()))  # noqa: PTH100 - resolve() would follow a link
        self._lock_path = self._path.with_name(self._path.name + ".lock")

    def load(self) -> Keys:
        """Return the keys in the file.

        Raises:
            UsageError: There is no such file, or it cannot be used safely.
            ConfigurationError: What it holds is no list of keys.
        """
        try:
            content, _ = private_files.read_private_file(self._path, max_bytes=MAX_KEY_FILE_BYTES, closes=False)
        except private_files.FileProblem as problem:
            raise self._unusable(problem) from problem.__cause__
        return _parse(content, self._path.name)

    def change(self, changed: Callable[[Keys], Keys], *, creates: bool = False) -> None:
        """Replace the keys by what `changed` makes of them, with no other writer in between.

        Args:
            changed: Called with the keys that are there, while the lock is held.
            creates: Whether a file that does not exist is made.

        Raises:
            UsageError: The file cannot be used safely, or, without `creates`, does not exist.
            ConfigurationError: What it holds, or would hold, is no list of keys; it is left as it is.
            Unavailable: Another program holds the lock too long.
        """
        if not self._path.parent.is_dir():
            raise UsageError(
                f"The folder of the key file {self._path.name} does not exist.",
                remedy="Make the folder, or correct --file.",
            )
        try:
            private_files.check_replaceable(self._path)
            private_files.check_replaceable(self._lock_path)
            with self._locked():
                private_files.remove_leftovers(self._path)
                is_new = creates and private_files.mark_of(self._path) is None
                text = render_api_keys(changed(() if is_new else self.load()))
                _parse(text.encode(), self._path.name)  # what the server could not read is not written
                private_files.write_private_file(self._path, text.encode(), keeps_rights=True)
        except private_files.FileProblem as problem:
            raise self._unusable(problem) from problem.__cause__

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = FileLock(self._lock_path, timeout=LOCK_WAIT_SECONDS, mode=private_files.PRIVATE_FILE_MODE)
        try:
            lock.acquire()
        except Timeout:
            raise Unavailable(f"Another program is busy with {self._path.name} and does not finish.") from None
        except OSError as error:
            raise UsageError(f"The lock file {self._lock_path.name} cannot be used.") from error
        try:
            yield
        finally:
            lock.release()

    def _unusable(self, problem: private_files.FileProblem) -> UsageError:
        if isinstance(problem, private_files.NoSuchFile):
            return UsageError(
                f"There is no key file {self._path.name}.",
                remedy="Correct --file, or make the first key with `micromegas keys create NAME --file FILE`.",
            )
        return UsageError(
            f"The key file {self._path.name} {problem.args[0]}.",
            remedy="Name an ordinary file of your own; to change that of another account, run as that account.",
        )


def _parse(content: bytes, name: str) -> Keys:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigurationError(f"{name} is not UTF-8 text.", key=name) from None
    return parse_api_keys(text, name)
