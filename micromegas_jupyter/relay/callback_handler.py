"""`GET micromegas/callback`: hands the kernel what the identity provider sent the browser back with, once.

Whether it is worth anything is the kernel's to judge; what the person sees then is `done_handler`'s.
"""

from __future__ import annotations

from jupyter_server.auth.decorator import allow_unauthenticated

from micromegas_jupyter.contracts import Secret
from micromegas_jupyter.redirect import notice_page
from micromegas_jupyter.redirect.cookies import (
    BINDING_SECONDS,
    ENDING_SECONDS,
    binding_name,
    binding_value,
    ending_name,
    ending_value,
)
from micromegas_jupyter.redirect.messages import Accepted, AnswerRequest
from micromegas_jupyter.redirect.pages import reload_page
from micromegas_jupyter.redirect.routing import DONE_PATH, digest_of, kernel_id_in, state_in
from micromegas_jupyter.relay.base_handler import RelayHandler
from micromegas_jupyter.relay.silence import Silence

_NO_KERNEL_STATUS = 409
# The same answer, whatever does not fit: nobody learns by trying.
_NOT_OURS = notice_page(
    status=400,
    what=(
        "This does not belong to a sign-in that was started in this browser, at this address of the server, within the "
        "last ten minutes. Go back to the notebook and run %micromegas_login again."
    ),
)
_NOT_SIGNED_IN = notice_page(
    status=403,
    what=(
        "This browser is not signed in to the Jupyter server any more. Open Jupyter again, and run %micromegas_login "
        "in the notebook."
    ),
)


class CallbackHandler(RelayHandler):
    """Receives the end of a sign-in; other loads, methods and browsers do not use it up."""

    @allow_unauthenticated  # the log-in page would take the code along in its address
    async def get(self, *_parts: str) -> None:
        """Hand the answer over and send the browser on, so that the code leaves its address bar and history."""
        if self.refuse_other_loads() or self.refuse_long_query():
            return
        state = state_in(self.query)
        kernel_id = None if state is None else kernel_id_in(state)
        if state is None or kernel_id is None:
            self.send_page(_NOT_OURS)
            return
        bound_to = self._bound_user(digest_of(state))
        if self.user is None:
            self._send_back_or_refuse(is_bound=bound_to is not None)
            return
        if bound_to != self.user.username:
            self.send_page(_NOT_OURS)
            return
        if await self.refuse_unauthorized(self.user):
            return
        await self._hand_over(kernel_id, digest_of(state))

    async def _hand_over(self, kernel_id: str, state_digest: str) -> None:
        reply = await self.calls.ask(kernel_id, AnswerRequest(query=Secret(self.query)))
        match reply:
            case Accepted():
                self._remember_ending(kernel_id, state_digest)
                self.send_redirect(303, f"{self.cookie_place().base_url}{DONE_PATH}")
            case Silence():
                self.send_page(notice_page(status=_NO_KERNEL_STATUS, what=f"{reply.value} {reply.remedy}"))
            case _:
                self.send_page(_NOT_OURS)

    def _send_back_or_refuse(self, *, is_bound: bool) -> None:
        """Answer a browser without the server's own cookie; where that is kept back on the way from another site, the
        same page loaded by this site itself has it.
        """  # noqa: D205 - one sentence
        is_from_outside = self.request.headers.get("Sec-Fetch-Site") == "cross-site"
        self.send_page(reload_page() if is_bound and is_from_outside else _NOT_SIGNED_IN)

    def _bound_user(self, state_digest: str) -> str | None:
        """Return who started the sign-in in this browser; None when nobody did, or two cookies claim to say so."""
        place = self.cookie_place()
        name = binding_name(place, state_digest)
        said = self.read_cookie(name, BINDING_SECONDS)
        username = said.removeprefix(binding_value("", state_digest))
        return None if username == said else username

    def _remember_ending(self, kernel_id: str, state_digest: str) -> None:
        place = self.cookie_place()
        self.take_cookie(binding_name(place, state_digest))
        self.give_cookie(ending_name(place), ending_value(kernel_id, state_digest), ENDING_SECONDS)
