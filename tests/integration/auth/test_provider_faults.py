"""Every fault of a provider, wherever it can strike: an end in time, a class of its own, and nothing lost."""

import json
import time
import traceback
from contextlib import contextmanager
from dataclasses import make_dataclass
from urllib.parse import urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from micromegas_jupyter.auth import OidcAuthProvider
from micromegas_jupyter.auth.client_credentials import OidcClientCredentialsProvider
from micromegas_jupyter.auth.flows.base import LoginRequest
from micromegas_jupyter.auth.flows.device import DeviceFlow
from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.core.http import ProviderHttp
from micromegas_jupyter.errors import (
    LoginFailed,
    LoginRequired,
    MicromegasError,
    ProviderMisbehaved,
    ProviderUnavailable,
)
from tests.fakes import faulty_replies as faulty
from tests.fakes.faulty_replies import ELSEWHERE, FaultyProvider, hang, trickle
from tests.fakes.mint import SigningKey, rsa_key
from tests.fakes.pause import FakePause
from tests.fakes.scripted_browser import ScriptedBrowser

pytestmark = pytest.mark.integration

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
    """Real calls, with a short deadline at the path where the provider stalls."""

    stalling = ""

    def fetch_json(self, url):
        return ProviderHttp(timeout_seconds=self.timeout_seconds(url)).fetch_json(url)

    def post_form(self, url, fields, **options):
        return ProviderHttp(timeout_seconds=self.timeout_seconds(url)).post_form(url, fields, **options)

    def timeout_seconds(self, url):
        return STALL_TIMEOUT_SECONDS if self.stalling and urlsplit(url).path == self.stalling else USUAL_TIMEOUT_SECONDS


class Scene:
    """A person's stored sign-in and a service account at a provider that has a fault at one path."""

    def __init__(self, idp, path, clock, *, ends_in_seconds):
        self.idp, self._path, self._clock, self._calls = idp, path, clock, SwitchedCalls()
        token = idp.stored_token(ends_in_seconds=ends_in_seconds)
        self.stored_token = str(token["id_token"])
        path.write_text(json.dumps({"issuer": idp.issuer, "client_id": "notebook", "token": token}))
        options = {"http": self._calls, "clock": clock}
        self.person = OidcAuthProvider(idp.issuer, "notebook", token_file=path, **options)
        self.service = OidcClientCredentialsProvider(idp.issuer, "notebook", CLIENT_SECRET, **options)

    def strike(self, fault, path):
        """Let the fault begin."""
        self.idp.faults[path] = fault
        self._calls.stalling = path if fault in STALLS else ""

    @contextmanager
    def ends_in_time(self):
        """Fail when what is done during the fault takes much longer than a call may."""
        seconds = (STALL_TIMEOUT_SECONDS if self._calls.stalling else USUAL_TIMEOUT_SECONDS) + MARGIN_SECONDS
        started = time.monotonic()
        yield
        assert time.monotonic() - started < seconds

    def mend(self, *, after_seconds=1):
        """Let the provider be well again, after the pause that follows a failure."""
        self.idp.faults.clear()
        self._calls.stalling = ""
        self._clock.advance(after_seconds)

    def renew(self):
        return self.person.get_token()

    def serve(self):
        """Return a token of the service account, which the provider knows by its secret."""
        self.idp.client_secret = CLIENT_SECRET
        self.idp.secrets.add(CLIENT_SECRET)
        return self.service.get_token()

    def sign_in(self):
        """Sign in with a browser, in place of the stored sign-in."""
        options = {"timeout_seconds": 10, "http": self._calls, "clock": self._clock, "browser": ScriptedBrowser()}
        return OidcAuthProvider.login(self.idp.issuer, "notebook", token_file=self._path, **options)

    def sign_in_by_code(self, *, mends_before_question=0):
        """Sign in with a code that the person types at once; the provider may be well before one of the questions."""
        self.idp.device.lifetime_seconds = 40 if mends_before_question else 12  # enough for one question only
        pause = FakePause(self._clock)
        pause.meanwhile[mends_before_question] = self.mend
        connection = ProviderConnection(self.idp.issuer, "notebook", None, http=self._calls, clock=self._clock)
        login = DeviceFlow(LoginRequest(connection=connection), stopped=pause)
        self.idp.device.decide(login.prompt.user_code)
        return login.tokens()


# A path where a fault strikes, what leads there, what gives a token afterwards, and the stored one's life.
Step = make_dataclass("Step", ["path", "act", "again", "ends_in_seconds"])
STEPS = {
    "login_discovery": Step(DISCOVERY, Scene.sign_in, Scene.renew, FRESH),
    "login_token": Step(TOKEN, Scene.sign_in, Scene.renew, FRESH),
    "login_callback": Step(AUTHORIZE, Scene.sign_in, Scene.renew, FRESH),
    "refresh_keys": Step(KEYS, Scene.renew, Scene.renew, ENDED),
    "refresh_token": Step(TOKEN, Scene.renew, Scene.renew, ENDED),
    "device_start": Step(DEVICE, Scene.sign_in_by_code, Scene.renew, FRESH),
    "device_poll": Step(TOKEN, Scene.sign_in_by_code, Scene.renew, FRESH),
    "service_token": Step(TOKEN, Scene.serve, Scene.serve, FRESH),
}


