"""API keys: the validator for configured keys, and the file in which `micromegas keys` stores keys."""

import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from hmac import compare_digest
from pathlib import Path
from typing import TypeAlias

from filelock import FileLock, Timeout

from micromegas_jupyter.access.audit import Claimed, TokenBuckets, record_event
from micromegas_jupyter.access.validator import (
    Accepted,
    BaseValidator,
    Decision,
    Refused,
    Roles,
    digest_name,
    token_digest,
)
from micromegas_jupyter.config.access import (
    API_KEY_ISSUER,
    WRITE_SCOPE,
    ApiKeySetting,
    LegacyApiKeys,
    ingest_patterns,
    key_digest,
    parse_api_keys,
    render_api_keys,
)
from micromegas_jupyter.core import files as private_files
from micromegas_jupyter.core.protocols import AuthContext, AuthType, WriteAccess
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock, Randomness, Secret
from micromegas_jupyter.errors import ConfigurationError, Unavailable, UsageError

API_KEY_PREFIX = "mmk_"
MAX_KEY_FILE_BYTES = 32 * 1024 * 1024
LOCK_TIMEOUT_SECONDS = 20.0
LEGACY_NOTICE = (
    "The server stores your API key in an older format, which it will reject in a later version. "
    "Ask the server's administrator for a new key."
)
NOTICE_PERIOD = timedelta(days=14)
"""How long before a key expires its bearer is warned."""

_SETTING = "MICROMEGAS_API_KEYS"
_KEY_BYTES = 32
_DIGEST_BYTES = 32
# A 128-bit key has 22 base64 or 32 hexadecimal characters; fewer than 16 characters cannot be a key.
_MIN_KEY_CHARACTERS = 16
_MAX_ROLE_WARNINGS = 100
_ONE_DAY_SECONDS = 24 * 3600.0
_MAX_WARNED_KEYS = 100_000

_ID = re.compile(r"[0-9a-f]{8,64}")
_LONGER_ID_DIGITS = 16
_MAX_SHOWN_CHARACTERS = 60


def key_id(key: ApiKeySetting) -> str:
    """Return the key's short ID, which the server's log also uses."""
    return digest_name(key_digest(key))


def key_state(key: ApiKeySetting, *, now: datetime) -> str:
    """Return `valid`, `revoked` or `expired`."""
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at is not None and now >= key.expires_at else "valid"


def find_keys(keys: Sequence[ApiKeySetting], wanted: str) -> list[ApiKeySetting]:
    """Return all keys with that name; if no key has it, return the key with that ID."""
    named = [key for key in keys if key.name == wanted]
    digits = wanted.lower()
    numbered = [key for key in keys if key_digest(key).hex().startswith(digits)] if _ID.fullmatch(digits) else []
    if not named and not numbered:
        # The user may have passed the key itself, so don't repeat it.
        raise UsageError("No key in the file has this name or ID.", remedy="`micromegas keys list` shows them.")
    others = [key for key in numbered if key not in named]
    if (named and others) or len(others) > 1:
        ids = ", ".join(key_digest(key).hex()[:_LONGER_ID_DIGITS] for key in (*named, *others))
        raise UsageError(
            f"{wanted[:_MAX_SHOWN_CHARACTERS]!r} matches several keys: {ids}.",
            remedy="Specify more digits of the ID.",
        )
    return named or numbered


def daily_warnings(clock: Clock) -> TokenBuckets[bytes]:
    """Return limits that allow each warning once a day; they are kept across reloads so that no warning repeats."""
    return TokenBuckets(per_second=1 / _ONE_DAY_SECONDS, burst=1, max_tracked=_MAX_WARNED_KEYS, clock=clock)


