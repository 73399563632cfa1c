"""Weak points that were verified in another client of this kind; here each is shown not to exist.

The numbers are those of the list that they come from. These concern signing in and making calls; those of tokens that
are kept are in `test_upstream_kept_token_weaknesses`.
"""

from __future__ import annotations

import socket
import time
from contextlib import closing
from typing import TYPE_CHECKING

import psutil
import pytest
import requests

from micromegas_jupyter.auth import OidcAuthProvider, OidcClientCredentialsProvider, PendingLogin
from micromegas_jupyter.auth.flows.environment import Facts
from micromegas_jupyter.auth.flows.select import choose_flow, detect_environment
from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.core.http import ProviderHttp
from micromegas_jupyter.errors import (
    ConfigurationError,
    LoginRefused,
    LoginRequired,
    ProviderMisbehaved,
    ProviderUnavailable,
    UsageError,
)
from tests.fakes import faulty_replies as faulty
from tests.fakes.faulty_replies import FaultyProvider
from tests.fakes.flight_server import SMALL_TABLE, FakeFlightServer
from tests.fakes.mint import rsa_key
from tests.fakes.scripted_browser import ScriptedBrowser
from tests.fakes.scripted_provider import ScriptedProvider

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.fakes.faulty_replies import Fault

pytestmark = pytest.mark.integration

WAIT_SECONDS = 60


@pytest.fixture
def idp() -> Iterator[FaultyProvider]:
    with FaultyProvider() as running:
        running.device.interval_seconds = 1
        yield running


@pytest.fixture
def server() -> Iterator[FakeFlightServer]:
    with closing(FakeFlightServer()) as running:
        yield running


def sign_in(idp: ScriptedProvider, browser: ScriptedBrowser | None = None, **options: object) -> OidcAuthProvider:
    arguments = {"browser": browser or ScriptedBrowser(), "timeout_seconds": WAIT_SECONDS, **options}
    return OidcAuthProvider.login(idp.issuer, "notebook", **arguments)  # type: ignore[arg-type]


def begin(idp: ScriptedProvider, **options: object) -> PendingLogin:
    arguments = {"timeout_seconds": WAIT_SECONDS, **options}
    return OidcAuthProvider.begin_login(idp.issuer, "notebook", **arguments)  # type: ignore[arg-type]


def before_the_callback(act: Callable[[str], str | None]) -> ScriptedBrowser:
    """A browser that does something just before it comes back; what that returns is opened instead."""
    return ScriptedBrowser(lambda url: (act(url) or url) if "/callback?" in url else url)


