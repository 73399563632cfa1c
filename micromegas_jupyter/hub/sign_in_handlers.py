"""The kernel's side of a sign-in by the redirect of the whole Hub: where it comes back to, begin it, take the answer.

The browser's side is `start_handler`'s and `callback_handler`'s.
"""

from __future__ import annotations

from typing import Final

from micromegas_jupyter.contracts import Secret
from micromegas_jupyter.hub.authorization_check import check_authorization_url
from micromegas_jupyter.hub.json_handler import JsonHandler
from micromegas_jupyter.hub.refusals import bad_request, no_redirect, slow_down, unknown_sign_in
from micromegas_jupyter.hub.sign_ins import LIFE_SECONDS, MAX_WAITING

POLL_SECONDS: Final = 25.0


class _SignInHandler(JsonHandler):
    event = "sign_in_refused"

    def redirect_parts(self) -> tuple[str, str]:
        """Return the redirect address of the whole Hub and the application that it is registered for.

        Raises:
            Refused: The administrator has set none.
        """
        settings = self.parts.settings
        if settings.redirect_uri is None or settings.redirect_client_id is None:
            raise no_redirect()
        return settings.redirect_uri, settings.redirect_client_id


class RedirectHandler(_SignInHandler):
    """`GET redirect`."""

    async def get(self) -> None:
        """Say with what a sign-in by redirect is made."""
        await self.owner()
        redirect_uri, client_id = self.redirect_parts()
        issuer = self.parts.settings.issuer
        self.send(200, {"redirect_uri": redirect_uri, "issuer": issuer, "client_id": client_id})


class BeginHandler(_SignInHandler):
    """`POST sign-ins`."""

    async def post(self) -> None:
        """Begin a sign-in of the caller and say which page starts it."""
        name = await self.owner()
        redirect_uri, client_id = self.redirect_parts()
        url = self.body_members().get("authorization_url")
        endpoint = await self.parts.provider.authorization_endpoint()
        if endpoint is None:
            raise no_redirect()
        state = check_authorization_url(url, endpoint=endpoint, redirect_uri=redirect_uri, client_id=client_id)
        try:
            sign_in = self.parts.sign_ins.begin(name, state=state, authorization_url=Secret(str(url)))
        except ValueError:
            raise bad_request("A sign-in with this state is under way already.") from None
        self.parts.audit.write("sign_in_begun", owner=name)
        start_url = f"{self.parts.settings.public_prefix}start/{sign_in.name}"
        self.send(201, {"name": sign_in.name, "start_url": start_url, "expires_in": LIFE_SECONDS})


class AnswerHandler(_SignInHandler):
    """`POST sign-ins/<name>/answer`."""

    async def post(self, name: str) -> None:
        """Give the caller what the browser came back with, once, as soon as it is there.

        Args:
            name: Of the sign-in.
        """
        owner = await self.owner()
        sign_in = self.parts.sign_ins.by_name(name)
        if sign_in is None or sign_in.owner != owner:
            raise unknown_sign_in()
        wait_seconds = self.body_members().get("wait_seconds", POLL_SECONDS)
        if not isinstance(wait_seconds, int | float) or not 0 <= wait_seconds <= POLL_SECONDS:
            raise bad_request(f"wait_seconds is no number from 0 to {POLL_SECONDS:g}.")
        if sign_in.waiting >= MAX_WAITING:
            raise slow_down(1)
        answer = await self.parts.sign_ins.take_answer(sign_in, timeout_seconds=wait_seconds)
        if answer is None:
            self.set_status(204)
            self.clear_header("Content-Type")
            self.finish()
            return
        self.parts.audit.write("sign_in_answer_given", owner=owner)
        self.send(200, {"query": answer.reveal()})
