"""API keys that users create to send their own telemetry, if a role allows it (`keys: self`).

The key file stores each key with its owner and with the groups that gave the owner such a role. A key is valid while
the configuration still grants such a role to one of these groups or to everyone.
"""

import json
import logging
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from micromegas_jupyter.access.api_keys import KeyFile, Keys, key_id, key_state, make_api_key
from micromegas_jupyter.access.audit import record_event
from micromegas_jupyter.access.write_rights import MODEL_TABLES
from micromegas_jupyter.config.access import INGEST_SCOPE, AccessSettings, ApiKeySetting
from micromegas_jupyter.core.protocols import AuthContext, AuthType
from micromegas_jupyter.core.system import SYSTEM_RANDOMNESS, Clock
from micromegas_jupyter.core.text import JsonError, decode_strict_json
from micromegas_jupyter.errors import (
    ConfigurationError,
    PermissionDenied,
    ResourcesExhausted,
    Unavailable,
    UnsupportedRequest,
    UsageError,
)

KEYS_ACTION: Final = "MicromegasKeys"
MAX_LIVE_KEYS: Final = 5
MAX_KEY_DAYS: Final = 30
_SCOPES: Final = frozenset(f"{INGEST_SCOPE}:{table}" for table in MODEL_TABLES)
_MAX_BODY_BYTES: Final = 1024
_LABEL: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


class _Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    operation: Literal["create", "list", "revoke"]
    name: str = "default"
    days: Annotated[int, msgspec.Meta(ge=1)] = MAX_KEY_DAYS
    id: Annotated[str, msgspec.Meta(max_length=64)] = ""


def owner_may_have_keys(settings: AccessSettings, key: ApiKeySetting) -> bool:
    """Whether the configuration still allows the key's owner to create keys."""
    issuers = () if settings.oidc is None else settings.oidc.issuers
    owner, groups = key.owner or "", key.owner_groups or ()
    names = {
        name
        for issuer in issuers
        if owner.startswith(f"{issuer.issuer}|")
        for group in groups
        for name in issuer.group_roles.get(group, ())
    }
    allowed = _allowing_roles(settings)
    return owner not in settings.denied and not allowed.isdisjoint(names | set(settings.default_roles))


def _allowing_roles(settings: AccessSettings) -> set[str]:
    return {name for name, role in (settings.roles or {}).items() if role.makes_own_keys}


class UserKeys:
    """Creates, lists, and revokes a caller's keys; its methods block on file I/O. Thread-safe."""

    def __init__(
        self,
        *,
        settings: Callable[[], AccessSettings],
        find_file: Callable[[], Path | None],
        on_change: Callable[[], None],
        max_days: int,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._find_file = find_file
        self._on_change = on_change
        self._max_days = max_days
        self._clock = clock

    def parse(self, body: bytes) -> _Request:
        """Parse a request."""
        try:
            found = decode_strict_json(body[: _MAX_BODY_BYTES + 1].decode("utf-8"), max_depth=1)
            request = msgspec.convert(found, _Request)
        except (UnicodeDecodeError, JsonError, msgspec.ValidationError):
            request = None
        if request is None or not _LABEL.fullmatch(request.name):
            raise UsageError(
                f"The body of {KEYS_ACTION} is invalid.",
                remedy="Send one JSON object that contains the operation (create, list, or revoke) and either the "
                "key's "
                "name (letters, digits, dots, hyphens) and days, or its id.",
            )
        return request

    def run(self, caller: AuthContext, request: _Request) -> bytes:
        """Run a request and return the response, a JSON object."""
        if caller.auth_type is not AuthType.OIDC:
            raise PermissionDenied("Only signed-in users can have API keys.", reason="keys_not_allowed")
        path = self._find_file()
        if path is None:
            raise UnsupportedRequest(
                "This server doesn't have an API key file.",
                remedy="Ask the server's administrator to set MICROMEGAS_API_KEY_FILE.",
            )
        file, owner = KeyFile(path), f"{caller.issuer}|{caller.subject}"
        try:
            match request.operation:
                case "create":
                    found = self._create(file, caller, owner, request)
                case "revoke":
                    found = self._revoke(file, owner, request.id)
                case _:
                    found = {"keys": [self._describe(key) for key in file.load() if _is_own(key, owner)]}
        except (UsageError, ConfigurationError) as error:
            record_event(logging.ERROR, "The file of API keys cannot be used.", problem=error.what)
            raise Unavailable(
                "The server cannot read or write its API key file.",
                remedy="Ask the server's administrator to check the log.",
            ) from None
        return json.dumps(found).encode()

    def _create(self, file: KeyFile, caller: AuthContext, owner: str, request: _Request) -> dict[str, Any]:
        settings, now = self._settings(), self._clock.now().replace(microsecond=0)
        allowing = _allowing_roles(settings)
        if allowing.isdisjoint(caller.roles):
            raise PermissionDenied(
                "You don't have permission to create API keys.",
                reason="keys_not_allowed",
                remedy="Ask one of the server's administrators for a role with `keys: self`.",
            )
        if request.days > self._max_days:
            raise PermissionDenied(
                f"A key is valid for at most {self._max_days} days.", reason="keys_not_allowed", remedy="Ask for fewer."
            )
        issuers = () if settings.oidc is None else settings.oidc.issuers
        group_roles = [issuer.group_roles for issuer in issuers if issuer.issuer == caller.issuer]
        groups = [g for g in caller.groups if any(not allowing.isdisjoint(roles.get(g, ())) for roles in group_roles)]
        address = caller.email if caller.email_verified else None
        made = make_api_key(
            f"{address or caller.subject}/{request.name}",
            randomness=SYSTEM_RANDOMNESS,
            now=now,
            scopes=_SCOPES,
            expires_at=now + timedelta(days=request.days),
        )
        setting = replace(made.setting, owner=owner, owner_groups=tuple(groups))

        def with_new_key(keys: Keys) -> Keys:
            live = [key for key in keys if _is_own(key, owner) and key_state(key, now=now) == "valid"]
            if len(live) >= MAX_LIVE_KEYS:
                raise ResourcesExhausted(
                    f"You have {len(live)} API keys, which is the maximum.",
                    remedy="Revoke one of them: `micromegas telemetry keys` lists them.",
                )
            return (*(key for key in keys if not _is_own(key, owner) or key in live), setting)

        file.change(with_new_key)
        self._on_change()
        return {"key": made.secret.reveal(), **self._describe(setting)}

    def _revoke(self, file: KeyFile, owner: str, wanted: str) -> dict[str, Any]:
        now = self._clock.now().replace(microsecond=0)
        revoked: list[str] = []

        def with_revoked(keys: Keys) -> Keys:
            revoked[:] = [key_id(key) for key in keys if _is_own(key, owner) and key_id(key) == wanted]
            return tuple(
                replace(key, revoked_at=key.revoked_at or now) if _is_own(key, owner) and key_id(key) == wanted else key
                for key in keys
            )

        file.change(with_revoked)
        self._on_change()
        return {"revoked": bool(revoked)}

    def _describe(self, key: ApiKeySetting) -> dict[str, Any]:
        times = {"created_at": key.created_at, "expires_at": key.expires_at}
        return {
            "id": key_id(key),
            "name": key.name,
            "state": key_state(key, now=self._clock.now()),
            **{name: None if time is None else time.isoformat() for name, time in times.items()},
        }


def _is_own(key: ApiKeySetting, owner: str) -> bool:
    return key.owner == owner and key.owner_groups is not None
