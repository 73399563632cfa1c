"""`GET micromegas/start/<kernel_id.random>`: sends the browser to the identity provider and remembers which it was.

What the provider is asked is the kernel's; where it sends the browser back to is `callback_handler`'s.
"""

from __future__ import annotations

from tornado import web

from micromegas_jupyter.redirect import failure_page, notice_page
from micromegas_jupyter.redirect.cookies import (
    BINDING_SECONDS,
    MAX_BINDINGS,
    binding_name,
    binding_value,
    bindings_in,
)
from micromegas_jupyter.redirect.messages import Ended, Started, StartRequest
from micromegas_jupyter.redirect.redirect_address import callback_address, is_web_address
from micromegas_jupyter.redirect.routing import kernel_id_in
from micromegas_jupyter.relay.base_handler import RelayHandler
from micromegas_jupyter.relay.provider_paths import address_for_browsers
from micromegas_jupyter.relay.silence import Silence

_NO_KERNEL_STATUS = 409
_UNKNOWN = notice_page(
    status=404,
    what="This sign-in is not waiting any more. Go back to the notebook and run %micromegas_login again.",
)


class StartHandler(RelayHandler):
    """Starts a sign-in for a person of this server."""

    @web.authenticated
    async def get(self, name: str) -> None:  # type: ignore[override]  # the address has one part
        """Send the browser on.

        Args:
            name: Leads to the kernel and the sign-in.
        """
        user, kernel_id, base = self.user, kernel_id_in(name), self.public_base()
        if user is None or self.refuse_other_loads() or await self.refuse_unauthorized(user):
            return
        if kernel_id is None:
            self.send_page(_UNKNOWN)
            return
        if base is None:
            self.send_no_address()
            return
        reply = await self.calls.ask(kernel_id, StartRequest(name=name, redirect_uri=callback_address(base)))
        match reply:
            case Started(authorization_url=url, state_digest=state_digest) if is_web_address(url):
                self._bind(user.username, state_digest)
                self.send_redirect(302, self._as_browsers_see_it(url))
            case Silence():
                self.send_page(notice_page(status=_NO_KERNEL_STATUS, what=f"{reply.value} {reply.remedy}"))
            case Ended(ending=ending) if not ending.is_signed_in:
                self.send_page(failure_page(what=ending.what, remedy=ending.remedy))
            case _:
                self.send_page(_UNKNOWN)

    def _as_browsers_see_it(self, url: str) -> str:
        return address_for_browsers(url, paths=self.relay.provider_paths, base_url=self.cookie_place().base_url)

    def _bind(self, username: str, state_digest: str) -> None:
        """Remember in this browser that the sign-in was started here."""
        place = self.cookie_place()
        others = bindings_in(place, self.cookie_names())
        if len(others) >= MAX_BINDINGS:
            for name in others:
                self.take_cookie(name)
        self.give_cookie(binding_name(place, state_digest), binding_value(username, state_digest), BINDING_SECONDS)
