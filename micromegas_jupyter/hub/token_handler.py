"""`POST token`: a person's own bearer token for a kernel of that person; no refresh token ever.

Which token that is, is `kept_sign_in`'s; keeping it fresh is `refreshing`'s, in the Hub.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from micromegas_jupyter.hub.json_handler import JsonHandler
from micromegas_jupyter.hub.kept_sign_in import is_refused, is_stale, read_bearer
from micromegas_jupyter.hub.refusals import no_auth_state, not_renewed, provider_unavailable, sign_in_again

if TYPE_CHECKING:
    from micromegas_jupyter.hub.kept_sign_in import HeldBearer

_BEARER_NAMES: Final = {"id_token": "ID token", "access_token": "access token"}


class TokenHandler(JsonHandler):
    """Gives tokens."""

    event = "token_refused"

    async def post(self) -> None:
        """Give the caller's own token."""
        self.body_members()
        name = await self.owner()
        held = await self.parts.provider.exchanged(name, await self._held(name))
        expires_in = held.expires_at.timestamp() - self.parts.clock.now().timestamp()
        self.parts.audit.write("token_given", owner=name, expires_at=int(held.expires_at.timestamp()))
        self.send(
            200,
            {
                "access_token": held.token.reveal(),
                "token_type": "Bearer",
                "expires_at": math.floor(held.expires_at.timestamp()),
                "expires_in": max(0, math.floor(expires_in)),
                "issuer": self.parts.settings.issuer,
                "user": name,
            },
        )

    async def _held(self, name: str) -> HeldBearer:
        """Return what the Hub keeps; it has renewed that, when it was due, as it was asked whose the Hub token is."""
        for is_last in (False, True):
            state = await self.parts.hub.auth_state(name)
            bearer = self.parts.settings.bearer
            held = None if state is None else read_bearer(state, bearer)
            if state is None or held is None:
                raise no_auth_state(_BEARER_NAMES[bearer.value])
            if held.expires_at > self.parts.clock.now():
                return held
            if is_refused(state) or not state.get("refresh_token"):
                raise sign_in_again()
            if is_stale(state):
                raise not_renewed(_BEARER_NAMES[bearer.value])
            if not is_last:
                await self.owner()  # a Hub with much to do has taken longer than the token had left
        raise provider_unavailable()
