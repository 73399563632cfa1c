"""The service's addresses for kernels: the caller's Hub token, JSON in and out, refusals in one form.

A kernel gets its person's own bearer token (no refresh token ever), begins a sign-in by the redirect of the whole Hub
and takes its answer.
"""

from __future__ import annotations

import json
import logging
import math
import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlsplit

from tornado import web

from micromegas_jupyter.auth.flows.messages import MAX_AUTHORIZATION_CHARACTERS, is_web_address
from micromegas_jupyter.core.secrets import Secret
from micromegas_jupyter.hub.caller_limits import client_address
from micromegas_jupyter.hub.refreshing import HeldBearer, is_refused, is_stale, read_bearer
from micromegas_jupyter.hub.refusals import (
    Refused,
    bad_request,
    no_auth_state,
    no_redirect,
    not_renewed,
    provider_unavailable,
    sign_in_again,
    slow_down,
    unknown_sign_in,
)
from micromegas_jupyter.hub.rights import check_caller
from micromegas_jupyter.hub.sign_ins import LIFE_SECONDS, MAX_WAITING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from micromegas_jupyter.hub.dependencies import ServiceParts

_MAX_TOKEN_CHARACTERS: Final = 1024
_LOG: Final = logging.getLogger("micromegas_jupyter.hub")
_SCHEME: Final = "bearer "
MAX_PARAMETERS: Final = 50
# 32 random bytes as unpadded base64url (RFC 9700 section 4.7, RFC 7636 section 4.2).
_LONG_ENOUGH: Final = re.compile(r"[A-Za-z0-9._~-]{43,512}", re.ASCII)
_REFUSED_PARAMETERS: Final = frozenset({"request", "request_uri", "response_mode"})
"""They could lead the browser, or its answer, elsewhere than the other parameters say (RFC 9101)."""

_BEARER_NAMES: Final = {"id_token": "ID token", "access_token": "access token"}
POLL_SECONDS: Final = 25.0


