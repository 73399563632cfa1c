"""The calls to the sign-in service of a JupyterHub: a token, and the steps of a sign-in through the Hub's own redirect.

Keeping a token is `hub_token`'s job, waiting for a person `hub_redirect`'s.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from micromegas_jupyter.auth.hub_place import HubPlace
from micromegas_jupyter.auth.hub_refusals import HUB, REFUSALS, UNKNOWN_SIGN_IN, refusal_of, unreadable
from micromegas_jupyter.core.http.hub_http import HubAnswer, HubHttp
from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.core.secrets import SecretObject
from micromegas_jupyter.errors import LoginFailed, MicromegasError
from micromegas_jupyter.oidc.tokens import usable_token

LONGEST_LIFE_SECONDS = 7 * 24 * 3600
MAX_TEXT_CHARACTERS = 2048

_OK = 200
_CREATED = 201
_NO_CONTENT = 204


@dataclass(frozen=True, slots=True, kw_only=True)
class HubToken:
    """A bearer token of the person whose server this is.

    Attributes:
        text: The token.
        expires_in_seconds: How long it lives on; the service's clock and this machine's need not agree.
        issuer: Who made it.
        user: The person's name at the Hub.
    """

    text: Secret
    expires_in_seconds: int
    issuer: str
    user: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HubRedirect:
    """How a sign-in through the Hub's own redirect has to be asked for.

    Attributes:
        redirect_uri: Where the provider sends the browser back to.
        issuer: The provider.
        client_id: The application.
    """

    redirect_uri: str
    issuer: str
    client_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSignIn:
    """A sign-in that the service has taken.

    Attributes:
        name: Its name at the service.
        start_url: The page that the person opens.
        expires_in_seconds: How long the service waits for them.
    """

    name: str = field(repr=False)
    start_url: str = field(repr=False)
    expires_in_seconds: int


class HubService:
    """Asks the service; safe to use from several threads.

    Args:
        place: Where it is, and this server's token.
        http: Makes the calls.
    """

    def __init__(self, place: HubPlace, *, http: HubHttp) -> None:
        self._place = place
        self._http = http

    def token(self) -> HubToken:
        """Ask for a bearer token.

        Raises:
            LoginRequired: The Hub gives none; the remedy says what to do here or there.
            ProviderUnavailable: The service, the Hub or the provider does not answer.
            ProviderMisbehaved: The answer cannot be used.
        """
        body = self._ask("token", {}, expected=_OK)
        seconds = _seconds(body, "expires_in", least=0)
        if seconds == 0:
            raise REFUSALS["provider_unavailable"].error()  # or the Hub would have renewed it
        return HubToken(
            text=_secret(body, "access_token"),
            expires_in_seconds=seconds,
            issuer=_text(body, "issuer"),
            user=_text(body, "user"),
        )

    def redirect(self) -> HubRedirect:
        """Ask how a sign-in through the Hub's own redirect has to be asked for; raises as `token`."""
        body = self._ask("redirect", None, expected=_OK)
        return HubRedirect(
            redirect_uri=_text(body, "redirect_uri"), issuer=_text(body, "issuer"), client_id=_text(body, "client_id")
        )

    def begin(self, authorization_url: str) -> HubSignIn:
        """Have the service send this person's browser to `authorization_url`; raises as `token`."""
        body = self._ask("sign-ins", {"authorization_url": authorization_url}, expected=_CREATED)
        return HubSignIn(
            name=_name(body), start_url=_text(body, "start_url"), expires_in_seconds=_seconds(body, "expires_in")
        )

    def answer(self, name: str, *, timeout_seconds: float) -> Secret | None:
        """Wait a while for what the browser came back with; None when it has not yet.

        Raises:
            LoginFailed: The service knows no such sign-in of this person, or not any more.
            LoginRequired: The service refuses this server.
            ProviderUnavailable: The service does not answer.
            ProviderMisbehaved: The answer cannot be used.
        """
        answer = self._call(f"sign-ins/{name}/answer", {}, timeout_seconds=timeout_seconds)
        if answer.body is not None and answer.body.get("error") == UNKNOWN_SIGN_IN:
            raise LoginFailed("JupyterHub does not know this sign-in any more.")
        body = _expected(answer, _OK)
        return None if body is None else _secret(body, "query")

    def close(self) -> None:
        """Cut a call that waits, and make none any more."""
        self._http.close()

    def _ask(self, path: str, body: Mapping[str, object] | None, *, expected: int) -> SecretObject | None:
        return _expected(self._call(path, body), expected)

    def _call(
        self,
        path: str,
        body: Mapping[str, object] | None,
        *,
        timeout_seconds: float | None = None,
    ) -> HubAnswer:
        try:
            return self._http.call(
                f"{self._place.url}{path}", token=self._place.token, body=body, timeout_seconds=timeout_seconds
            )
        except MicromegasError as error:
            error.giver = HUB
            raise

    def __repr__(self) -> str:
        return f"HubService(url={self._place.url!r})"


def _expected(answer: HubAnswer, status: int) -> SecretObject | None:
    """Return the body of an answer with that status; None when there is nothing to tell yet."""
    if answer.status == status and answer.body is not None:
        return answer.body
    if answer.status == _NO_CONTENT:
        return None
    raise refusal_of(answer)


def _secret(body: SecretObject | None, name: str) -> Secret:
    value = usable_token(None if body is None else body.get(name))
    if value is None or not value.reveal() or " " in value.reveal():
        raise unreadable()
    return value


def _text(body: SecretObject | None, name: str) -> str:
    value = None if body is None else body.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT_CHARACTERS or not value.isprintable():
        raise unreadable()
    return value


def _name(body: SecretObject | None) -> str:
    name = _text(body, "name")
    # It becomes part of an address.
    if not name.isascii() or not all(character.isalnum() or character in "-_." for character in name):
        raise unreadable()
    return name


def _seconds(body: SecretObject | None, name: str, *, least: int = 1) -> int:
    value = None if body is None else body.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= LONGEST_LIFE_SECONDS:
        raise unreadable()
    return value