def check_manners(scene, log, *shown):
    """Check that no secret was shown or logged, and that no redirect was followed."""
    logged = [repr(vars(record)) for record in log.records if record.name.startswith("micromegas_jupyter")]
    said = " ".join((*shown, *logged))
    assert not [secret for secret in scene.idp.secrets if secret in said]
    assert scene.idp.seen(ELSEWHERE) == []


ANYWHERE = (
    "hang", "trickle", "cut", "server_error", "too_many_requests", "malformed_json", "not_an_object", "oversized",
    "compressed", "wrong_content_type", "redirect",
)  # fmt: skip
FAULTS = {name: getattr(faulty, name) for name in (*ANYWHERE, "unsigned")} | {
    "wrong_issuer": faulty.change(issuer="https://evil.example"),
    "wrong_iss": faulty.another_issuer_in_callback,
    "wrong_nonce": faulty.forge(nonce="another"),
    "foreign_issuer": faulty.forge(iss="https://evil.example"),
    "foreign_audience": faulty.forge(aud="another"),
    "foreign_key": faulty.forge(key=rsa_key("hidden")),
    "forged_key": faulty.forge(
        key=SigningKey(private=ec.generate_private_key(ec.SECP256R1()), algorithm="ES256", kid="ec")
    ),
    "no_refresh_token": faulty.change(refresh_token=None),
    "no_id_token": faulty.change(id_token=None),
    "no_tokens_but_access": faulty.change(refresh_token=None, id_token=None),
    "no_access_token": faulty.change(access_token=None),
    "invalid_grant": faulty.refuse("invalid_grant"),
    "invalid_client": faulty.refuse("invalid_client"),
    "slow_down": faulty.refuse("slow_down"),
}

# U: ProviderUnavailable, M: ProviderMisbehaved, F: LoginFailed, R: LoginRequired, +: all goes well, .: cannot occur.
CLASSES = {"U": ProviderUnavailable, "M": ProviderMisbehaved, "F": LoginFailed, "R": LoginRequired}

GRID = """
                        login                    refresh       device      service
                        discovery token callback keys token    start poll  token
hang                    U         U     .        U    U        U     U     U
trickle                 U         U     .        U    U        U     U     U
cut                     U         U     .        U    U        U     U     U
server_error            U         U     .        U    U        U     U     U
too_many_requests       U         U     .        U    U        U     U     U
malformed_json          M         M     .        M    M        M     M     M
not_an_object           M         M     .        M    M        M     M     M
oversized               M         M     .        M    M        M     M     M
compressed              M         M     .        M    M        M     M     M
wrong_content_type      M         M     .        M    M        M     M     M
redirect                M         M     .        M    M        M     M     M
wrong_issuer            M         .     .        .    .        .     .     .
wrong_iss               .         .     M        .    .        .     .     .
wrong_nonce             .         M     .        .    .        .     .     .
unsigned                .         M     .        .    M        .     M     .
foreign_issuer          .         M     .        .    M        .     M     .
foreign_audience        .         M     .        .    M        .     M     .
foreign_key             .         M     .        .    M        .     M     .
forged_key              .         M     .        .    M        .     M     .
no_refresh_token        .         +     .        .    +        .     +     .
no_id_token             .         M     .        .    R        .     M     .
no_tokens_but_access    .         M     .        .    R        .     M     .
no_access_token         .         M     .        .    M        .     M     M
invalid_grant           .         F     .        .    R        F     F     F
invalid_client          .         F     .        .    F        F     F     F
slow_down               .         U     .        .    U        U     +     U
"""


def cells(grid, columns):
    """Return the letter of each fault and column that can occur."""
    rows = [line.split() for line in grid.splitlines() if line and not line.startswith(" ")]
    return {
        (name, column): letter
        for name, *letters in rows
        for column, letter in zip(columns, letters, strict=True)
        if letter != "."
    }


CELLS = cells(GRID, STEPS)
FAILING = [(fault, step, CLASSES[letter]) for (fault, step), letter in CELLS.items() if letter != "+"]
# The provider says that the sign-in has ended, so that only a new one helps.
ENDS_SIGN_IN = ("invalid_grant", "refresh_token", LoginRequired)
# Where a token that is still valid serves.
SERVED = [
    (fault, step)
    for fault, step, _ in FAILING
    if step == "service_token" or (step.startswith("refresh") and fault != "invalid_grant")
]
PASSING_IN_POLLS = [
    *(fault for fault, step, kind in FAILING if (step, kind) == ("device_poll", ProviderUnavailable)),
    "slow_down",
]
PERMITTED = [cell for cell, letter in CELLS.items() if letter == "+" and cell[0] != "slow_down"]

