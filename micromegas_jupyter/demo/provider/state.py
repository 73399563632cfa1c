"""Everything that the provider remembers about codes, tokens and devices, behind one lock.

It decides what may be used once and what ends with what; how a token looks and who may ask is decided elsewhere.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from micromegas_jupyter.demo.provider.bounded import BoundedStore
from micromegas_jupyter.demo.provider.records import AccessToken, AuthorizationCode, DeviceAuthorization, RefreshToken

if TYPE_CHECKING:
    from micromegas_jupyter.demo.provider.records import Grant
    from micromegas_jupyter.seams import Clock

CODE_LIFETIME_SECONDS = 60
DEVICE_LIFETIME_SECONDS = 600
# RFC 8628 section 3.5: after slow_down the interval is 5 seconds longer, for good.
SLOW_DOWN_SECONDS = 5
# A network delivers a question early or late; only a clearly early one is an offence.
_INTERVAL_TOLERANCE = 0.9
_MAX_CODES = 1_000
_MAX_DEVICES = 1_000
_MAX_TOKENS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """How often something happened since the start."""

    codes: int = 0
    refreshes: int = 0
    refresh_reuses: int = 0
    revocations: int = 0
    service_tokens: int = 0
    device_tokens: int = 0


class ProviderState:
    """Codes, tokens, devices and counters. All methods are safe to call from several threads."""

    def __init__(self, *, clock: Clock, token_lifetime_seconds: int, refresh_lifetime_seconds: int) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._counters = Counters()
        # Used codes and device codes are remembered longer than they are good for, so that a second use is noticed
        # and an expired one is told from an unknown one.
        self._codes: BoundedStore[tuple[AuthorizationCode, float]] = BoundedStore(
            clock=clock, lifetime_seconds=10 * CODE_LIFETIME_SECONDS, max_entries=_MAX_CODES
        )
        self._used_codes: BoundedStore[Grant] = BoundedStore(
            clock=clock, lifetime_seconds=10 * CODE_LIFETIME_SECONDS, max_entries=_MAX_CODES
        )
        self._refresh: BoundedStore[RefreshToken] = BoundedStore(
            clock=clock, lifetime_seconds=refresh_lifetime_seconds, max_entries=_MAX_TOKENS
        )
        self._used_refresh: BoundedStore[RefreshToken] = BoundedStore(
            clock=clock, lifetime_seconds=refresh_lifetime_seconds, max_entries=_MAX_TOKENS
        )
        self._access: BoundedStore[AccessToken] = BoundedStore(
            clock=clock, lifetime_seconds=token_lifetime_seconds, max_entries=_MAX_TOKENS
        )
        self._devices: BoundedStore[DeviceAuthorization] = BoundedStore(
            clock=clock, lifetime_seconds=2 * DEVICE_LIFETIME_SECONDS, max_entries=_MAX_DEVICES
        )

    def counters(self) -> Counters:
        """Return how often what happened so far."""
        with self._lock:
            return self._counters

    # Authorization codes

    def save_code(self, text: str, code: AuthorizationCode) -> None:
        """Keep a new code for its 60 seconds."""
        with self._lock:
            self._codes.put(_digest(text), (code, self._clock.monotonic() + CODE_LIFETIME_SECONDS))
            self._count(codes=1)

    def take_code(self, text: str, *, client_id: str) -> AuthorizationCode | None:
        """Return the code for its one use, or None. A second use ends everything issued from the first.

        Source: RFC 6749 section 4.1.2.
        """
        digest = _digest(text)
        with self._lock:
            used = self._used_codes.get(digest)
            if used is not None:
                used.revoked = True
                return None
            found = self._codes.get(digest)
            if found is None or found[0].grant.client_id != client_id:
                return None
            self._codes.take(digest)
            code, ends_at = found
            self._used_codes.put(digest, code.grant)
            return code if self._clock.monotonic() < ends_at else None

    # Tokens

    def save_access(self, text: str, token: AccessToken) -> None:
        """Keep what the userinfo endpoint needs of an access token."""
        with self._lock:
            self._access.put(_digest(text), token)
            if token.grant is None:
                self._count(service_tokens=1)

    def find_access(self, text: str) -> AccessToken | None:
        """Return a token that is still good, or None."""
        with self._lock:
            token = self._access.get(_digest(text))
            if token is None or (token.grant is not None and token.grant.revoked):
                return None
            return token if self._clock.now() < token.expires_at else None

    def save_refresh(self, text: str, grant: Grant) -> None:
        """Keep a new refresh token."""
        digest = _digest(text)
        with self._lock:
            self._refresh.put(digest, RefreshToken(text_digest=digest, grant=grant))

    def find_refresh(self, text: str) -> RefreshToken | None:
        """Return a refresh token that may be used, or None. A used one ends its whole family.

        Source: RFC 9700 section 4.14.2.
        """
        digest = _digest(text)
        with self._lock:
            used = self._used_refresh.get(digest)
            if used is not None:
                used.grant.revoked = True
                self._count(refresh_reuses=1)
                return None
            token = self._refresh.get(digest)
            return None if token is None or token.grant.revoked else token

    def use_refresh(self, token: RefreshToken) -> bool:
        """Use the token up; False when somebody else was faster, which counts as a second use."""
        with self._lock:
            if self._refresh.take(token.text_digest) is None or token.grant.revoked:
                token.grant.revoked = True
                self._count(refresh_reuses=1)
                return False
            self._used_refresh.put(token.text_digest, token)
            self._count(refreshes=1)
            return True

    def find_for_revocation(self, text: str) -> RefreshToken | AccessToken | None:
        """Return the token of this text, used or not, or None."""
        digest = _digest(text)
        with self._lock:
            return self._refresh.get(digest) or self._used_refresh.get(digest) or self._access.get(digest)

    def revoke(self, grant: Grant) -> None:
        """End a grant and everything issued from it."""
        with self._lock:
            grant.revoked = True
            self._count(revocations=1)

    # Devices

    def save_device(self, device_code: str, device: DeviceAuthorization) -> None:
        """Keep a device that begins to wait."""
        with self._lock:
            self._devices.put(_digest(device_code), device)

    def find_device(self, device_code: str) -> DeviceAuthorization | None:
        """Return the waiting device, decided and expired ones included, or None."""
        with self._lock:
            return self._devices.get(_digest(device_code))

    def take_device(self, device_code: str) -> DeviceAuthorization | None:
        """Return the device for the one answer that its code is good for."""
        with self._lock:
            device = self._devices.take(_digest(device_code))
            if device is not None and device.grant is not None:
                self._count(device_tokens=1)
            return device

    def find_waiting_device(self, user_code: str) -> DeviceAuthorization | None:
        """Return the device that waits for this code to be typed, or None."""
        with self._lock:
            return self._find_waiting(user_code)

    def decide_device(self, user_code: str, grant: Grant | None) -> bool:
        """Give the person's answer, None for no; False when the device waits no longer."""
        with self._lock:
            device = self._find_waiting(user_code)
            if device is None:
                return False
            device.grant = grant
            device.is_denied = grant is None
            return True

    def is_asking_too_often(self, device: DeviceAuthorization) -> bool:
        """Note a question of the device; True, with a longer interval from now on, when it came too early."""
        with self._lock:
            now, last = self._clock.monotonic(), device.last_asked_at
            device.last_asked_at = now
            is_early = last is not None and now - last < device.interval_seconds * _INTERVAL_TOLERANCE
            if is_early:
                device.interval_seconds += SLOW_DOWN_SECONDS
            return is_early

    def _find_waiting(self, user_code: str) -> DeviceAuthorization | None:
        now = self._clock.now()
        for device in self._devices.values():
            if device.user_code == user_code and not device.is_decided and now < device.expires_at:
                return device
        return None

    def _count(self, **more: int) -> None:
        changed = {name: getattr(self._counters, name) + number for name, number in more.items()}
        self._counters = replace(self._counters, **changed)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
