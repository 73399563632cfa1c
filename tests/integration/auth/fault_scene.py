"""The places where a provider's fault can strike, each with a sign-in that must come through it."""

from __future__ import annotations

import json
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from micromegas_jupyter.auth import OidcAuthProvider
from micromegas_jupyter.auth.client_credentials import OidcClientCredentialsProvider
from micromegas_jupyter.auth.flows.base import LoginContext
from micromegas_jupyter.auth.flows.device import start_device
from micromegas_jupyter.auth.provider_connection import LoginRequest, ProviderConnection
from micromegas_jupyter.core.http import FormFields, HttpAnswer, ProviderHttp
from micromegas_jupyter.core.system import SYSTEM_RANDOMNESS
from tests.fakes.faulty_replies import hang, trickle
from tests.fakes.pause import FakePause
from tests.fakes.scripted_browser import ScriptedBrowser

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable
    from pathlib import Path

    from micromegas_jupyter.oidc.authorization import TokenSet
    from tests.fakes.clock import FakeClock
    from tests.fakes.faulty_replies import Fault, FaultyProvider

DISCOVERY, KEYS, TOKEN = "/.well-known/openid-configuration", "/keys", "/token"
DEVICE, AUTHORIZE, REVOKE = "/device_authorization", "/authorize", "/revoke"

STALLS = (hang, trickle)
STALL_TIMEOUT_SECONDS = 0.15
# Faults that answer at once, and a provider that is well, get time: a busy machine is not taken for one that hangs.
USUAL_TIMEOUT_SECONDS = 10.0
MARGIN_SECONDS = 8.0
CLIENT_SECRET = "s3cret of the service"
# How long a stored token still lives: it has ended, it is to be renewed but serves, or it is fresh.
ENDED, ENDING, FRESH = -10, 120, 3600


class SwitchedCalls:
    """Implements `http.ProviderCalls`: real calls, whose deadline is a short one where the provider stalls.

    Attributes:
        stalling: The path at which the provider stalls; nothing when it does not.
    """

    def __init__(self) -> None:
        self.stalling = ""
        self._http = {
            timeout_seconds: ProviderHttp(timeout_seconds=timeout_seconds)
            for timeout_seconds in (STALL_TIMEOUT_SECONDS, USUAL_TIMEOUT_SECONDS)
        }

    def fetch_json(self, url: str) -> HttpAnswer:
        return self._http[self.timeout_seconds(url)].fetch_json(url)

    def post_form(
        self, url: str, fields: FormFields, *, headers: FormFields | None = None, needs_body: bool = True
    ) -> HttpAnswer:
        return self._http[self.timeout_seconds(url)].post_form(url, fields, headers=headers, needs_body=needs_body)

    def timeout_seconds(self, url: str) -> float:
        return STALL_TIMEOUT_SECONDS if self.stalling and urlsplit(url).path == self.stalling else USUAL_TIMEOUT_SECONDS


class Scene:
    """A person's stored sign-in and a service account at a provider that has a fault at one path.

    Attributes:
        idp: The provider.
        person: Has taken up the stored sign-in; nothing was asked of the provider yet.
        stored_token: What was stored, as bearer token.
        service: The service account.
        deadline_seconds: When whatever meets the fault must have ended.
    """

    def __init__(self, idp: FaultyProvider, path: Path, clock: FakeClock, *, ends_in_seconds: float) -> None:
        self.idp = idp
        self.deadline_seconds = 0.0
        self._path = path
        self._clock = clock
        self._calls = SwitchedCalls()
        token = idp.stored_token(ends_in_seconds=ends_in_seconds)
        self.stored_token = str(token["id_token"])
        path.write_text(json.dumps({"issuer": idp.issuer, "client_id": "notebook", "token": token}))
        self.person = OidcAuthProvider(idp.issuer, "notebook", token_file=path, http=self._calls, clock=clock)
        self.service = OidcClientCredentialsProvider(
            idp.issuer, "notebook", CLIENT_SECRET, http=self._calls, clock=clock
        )

    def strike(self, fault: Fault, path: str) -> None:
        """Let the fault begin."""
        self.idp.faults[path] = fault
        self._calls.stalling = path if fault in STALLS else ""
        self.deadline_seconds = self._calls.timeout_seconds(self.idp.issuer + path) + MARGIN_SECONDS

    def mend(self, *, after_seconds: float = 1) -> None:
        """Let the provider be well again, after the pause that follows a failure."""
        self.idp.faults.clear()
        self._calls.stalling = ""
        self._clock.advance(after_seconds)

    def serve(self) -> str:
        """Return a token of the service account, which the provider knows by its secret."""
        self.idp.client_secret = CLIENT_SECRET
        self.idp.secrets.add(CLIENT_SECRET)
        return self.service.get_token()

    def sign_in(self) -> OidcAuthProvider:
        """Sign in with a browser, in place of the stored sign-in."""
        return OidcAuthProvider.login(
            self.idp.issuer,
            "notebook",
            token_file=self._path,
            browser=ScriptedBrowser(),
            timeout_seconds=10,
            http=self._calls,
            clock=self._clock,
        )

    def sign_in_by_code(self, *, mends_before_question: int = 0) -> TokenSet | None:
        """Sign in with a code that the person types at once; the provider may be well before one of the questions."""
        self.idp.device.lifetime_seconds = 40 if mends_before_question else 12  # enough for one question only
        pause = FakePause(self._clock)
        pause.meanwhile[mends_before_question] = self.mend
        login = start_device(
            LoginContext(
                request=LoginRequest(),
                connection=ProviderConnection(self.idp.issuer, "notebook", None, http=self._calls, clock=self._clock),
                clock=self._clock,
                randomness=SYSTEM_RANDOMNESS,
            ),
            stopped=pause,
        )
        self.idp.device.decide(login.prompt.user_code)
        return login.tokens()


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A place where a fault strikes.

    Attributes:
        path: Where the provider is asked.
        act: What a program does that leads there.
        again: What gives a token when the provider is well again, without a person.
        ends_in_seconds: How long the stored token still lives.
    """

    path: str
    act: Callable[[Scene], object]
    again: Callable[[Scene], str]
    ends_in_seconds: float = FRESH


def _renew(scene: Scene) -> str:
    return scene.person.get_token()


STEPS = {
    "login_discovery": Step(path=DISCOVERY, act=Scene.sign_in, again=_renew),
    "login_token": Step(path=TOKEN, act=Scene.sign_in, again=_renew),
    "login_callback": Step(path=AUTHORIZE, act=Scene.sign_in, again=_renew),
    "refresh_keys": Step(path=KEYS, act=_renew, again=_renew, ends_in_seconds=ENDED),
    "refresh_token": Step(path=TOKEN, act=_renew, again=_renew, ends_in_seconds=ENDED),
    "device_start": Step(path=DEVICE, act=Scene.sign_in_by_code, again=_renew),
    "device_poll": Step(path=TOKEN, act=Scene.sign_in_by_code, again=_renew),
    "service_token": Step(path=TOKEN, act=Scene.serve, again=Scene.serve),
}


class Stopwatch:
    """Measures real time from its making on."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started


def all_shown(error: BaseException) -> str:
    """Return everything that an error shows anywhere."""
    return " ".join([str(error), repr(error), str(vars(error)), *traceback.format_exception(error)])


def all_logged(records: list[logging.LogRecord]) -> str:
    """Return everything that this package logged."""
    return " ".join(repr(vars(record)) for record in records if record.name.startswith("micromegas_jupyter"))
