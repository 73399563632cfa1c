"""The device flow of a scripted provider: strict about pace, life and single use (RFC 8628)."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from micromegas_jupyter.core.system import Clock

# Two clocks of one machine may differ by this much.
_TOLERANCE_SECONDS = 0.1


@dataclass(slots=True, kw_only=True)
class _Started:
    user_code: str
    scope: str
    ends_at: float
    interval_seconds: float
    asked_at: float | None = None
    is_allowed: bool | None = None


class ScriptedDeviceFlow:
    """What a provider keeps of the codes that it gave; the provider's lock covers it.

    Attributes:
        interval_seconds: The pace that it asks for.
        lifetime_seconds: How long codes live.
        answer_changes: Members to add or replace in its answers; None removes one.
        pace: How many seconds passed between the questions that came.
    """

    def __init__(self, clock: Clock) -> None:
        self.interval_seconds: float = 5
        self.lifetime_seconds: float = 600
        self.answer_changes: dict[str, object] = {}
        self.pace: list[float] = []
        self._clock = clock
        self._started: dict[str, _Started] = {}

    def start(self, *, base: str, scope: str) -> dict[str, object]:
        """Give new codes."""
        device_code, user_code = secrets.token_urlsafe(24), f"WDJB-{secrets.randbelow(10_000):04}"
        self._started[device_code] = _Started(
            user_code=user_code,
            scope=scope,
            ends_at=self._now() + self.lifetime_seconds,
            interval_seconds=self.interval_seconds,
        )
        answer = {
            "device_code": device_code,
            "user_code": user_code,
            "verification_uri": f"{base}/activate",
            "verification_uri_complete": f"{base}/activate?user_code={user_code}",
            "expires_in": self.lifetime_seconds,
            "interval": self.interval_seconds,
            **self.answer_changes,
        }
        return {name: value for name, value in answer.items() if value is not None}

    def decide(self, user_code: str | None, *, allow: bool = True) -> None:
        """Be the person who typed the code."""
        (started,) = (found for found in self._started.values() if found.user_code == user_code)
        started.is_allowed = allow

    def device_codes(self) -> list[str]:
        """Return the codes that are alive."""
        return list(self._started)

    def ask(self, device_code: str) -> tuple[str | None, str]:
        """Answer a question: the error, None for tokens, and the scope that was asked for."""
        started = self._started.get(device_code)
        if started is None:
            return "invalid_grant", ""
        now = self._now()
        waited_seconds = None if started.asked_at is None else now - started.asked_at
        started.asked_at = now
        if waited_seconds is not None:
            self.pace.append(waited_seconds)
        if now >= started.ends_at:
            return "expired_token", ""
        if waited_seconds is not None and waited_seconds < started.interval_seconds - _TOLERANCE_SECONDS:
            started.interval_seconds += 5
            return "slow_down", ""
        if started.is_allowed is None:
            return "authorization_pending", ""
        del self._started[device_code]
        return (None if started.is_allowed else "access_denied"), started.scope

    def _now(self) -> float:
        return self._clock.now().timestamp()