class ApiKeyValidator(BaseValidator):
    """Validates API keys by their SHA-256 digest; lookup time does not depend on the number of keys.

    The bearer of a key is never an administrator, and may act on behalf of another user. Roles that are not configured
    grant nothing. If no roles are configured, keys that list roles are rejected, because they could read everything.
    Thread-safe.

    Args:
        keys: The keys; several may share a name.
        legacy: How to handle keys that are configured in plain text.
        roles: What the configured roles allow; None allows everything.
        denied: Names whose keys are rejected.
        clock: The current time.
        warnings: Remembers which keys were warned about; None creates a separate memory.
        may_have_keys: Whether the owner of a user-created key may still create such keys.

    Raises:
        ConfigurationError: A key is listed twice (as plain text or digest), or a key is empty.
    """

    def __init__(  # noqa: PLR0913 - what a key may depend on
        self,
        keys: Iterable[ApiKeySetting],
        *,
        legacy: LegacyApiKeys = LegacyApiKeys.WARN,
        roles: Roles | None = None,
        denied: AbstractSet[str] = frozenset(),
        clock: Clock = SYSTEM_CLOCK,
        warnings: TokenBuckets[bytes] | None = None,
        may_have_keys: Callable[[ApiKeySetting], bool] = lambda _: False,
    ) -> None:
        self._clock = clock
        self._may_have_keys = may_have_keys
        self._warnings = daily_warnings(clock) if warnings is None else warnings
        self._legacy = legacy
        self._roles = Roles() if roles is None else roles
        self._denied = denied
        self._keys: dict[bytes, tuple[bytes, Accepted | Refused]] = {}
        self._role_warnings = 0
        for setting in keys:
            self._add(setting)

    def cached_by_digest(self, digest: bytes) -> AuthContext | None:
        """Return the context of the key with this digest, or None. Needs no I/O, so every key is found."""
        decision = self._find(digest)
        return decision.context if isinstance(decision, Accepted) else None

    def decide(self, token: str) -> Decision:
        """Look up the key."""
        digest = token_digest(token)
        return (None if digest is None else self._find(digest)) or Refused(reason="unknown_api_key")

    def _find(self, digest: bytes) -> Accepted | Refused | None:
        own_digest, decision = self._keys.get(digest, (b"", None))
        if decision is None or not compare_digest(own_digest, digest):
            return None
        if isinstance(decision, Refused):
            return decision
        context = decision.context
        warning = "An API key is kept as plain text; replace it with one that `micromegas keys create` makes."
        if context.expires_at is not None:
            now = self._clock.now()
            if now >= context.expires_at:
                return _refusal("api_key_expired", context.subject)
            if context.notice is None and context.expires_at - now <= NOTICE_PERIOD:
                warning = "An API key that is in use ends soon."
                decision = Accepted(context=replace(context, notice=_end_notice(context.expires_at)))
        if decision.context.notice is not None and not self._warnings.take(digest):
            record_event(logging.WARNING, warning, subject=context.subject, credential=digest_name(digest))
        return decision

    def _add(self, setting: ApiKeySetting) -> None:
        text = None if setting.key is None else setting.key.reveal()
        digest = key_digest(setting)
        if (text is None) == (setting.sha256 is None) or text == "" or len(digest) != _DIGEST_BYTES:
            raise ConfigurationError(
                f"The API key of {setting.name!r} must be either a key or the SHA-256 digest of a key.",
                key=_SETTING,
            )
        if digest in self._keys:
            raise ConfigurationError(
                f"The API key of {setting.name!r} is listed twice.", key=_SETTING, remedy="Give each entry its own key."
            )
        if text is not None and len(text) < _MIN_KEY_CHARACTERS:
            record_event(logging.WARNING, "An API key is short enough to be guessed.", subject=setting.name)
        roles, table_access = self._roles.grant(setting.roles)
        self._warn_of_roles(setting, digest, [role for role in setting.roles if role not in roles])
        context = AuthContext(
            subject=setting.name,
            issuer=API_KEY_ISSUER,
            auth_type=AuthType.API_KEY,
            expires_at=setting.expires_at,
            may_delegate=setting.owner_groups is None,
            roles=roles,
            scopes=setting.scopes,
            table_access=table_access,
            max_scan_bytes=self._roles.scan_limit(roles),
            write_access=self._write_access(setting, roles),
            owner=setting.owner,
            notice=LEGACY_NOTICE if text is not None and self._legacy is LegacyApiKeys.WARN else None,
        )
        refused = self._lasting_refusal(setting, has_roles=table_access is not None)
        self._keys[digest] = digest, refused or Accepted(context=context)

    def _write_access(self, setting: ApiKeySetting, roles: tuple[str, ...]) -> WriteAccess:
        """Return the key's write access from its scopes and, with the scope `write`, from its roles."""
        by_scope = ingest_patterns(setting.scopes)
        by_role = self._roles.write_access(roles if WRITE_SCOPE in setting.scopes else ())
        return WriteAccess(ingest=by_role.ingest | by_scope, creates=by_scope, owns=by_role.owns)

    def _warn_of_roles(self, setting: ApiKeySetting, digest: bytes, unknown: Sequence[str]) -> None:
        if key_state(setting, now=self._clock.now()) != "valid":
            return
        for role in unknown:
            bucket = digest + role.encode("utf-8", "surrogatepass")
            if self._role_warnings < _MAX_ROLE_WARNINGS and not self._warnings.take(bucket):
                self._role_warnings += 1
                record_event(
                    logging.WARNING,
                    "An API key names a role that is not configured; the role counts for nothing.",
                    subject=setting.name,
                    credential=digest_name(digest),
                    role=role,
                )

    def _lasting_refusal(self, setting: ApiKeySetting, *, has_roles: bool) -> Refused | None:
        reasons = {
            "api_key_revoked": setting.revoked_at is not None,
            "denied": setting.name in self._denied,
            "api_key_owner_without_role": setting.owner_groups is not None and not self._may_have_keys(setting),
            "api_key_roles_not_configured": setting.roles and not has_roles,
            "legacy_api_key_refused": setting.key is not None and self._legacy is LegacyApiKeys.REFUSE,
        }
        return next((_refusal(reason, setting.name) for reason, applies in reasons.items() if applies), None)


