"""A provider that uses each refresh token once, and ends the whole family when one comes again (RFC 9700 4.14.2).

It counts what it gave to whom. With a grace, a token that has just been spent may come again, as long as nothing that
it was exchanged for was used.
"""

from dataclasses import dataclass, field

import flask

from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.demo.provider.state import OAuthError
from tests.fakes.scripted_provider import ScriptedProvider

RECEIVER_HEADER = "x-program"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refresh:
    """One refresh token that was exchanged: by whom, and for which generation of tokens."""

    receiver: str
    generation: int
    was_repeated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """A family that was ended, because `sender` used a token that `refreshes` had spent before."""

    sender: str
    refreshes: tuple[Refresh, ...]


@dataclass(slots=True, kw_only=True)
class _RefreshToken:
    family: int
    spent_by: list[Refresh] = field(default_factory=list)
    spent_at: float = 0.0
    successors: list[str] = field(default_factory=list)


class RotatingProvider(ScriptedProvider):
    """Serves like `ScriptedProvider`; its ID tokens have a claim `generation` that counts all answers."""

    def __init__(self, *, clock, grace_seconds=0.0):
        super().__init__(clock=clock)
        self.refreshes_given = []
        self.revocations = []
        self._grace_seconds = grace_seconds
        self._tokens = {}
        self._live_families = set()
        self._generation = 0

    def sign_in(self):
        with self._lock:
            family = self._generation + 1
            self._live_families.add(family)
            answer = self._give(family)
            return {**answer, "expires_at": int(self.clock.now().timestamp()) + self.lifetime_seconds}

    def refresh(self, _client, form):
        sender = flask.request.headers.get(RECEIVER_HEADER, "")
        token = self._tokens.get(form.get("refresh_token", ""))
        if token is None or token.family not in self._live_families:
            raise OAuthError("invalid_grant")
        if token.spent_by and not self._may_repeat(token):
            self._live_families.discard(token.family)
            self.revocations.append(Revocation(sender=sender, refreshes=tuple(token.spent_by)))
            raise OAuthError("invalid_grant")
        return self._exchange_refresh_token(token, sender)

    def _may_repeat(self, token):
        in_time = SYSTEM_CLOCK.monotonic() - token.spent_at < self._grace_seconds
        return in_time and not any(self._tokens[successor].spent_by for successor in token.successors)

    def _exchange_refresh_token(self, token, receiver):
        answer = self._give(token.family)
        if not token.spent_by:
            token.spent_at = SYSTEM_CLOCK.monotonic()
        refresh = Refresh(receiver=receiver, generation=self._generation, was_repeated=bool(token.spent_by))
        token.spent_by.append(refresh)
        token.successors.append(str(answer["refresh_token"]))
        self.refreshes_given.append(refresh)
        return answer

    def _give(self, family):
        self._generation += 1
        self.id_token_changes["generation"] = self._generation
        answer = self.issue()
        self._tokens[str(answer["refresh_token"])] = _RefreshToken(family=family)
        return answer
