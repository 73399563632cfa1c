"""Sign-ins by redirect that kernels have begun and browsers have not come back from, each with its owner.

The service never learns a verifier, a nonce or a token: those stay in the kernel. Who may open or end a sign-in is
checked by the handlers; here it is only found.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from micromegas_jupyter.auth.flows.messages import RANDOM_BYTES, digest_of

if TYPE_CHECKING:
    from micromegas_jupyter.core.secrets import Secret
    from micromegas_jupyter.core.system import Clock, Randomness

LIFE_SECONDS: Final = 600
MAX_OF_ONE_OWNER: Final = 20
MAX_SIGN_INS: Final = 2000
MAX_WAITING: Final = 4


@dataclass(kw_only=True, eq=False)
class SignIn:
    """One sign-in under way.

    Attributes:
        name: What its start address ends with.
        owner: The Hub's name of the person whose kernel began it.
        state_digest: The digest of its state.
        authorization_url: Where the browser is sent.
        ends_at: When it is forgotten, in monotonic seconds.
        answer: What the browser came back with; None before that.
        has_answer: Set when there is an answer.
        waiting: How many calls wait for it.
    """

    name: str = field(repr=False)
    owner: str
    state_digest: str
    authorization_url: Secret
    ends_at: float
    answer: Secret | None = None
    has_answer: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    waiting: int = 0


class SignIns:
    """All sign-ins under way; for one event loop. Too many of one owner, or of all, and the oldest are forgotten."""

    def __init__(self, *, clock: Clock, randomness: Randomness) -> None:
        self._clock = clock
        self._randomness = randomness
        self._by_name: OrderedDict[str, SignIn] = OrderedDict()
        self._by_state: dict[str, SignIn] = {}

    def __len__(self) -> int:
        return len(self._by_name)

    def begin(self, owner: str, *, state: str, authorization_url: Secret) -> SignIn:
        """Remember a sign-in and return it with its new name.

        Raises:
            ValueError: One with this state is under way already.
        """
        self._forget_old(owner)
        digest = digest_of(state)
        if digest in self._by_state:
            raise ValueError("this state is taken")
        sign_in = SignIn(
            name=self._randomness.token_urlsafe(RANDOM_BYTES),
            owner=owner,
            state_digest=digest,
            authorization_url=authorization_url,
            ends_at=self._clock.monotonic() + LIFE_SECONDS,
        )
        self._by_name[sign_in.name] = self._by_state[digest] = sign_in
        return sign_in

    def by_name(self, name: str) -> SignIn | None:
        """Return the sign-in of that name; None when there is none, or none any more."""
        return self._alive(self._by_name.get(name))

    def by_state(self, state: str) -> SignIn | None:
        """Return the sign-in of that state that nobody has come back from yet; None when there is none."""
        found = self._alive(self._by_state.get(digest_of(state)))
        return None if found is None or found.answer is not None else found

    def hand_over(self, sign_in: SignIn, answer: Secret) -> None:
        """Keep what a browser came back with for the kernel."""
        sign_in.answer = answer
        sign_in.has_answer.set()

    async def take_answer(self, sign_in: SignIn, *, timeout_seconds: float) -> Secret | None:
        """Wait for the answer and return it, once; None when the time has passed before."""
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

    def _alive(self, sign_in: SignIn | None) -> SignIn | None:
        if sign_in is not None and sign_in.ends_at <= self._clock.monotonic():
            self._forget(sign_in)
            return None
        return sign_in

    def _forget_old(self, owner: str) -> None:
        for sign_in in list(self._by_name.values()):
            self._alive(sign_in)
        own = [sign_in for sign_in in self._by_name.values() if sign_in.owner == owner]
        for sign_in in own[: max(0, len(own) - MAX_OF_ONE_OWNER + 1)]:
            self._forget(sign_in)
        while len(self._by_name) >= MAX_SIGN_INS:
            self._forget(next(iter(self._by_name.values())))

    def _forget(self, sign_in: SignIn) -> None:
        self._by_name.pop(sign_in.name, None)
        self._by_state.pop(sign_in.state_digest, None)