def _end_notice(ends_at: datetime) -> str:
    return (
        f"Your API key ends on {ends_at.astimezone(UTC):%Y-%m-%d}. Ask the server's administrator for another one, "
        "or sign in as a service account."
    )


def _refusal(reason: str, name: str) -> Refused:
    return Refused(reason=reason, claimed=Claimed(issuer=API_KEY_ISSUER, subject=name))


Keys: TypeAlias = tuple[ApiKeySetting, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewApiKey:
    """A newly created key: the secret for its bearer, and the setting to store."""

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
    """Create a random 256-bit key; the setting contains only its digest."""
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
    """Keys in a file. Opens the file only during calls; safe to use from several threads and processes.

    A file that cannot be read completely is never overwritten. An existing file keeps its owner, group, and mode, so
    that the server's account can still read it. A new file is accessible to its owner only. The lock file is
    `<name>.lock` in the same directory.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(os.path.abspath(Path(path).expanduser()))  # noqa: PTH100 - resolve() would follow a link
        self._lock_path = self._path.with_name(self._path.name + ".lock")

    def load(self) -> Keys:
        """Return the keys in the file."""
        try:
            content, _ = private_files.read_private_file(self._path, max_bytes=MAX_KEY_FILE_BYTES, closes=False)
        except private_files.FileProblem as problem:
            raise self._unusable(problem) from problem.__cause__
        return _parse(content, self._path.name)

    def change(self, changed: Callable[[Keys], Keys], *, creates: bool = False) -> None:
        """Replace the keys with the result of `changed` while excluding other writers."""
        if not self._path.parent.is_dir():
            raise UsageError(
                f"The folder of the key file {self._path.name} does not exist.",
                remedy="Create the folder, or correct --file.",
            )
        try:
            private_files.check_replaceable(self._path)
            private_files.check_replaceable(self._lock_path)
            with FileLock(self._lock_path, timeout=LOCK_TIMEOUT_SECONDS, mode=private_files.PRIVATE_FILE_MODE):
                private_files.remove_temporaries(self._path)
                is_new = creates and private_files.mark_of(self._path) is None
                text = render_api_keys(changed(() if is_new else self.load()))
                _parse(text.encode(), self._path.name)  # never write a file that the server could not read
                private_files.write_private_file(self._path, text.encode(), keeps_rights=True)
        except private_files.FileProblem as problem:
            raise self._unusable(problem) from problem.__cause__
        except Timeout:
            raise Unavailable(f"Another program is using {self._path.name} and hasn't released it.") from None
        except OSError as error:
            raise UsageError(f"The lock file {self._lock_path.name} cannot be used.") from error

    def _unusable(self, problem: private_files.FileProblem) -> UsageError:
        if isinstance(problem, private_files.NoSuchFile):
            return UsageError(
                f"The key file {self._path.name} does not exist.",
                remedy="Correct --file, or create the first key with `micromegas keys create NAME --file FILE`.",
            )
        return UsageError(
            f"The key file {self._path.name} {problem.args[0]}.",
            remedy="Use a regular file that your account owns. To change a different account's file, run the "
            "command as that account.",
        )


def _parse(content: bytes, name: str) -> Keys:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigurationError(f"{name} is not UTF-8 text.", key=name) from None
    return parse_api_keys(text, name)