# U: the provider could not be reached, M: it did not do it, +: done; the body of a success means nothing there.
LOGOUT_GRID = """
                      discovery revocation
hang                      U         U
trickle                   U         U
cut                       U         U
server_error              U         U
too_many_requests         U         U
malformed_json            M         +
not_an_object             M         +
oversized                 M         +
compressed                M         +
wrong_content_type        M         +
redirect                  M         M
wrong_issuer              M         .
invalid_grant             .         M
invalid_client            .         M
slow_down                 .         M
"""

LOGOUTS = [(*cell, letter) for cell, letter in cells(LOGOUT_GRID, (DISCOVERY, REVOKE)).items()]
# How long the next try may be put off: after a failure that could wait, and after an answer without an ID token.
PAUSE_SECONDS = 31


@pytest.fixture
def idp(clock):
    with FaultyProvider(clock=clock) as running:
        yield running


@pytest.fixture
def build(idp, tmp_path, clock):
    """Makes the scene whose stored token ends in so many seconds."""
    return lambda ends_in_seconds: Scene(idp, tmp_path / "t.json", clock, ends_in_seconds=ends_in_seconds)


def meet(scene, fault, step, log):
    """Run into a fault and return the error, whose manners are checked."""
    log.set_level("DEBUG", logger="micromegas_jupyter")
    scene.strike(FAULTS[fault], STEPS[step].path)
    with scene.ends_in_time(), pytest.raises(MicromegasError) as caught:
        STEPS[step].act(scene)
    assert caught.value.remedy
    error = caught.value
    check_manners(scene, log, f"{error} {error!r} {vars(error)}", *traceback.format_exception(error))
    return error


@pytest.mark.parametrize(("fault", "step", "expected"), [cell for cell in FAILING if cell != ENDS_SIGN_IN])
def test_a_fault_ends_in_time_in_its_own_class_and_costs_no_token(fault, step, expected, build, caplog):
    place = STEPS[step]
    scene = build(place.ends_in_seconds)

    error = meet(scene, fault, step, caplog)

    assert type(error) is expected
    if place.ends_in_seconds == FRESH:
        assert scene.person.get_token() == scene.stored_token
    scene.mend(after_seconds=max(PAUSE_SECONDS if expected is LoginRequired else 1, place.ends_in_seconds))
    assert place.again(scene) != scene.stored_token


def test_a_refresh_token_that_the_provider_has_ended_asks_for_a_new_sign_in(build, caplog):
    fault, step, expected = ENDS_SIGN_IN
    scene = build(STEPS[step].ends_in_seconds)

    error = meet(scene, fault, step, caplog)

    assert type(error) is expected
    scene.mend()
    with pytest.raises(LoginRequired, match=r"sign-in has (ended|expired)") as caught:
        scene.person.get_token()
    assert "micromegas login" in caught.value.remedy
    assert len(scene.idp.refreshes()) == 1
    scene.sign_in()
    assert scene.person.get_token() != scene.stored_token


@pytest.mark.parametrize(("fault", "step"), SERVED)
def test_a_token_that_is_still_valid_serves_during_a_fault(fault, step, build):
    is_service = step == "service_token"
    scene = build(FRESH if is_service else ENDING)
    first = scene.serve() if is_service else scene.stored_token
    if is_service:
        scene.mend(after_seconds=FRESH - ENDING)
    scene.strike(FAULTS[fault], STEPS[step].path)

    with scene.ends_in_time():
        assert STEPS[step].act(scene) == first

    scene.mend(after_seconds=PAUSE_SECONDS)
    assert STEPS[step].act(scene) != first


@pytest.mark.parametrize("fault", PASSING_IN_POLLS)
def test_a_device_sign_in_goes_on_after_a_fault_that_passes(fault, build):
    scene = build(FRESH)
    scene.strike(FAULTS[fault], STEPS["device_poll"].path)

    tokens = scene.sign_in_by_code(mends_before_question=2)

    assert tokens.id_token is not None


@pytest.mark.parametrize(("fault", "step"), PERMITTED)
def test_what_an_answer_may_leave_out_is_not_missed(fault, step, build):
    scene = build(STEPS[step].ends_in_seconds)
    scene.strike(FAULTS[fault], STEPS[step].path)

    assert STEPS[step].act(scene) is not None


@pytest.mark.parametrize(("fault", "path", "letter"), LOGOUTS)
def test_a_logout_ends_in_time_and_ends_the_sign_in_here(fault, path, letter, build, caplog):
    caplog.set_level("DEBUG", logger="micromegas_jupyter")
    scene = build(FRESH)
    scene.strike(FAULTS[fault], path)

    with scene.ends_in_time():
        report = scene.person.logout()

    assert (report.provider_answered, report.problem is None) == (letter != "U", letter == "+")
    assert (report.files_removed, report.refresh_token_revoked) == (1, letter == "+")
    check_manners(scene, caplog, f"{report} {report!r}")
    with pytest.raises(LoginRequired):
        scene.person.get_token()