CALLS = {
    "query": lambda client: client.query("SELECT 1"),
    "stream": lambda client: list(client.query_stream("SELECT 1")),
    "statement": lambda client: client.prepare_statement("SELECT 1"),
    "write": lambda client: client.bulk_ingest("t", SMALL_TABLE),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_c01_a_token_that_cannot_be_had_stops_the_call(
    call: Callable[[FlightSQLClient], object], idp: FaultyProvider, server: FakeFlightServer
) -> None:
    """A provider that failed was passed over in silence, and the call went out without any authorization."""
    token = {**idp.stored_token(ends_in_seconds=-10), "refresh_token": "dead"}
    provider = OidcAuthProvider(idp.issuer, "notebook", token=token)

    with FlightSQLClient(server.uri, auth_provider=provider) as client, pytest.raises(LoginRequired):
        call(client)

    assert server.calls == []


def test_c03_the_listener_is_on_loopback_only(idp: FaultyProvider) -> None:
    """The listener was on every interface of the machine, where anybody on the network could reach it."""
    addresses: list[str] = []

    def look(url: str) -> None:
        addresses.extend(
            found.laddr.ip
            for found in psutil.Process().net_connections(kind="inet")
            if found.status == psutil.CONN_LISTEN and f":{found.laddr.port}/" in url
        )

    sign_in(idp, before_the_callback(look))

    assert addresses == ["127.0.0.1"]


def test_c03_sign_ins_at_the_same_time_listen_on_ports_of_their_own(idp: FaultyProvider) -> None:
    """The port was the same for everybody, so whoever came first on a machine kept all others from signing in."""
    first, second = begin(idp), begin(idp)

    for pending in (first, second):
        ScriptedBrowser().open(str(pending.start_url))

    assert [pending.result(WAIT_SECONDS).identity().subject for pending in (first, second)] == ["alice-1"] * 2
    assert all(pending.wait_closed(WAIT_SECONDS) for pending in (first, second))


def test_c04_stray_requests_do_not_end_a_sign_in(idp: FaultyProvider) -> None:
    """The first request of any kind ended the sign-in: a page's icon, a scan, or somebody else on the network."""
    statuses: list[int] = []

    def disturb(url: str) -> None:
        base, _, _ = url.partition("/callback?")
        for method, path in (
            ("GET", "/favicon.ico"),
            ("GET", "/callback"),
            ("GET", "/callback?code=evil&state=guess"),
            ("GET", "/callback?error=access_denied&state=guess"),
            ("POST", "/callback?code=evil"),
        ):
            statuses.append(requests.request(method, base + path, timeout=WAIT_SECONDS).status_code)
        port = int(base.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as scan:
            scan.sendall(b"\x16\x03\x01\x00\xee not HTTP\r\n\r\n")
        silent.append(socket.create_connection(("127.0.0.1", port)))

    silent: list[socket.socket] = []
    provider = sign_in(idp, before_the_callback(disturb))

    assert provider.identity().subject == "alice-1"
    assert statuses == [404, 400, 400, 400, 405]
    silent[0].close()


def test_c05_the_reason_of_a_refusal_is_told(idp: FaultyProvider) -> None:
    """A person who had refused was told that no code had come."""
    idp.callback_changes.update(code=None, error="access_denied", error_description="Not today.")

    with pytest.raises(LoginRefused, match=r"access_denied: Not today\."):
        sign_in(idp)

    assert idp.seen("/token") == []


def test_c05_a_code_at_another_path_is_not_taken(idp: FaultyProvider) -> None:
    """A code was taken from whatever path it came to."""
    statuses: list[int] = []

    def elsewhere(url: str) -> None:
        statuses.append(requests.get(url.replace("/callback?", "/other?"), timeout=WAIT_SECONDS).status_code)

    provider = sign_in(idp, before_the_callback(elsewhere))

    assert statuses == [404]
    assert provider.identity().subject == "alice-1"


@pytest.mark.parametrize("iss", ["https://evil.example", None])
def test_c05_an_answer_of_another_provider_is_not_taken(iss: str | None, idp: FaultyProvider) -> None:
    """Nobody looked at who the answer was from, so one provider's code could be sent to another (RFC 9207)."""
    idp.callback_changes["iss"] = iss

    with pytest.raises(ProviderMisbehaved):
        sign_in(idp)

    assert idp.seen("/token") == []


ID_TOKENS = {
    "another nonce": faulty.forge(nonce="another"),
    "no nonce": faulty.forge(nonce=None),
    "another issuer": faulty.forge(iss="https://evil.example"),
    "another audience": faulty.forge(aud="another"),
    "another key": faulty.forge(key=rsa_key("hidden")),
    "no signature": faulty.unsigned,
    "no JWT": faulty.change(id_token="opaque"),
}


@pytest.mark.parametrize("fault", ID_TOKENS.values(), ids=ID_TOKENS)
def test_c06_an_id_token_that_does_not_fit_is_refused(fault: Fault, idp: FaultyProvider, tmp_path: Path) -> None:
    """No nonce was sent, and of the ID token nothing was checked: not the signature, nor for whom it was."""
    idp.faults["/token"] = fault

    with pytest.raises(ProviderMisbehaved):
        sign_in(idp, token_file=tmp_path / "t.json")

    assert not (tmp_path / "t.json").exists()
    assert len(idp.seen("/authorize")[0].query["nonce"]) >= 43


def test_c07_a_description_of_another_provider_is_refused(idp: FaultyProvider) -> None:
    """The discovery document's issuer was not compared with the one that was asked."""
    idp.metadata_changes["issuer"] = "https://evil.example"
    browser = ScriptedBrowser()

    with pytest.raises(ProviderMisbehaved):
        sign_in(idp, browser)

    assert browser.visited == []


def test_c07_an_issuer_with_a_slash_at_its_end_is_asked_at_the_right_place() -> None:
    """A slash at the issuer's end gave an address with two of them, where some providers have nothing."""
    with ScriptedProvider(issuer_path="/tenant/") as idp:
        provider = sign_in(idp)

        assert idp.requests[0].path == "/tenant/.well-known/openid-configuration"
        assert provider.identity().issuer == idp.issuer


def test_c07_a_provider_without_tls_is_refused() -> None:
    """Plain http was taken for a provider anywhere, so whoever was on the way could be that provider."""
    with pytest.raises(ConfigurationError):
        OidcAuthProvider.login("http://id.example.com", "notebook", browser=ScriptedBrowser())


def test_c16_a_service_account_sends_scope_and_authenticates_as_the_provider_wants(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A service account could send no scope, ignored the variable for it, and put its secret into the form only."""
    with ScriptedProvider(client_id="service", client_secret="s3 cret:+%") as idp:
        idp.metadata_changes["token_endpoint_auth_methods_supported"] = ["client_secret_basic"]
        monkeypatch.setenv("MICROMEGAS_OIDC_ISSUER", idp.issuer)
        monkeypatch.setenv("MICROMEGAS_OIDC_CLIENT_ID", "service")
        monkeypatch.setenv("MICROMEGAS_OIDC_CLIENT_SECRET", "s3 cret:+%")
        monkeypatch.setenv("MICROMEGAS_OIDC_SCOPE", "api://lake/.default")

        assert OidcClientCredentialsProvider.from_env().get_token().startswith("service-")

        (asked,) = idp.seen("/token")
    assert asked.form == {"grant_type": "client_credentials", "scope": "api://lake/.default"}
    assert asked.headers["authorization"].startswith("Basic ")


def _refresh(idp: ScriptedProvider, http: ProviderHttp) -> object:
    token = idp.stored_token(ends_in_seconds=-10)
    return OidcAuthProvider(idp.issuer, "notebook", token=token, http=http).get_token()


def _get_service_token(idp: ScriptedProvider, http: ProviderHttp) -> object:
    return OidcClientCredentialsProvider(idp.issuer, "notebook", "s3cret", http=http).get_token()


TOKEN_CALLS = {"code": lambda idp, http: sign_in(idp, http=http), "refresh": _refresh, "service": _get_service_token}


@pytest.mark.parametrize("fault", [faulty.hang, faulty.trickle])
@pytest.mark.parametrize("ask", TOKEN_CALLS.values(), ids=TOKEN_CALLS)
def test_c17_a_token_endpoint_that_stalls_is_given_up_in_time(
    ask: Callable[[ScriptedProvider, ProviderHttp], object], fault: Fault, idp: FaultyProvider
) -> None:
    """Calls to the token endpoint had no time-out, or one for each read only, so a stalled provider held them."""
    idp.faults["/token"] = fault
    started = time.monotonic()

    with pytest.raises(ProviderUnavailable):
        ask(idp, ProviderHttp(timeout_seconds=0.5))

    assert time.monotonic() - started < 9


@pytest.mark.parametrize("scheme", ["grpc", "grpc+tcp", "http"])
def test_c18_a_token_never_goes_to_another_machine_in_plain_text(scheme: str, idp: FaultyProvider) -> None:
    """Tokens went in plain text to any host, without a word."""
    provider = OidcAuthProvider(idp.issuer, "notebook", token=idp.stored_token(ends_in_seconds=3600))

    with pytest.raises(UsageError, match="not encrypted"):
        FlightSQLClient(f"{scheme}://lake.example.com:50051", auth_provider=provider)


def test_c18_this_machine_and_whoever_allows_it_are_exempt(idp: FaultyProvider, server: FakeFlightServer) -> None:
    """Tokens went in plain text to any host; to this machine, or by a person's own decision, they still may."""
    token = idp.stored_token(ends_in_seconds=3600)
    provider = OidcAuthProvider(idp.issuer, "notebook", token=token)

    FlightSQLClient("grpc://lake.example.com:50051", auth_provider=provider, allow_plaintext=True).close()
    with FlightSQLClient(server.uri, auth_provider=provider) as client:
        client.query("SELECT 1")

    assert server.calls[0].metadata["authorization"] == f"Bearer {token['id_token']}"


def test_c19_a_person_signs_in_with_a_code_on_any_device(idp: FaultyProvider) -> None:
    """A browser on the same machine was the only way to sign in: there was no code to type elsewhere."""
    pending = begin(idp, flow=Flow.DEVICE)

    idp.device.decide(pending.user_code)

    assert pending.result(WAIT_SECONDS).identity().subject == "alice-1"
    assert pending.wait_closed(WAIT_SECONDS)


def test_c19_a_person_signs_in_by_pasting_the_address_that_their_browser_ended_at(idp: FaultyProvider) -> None:
    """A browser on the same machine was the only way to sign in: its answer could not be carried over by hand."""
    pending = begin(idp, flow=Flow.PASTE)

    answer = requests.get(str(pending.start_url), allow_redirects=False, timeout=WAIT_SECONDS)
    pending.submit(answer.headers["Location"])

    assert pending.result(WAIT_SECONDS).identity().subject == "alice-1"
    assert pending.wait_closed(WAIT_SECONDS)


def test_c19_a_remote_notebook_is_offered_a_way_that_needs_no_browser_there() -> None:
    """On a remote Jupyter server the sign-in waited for a browser that could not reach it."""
    environment = detect_environment(
        {"SSH_CONNECTION": "192.0.2.1 22 192.0.2.2 22"}, Facts(has_kernel=True, allows_input=True)
    )

    choice = choose_flow(environment)

    assert (choice.flow, choice.fallbacks) == (Flow.DEVICE, (Flow.PASTE,))