class JsonHandler(web.RequestHandler):
    """Answers kernels; no cookie counts here, so there is nothing that another site could make a browser do."""

    event = "refused"
    """The audit event of a refusal."""

    def initialize(self, *, parts: ServiceParts) -> None:
        """Take what all handlers share."""
        self.parts = parts
        self.owner_name: str | None = None

    async def owner(self) -> str:
        """Return the Hub's name of the person whose server calls.

        Raises:
            Refused: It is no such server, it or its address calls too often, or it could read refresh tokens by itself.
        """
        found = await self.parts.limits.owner_of(
            self._hub_token(), address=client_address(self.request), ask=self.parts.hub.owner_of
        )
        self.owner_name = found.name
        return check_caller(found)

    def body_members(self) -> Mapping[str, object]:
        """Return the request's JSON object; an empty body is an empty object."""
        if not self.request.body:
            return {}
        try:
            body = json.loads(self.request.body)
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            raise bad_request("The request's body is no JSON object.")
        return body

    def send(self, status: int, members: Mapping[str, object]) -> None:
        """Answer with a JSON object."""
        self.set_status(status)
        self.finish(json.dumps(members))

    def _hub_token(self) -> Secret | None:
        text = self.request.headers.get("Authorization", "")
        token = text[len(_SCHEME) :].strip()
        if text[: len(_SCHEME)].lower() != _SCHEME or not token or len(token) > _MAX_TOKEN_CHARACTERS:
            return None
        return Secret(token) if token.isascii() and token.isprintable() else None

    def set_default_headers(self) -> None:
        """Set the headers of every answer."""
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Content-Type-Options", "nosniff")

    def check_xsrf_cookie(self) -> None:
        """Check nothing: only the Authorization header lets anybody in, and no browser sends it by itself."""

    def write_error(self, status_code: int, **details: Any) -> None:
        """Answer a refusal, or what no handler answers."""
        error = details.get("exc_info", (None, None, None))[1]
        if isinstance(error, Refused):
            self._send_refusal(error)
            return
        what = {404: "There is no such address.", 405: "This address does not take that method."}
        self.send(
            status_code,
            {
                "error": "invalid_request" if status_code < 500 else "internal_error",  # noqa: PLR2004 - HTTP
                "message": what.get(status_code, "The service could not answer."),
                "remedy": "Use the same version of micromegas_jupyter in the kernel and at the Hub.",
            },
        )

    def _send_refusal(self, refused: Refused) -> None:
        if refused.has_audit_line:
            address = client_address(self.request) if self.owner_name is None else None
            self.parts.audit.write(self.event, owner=self.owner_name, client_ip=address, reason=refused.error)
        if refused.retry_after_seconds is not None:
            self.set_header("Retry-After", str(refused.retry_after_seconds))
        if refused.status == 401:  # noqa: PLR2004 - HTTP
            self.set_header("WWW-Authenticate", "Bearer")
        self.send(refused.status, {"error": refused.error, "message": refused.message, "remedy": refused.remedy})

    def send_error(self, status_code: int = 500, **details: Any) -> None:
        """Answer an error with its own status, where a refusal has one."""
        error = details.get("exc_info", (None, None, None))[1]
        super().send_error(error.status if isinstance(error, Refused) else status_code, **details)

    def log_exception(
        self, typ: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Name the kind of a defect; refusals are in the audit log."""
        del tb
        if not isinstance(value, Refused | web.HTTPError):
            _LOG.error("A call ended with %s.", "nothing" if typ is None else typ.__name__)


def check_authorization_url(url: object, *, endpoint: str, redirect_uri: str, client_id: str) -> str:
    """Return the state of an address that is fit for a browser of the owner.

    Raises:
        Refused: It is not at the provider's authorization endpoint, not for this Hub's redirect and application, not a
            code request with PKCE S256, or its state is too short.
    """
    if not isinstance(url, str) or len(url) > MAX_AUTHORIZATION_CHARACTERS or not is_web_address(url):
        raise _unfit("no address")
    base, _, query = url.partition("?")
    own_base, _, own_query = endpoint.partition("?")
    if base != own_base or urlsplit(url).fragment:
        raise _unfit("not at the Hub's identity provider")
    parameters = _read(query)
    if any(parameters.get(name) != value for name, value in _read(own_query).items()):
        raise _unfit("not at the Hub's identity provider")
    wanted = {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": redirect_uri,
        "code_challenge_method": "S256",
    }
    wrong = next((name for name, value in wanted.items() if parameters.get(name) != value), None)
    if wrong is not None:
        raise _unfit(f"without the right {wrong}")
    if not _REFUSED_PARAMETERS.isdisjoint(parameters):
        raise _unfit("with a parameter that overrides others")
    for name in ("state", "code_challenge"):
        if _LONG_ENOUGH.fullmatch(parameters.get(name, "")) is None:
            raise _unfit(f"without a {name} of at least 43 characters")
    return parameters["state"]


def _read(query: str) -> Mapping[str, str]:
    """Return the parameters, each of which stands once."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=MAX_PARAMETERS)
    except ValueError:
        raise _unfit("with too many parameters") from None
    parameters = dict(pairs)
    if len(parameters) != len(pairs):
        raise _unfit("with a parameter twice")
    return parameters


def _unfit(how: str) -> Refused:
    return Refused(
        status=400,
        error="invalid_sign_in",
        message=f"The address that the browser is to open is {how}.",
        remedy=(
            "Ask the service again for its redirect address and application, and sign in with the Hub's own issuer."
        ),
    )


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


class _SignInHandler(JsonHandler):
    event = "sign_in_refused"

    def redirect_parts(self) -> tuple[str, str]:
        """Return the redirect address of the whole Hub and the application that it is registered for."""
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
        """Give the caller what the browser came back with, once, as soon as it is there."""
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


class HealthHandler(JsonHandler):
    """Says that the service runs."""

    async def get(self) -> None:
        """Answer."""
        self.send(200, {"status": "ok"})


class NothingHandler(JsonHandler):
    """Answers at every other address."""

    def prepare(self) -> None:
        """Answer that there is nothing."""
        self.send_error(404)
