"""Sign-ins by redirect that kernels have begun and browsers have not finished, each with its owner.

The service never learns a verifier, a nonce or a token: those stay in the kernel. The handlers check who may open or
finish a sign-in.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cachetools import TTLCache

from micromegas_jupyter.auth.flows.jupyter import RANDOM_BYTES, digest_of

if TYPE_CHECKING:
    from micromegas_jupyter.core.system import Clock, Randomness, Secret

LIFETIME_SECONDS: Final = 600
MAX_PER_OWNER: Final = 20
MAX_SIGN_INS: Final = 2000
MAX_WAITING: Final = 4


@dataclass(kw_only=True, eq=False)
class SignIn:
    """One sign-in under way.

    Attributes:
        name: The last part of its start address.
        owner: The Hub's name of the person whose kernel began it.
        state_digest: The digest of its state.
        authorization_url: Where the browser is sent.
        answer: The query that the browser came back with; None before that.
        has_answer: Set when there is an answer.
        waiting: How many calls wait for it.
    """

    name: str = field(repr=False)
    owner: str
    state_digest: str
    authorization_url: Secret
    answer: Secret | None = None
    has_answer: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    waiting: int = 0


class SignIns:
    """All sign-ins under way; for one event loop. Too many of one owner, or of all, and the oldest are forgotten."""

    def __init__(self, *, clock: Clock, randomness: Randomness) -> None:
        self._randomness = randomness
        self._by_name: TTLCache[str, SignIn] = TTLCache(MAX_SIGN_INS, LIFETIME_SECONDS, timer=clock.monotonic)
        self._by_state: TTLCache[str, SignIn] = TTLCache(MAX_SIGN_INS, LIFETIME_SECONDS, timer=clock.monotonic)

    def __len__(self) -> int:
        return len(self._by_name)

    def begin(self, owner: str, *, state: str, authorization_url: Secret) -> SignIn:
        """Remember a sign-in and return it with its new name; raises `ValueError` for a state that is in use."""
        digest = digest_of(state)
        if digest in self._by_state:
            raise ValueError("this state is in use")
        known = list(self._by_name.values())  # the oldest first
        own = [sign_in for sign_in in known if sign_in.owner == owner]
        for sign_in in own[: max(0, len(own) - MAX_PER_OWNER + 1)] or known[: max(0, len(known) - MAX_SIGN_INS + 1)]:
            self._forget(sign_in)
        name = self._randomness.token_urlsafe(RANDOM_BYTES)
        sign_in = SignIn(name=name, owner=owner, state_digest=digest, authorization_url=authorization_url)
        self._by_name[name] = self._by_state[digest] = sign_in
        return sign_in

    def by_name(self, name: str) -> SignIn | None:
        """Return the sign-in of that name; None when there is none any more."""
        return self._by_name.get(name)

    def by_state(self, state: str) -> SignIn | None:
        """Return the sign-in of that state that no browser has answered yet; None when there is none."""
        found = self._by_state.get(digest_of(state))
        return None if found is None or found.answer is not None else found

    def hand_over(self, sign_in: SignIn, answer: Secret) -> None:
        """Keep what a browser came back with for the kernel."""
        sign_in.answer = answer
        sign_in.has_answer.set()

    async def take_answer(self, sign_in: SignIn, *, timeout_seconds: float) -> Secret | None:
        """Wait for the answer and return it, once; None when there is none in time."""
        sign_in.waiting += 1
        try:
            async with asyncio.timeout(timeout_seconds):
                await sign_in.has_answer.wait()
        except TimeoutError:
            return None
        finally:
            sign_in.waiting -= 1
        if self._by_name.get(sign_in.name) is not sign_in:
            return None
        self._forget(sign_in)
        return sign_in.answer

    def _forget(self, sign_in: SignIn) -> None:
        self._by_name.pop(sign_in.name, None)
        self._by_state.pop(sign_in.state_digest, None)
