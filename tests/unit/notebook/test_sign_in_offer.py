from datetime import UTC, datetime

import pytest

from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.notebook.login.state import SignInOffer, offer_line, offer_of, waiting_address, waiting_line
from tests.fakes.notebook_world import PASTE_URL, SCAN_URI, START_URL, USER_CODE, VERIFICATION_URI, FakeLogin

SOON = datetime(2026, 11, 24, 12, 10, tzinfo=UTC)


def login(flow: Flow = Flow.BROWSER) -> FakeLogin:
    return FakeLogin(expires_at=SOON, flow=flow)


def test_the_jupyter_servers_own_page_may_be_a_path() -> None:
    path = "/x/micromegas/start/kernel-1.AbC_d-0"
    offer = offer_of(FakeLogin(expires_at=SOON, flow=Flow.REDIRECT, start_url=path))

    line = offer_line(offer, issuer="id.example.com", until="")

    assert offer == SignInOffer(flow=Flow.REDIRECT, address=path)
    assert line == f"Sign in at id.example.com: open {path} of this Jupyter server. This notebook continues by itself."


@pytest.mark.parametrize(
    "address",
    [
        "//evil.example/micromegas/start/a.b",
        "/x/elsewhere",
        "javascript:/micromegas/start/a",
        "/micromegas/start/a b",
        "/micromegas/start/a?b",
    ],
)
def test_no_other_path_is_offered(address: str) -> None:
    offer = offer_of(FakeLogin(expires_at=SOON, flow=Flow.REDIRECT, start_url=address))

    assert offer.address == ""


@pytest.mark.parametrize(
    ("flow", "line"),
    [
        (
            Flow.BROWSER,
            f"Sign in at id.example.com: open {START_URL} until 12:10 UTC. This notebook continues by itself.",
        ),
        (
            Flow.DEVICE,
            (
                f"Sign in at id.example.com: go to {VERIFICATION_URI} and type {USER_CODE} until 12:10 UTC. "
                "Only type it if you started this. This notebook continues by itself."
            ),
        ),
        (
            Flow.PASTE,
            (
                f"Sign in at id.example.com: open {PASTE_URL} until 12:10 UTC. When the browser ends at an address "
                "that does not load, copy that address and paste it below."
            ),
        ),
    ],
)
def test_each_way_of_signing_in_says_what_to_do(flow: Flow, line: str) -> None:
    offer = offer_of(login(flow))

    assert offer_line(offer, issuer="id.example.com", until=" until 12:10 UTC") == line


def test_an_address_that_holds_the_code_is_for_scanning_only() -> None:
    offer = offer_of(login(Flow.DEVICE))

    assert offer.scan_address == SCAN_URI
    assert SCAN_URI not in offer_line(offer, issuer="id.example.com", until="")
    assert offer.address == VERIFICATION_URI


@pytest.mark.parametrize("address", [None, "", "javascript:alert(1)", "data:text/html,x", "file:///etc/passwd"])
def test_only_web_addresses_are_offered(address: str | None) -> None:
    asked = login(Flow.DEVICE)
    asked.verification_uri = address
    asked.verification_uri_complete = address

    offer = offer_of(asked)

    assert (offer.address, offer.scan_address) == ("", "")


def test_what_a_provider_gives_is_written_out() -> None:
    asked = login(Flow.DEVICE)
    asked.user_code = "AB\x1b[2J" + "C" * 100
    asked.verification_uri = "https://id.example.com/\u202edevice"

    offer = offer_of(asked)

    assert offer.user_code == "AB\\x1b[2J" + "C" * 54 + "…"
    assert offer.address == "https://id.example.com/\\u202edevice"


@pytest.mark.parametrize(
    ("flow", "line", "address"),
    [
        (Flow.BROWSER, f"waiting for you to sign in at id.example.com: open {START_URL} (until 12:10 UTC)", START_URL),
        (
            Flow.DEVICE,
            f"waiting for you to type {USER_CODE} at {VERIFICATION_URI} (until 12:10 UTC)",
            VERIFICATION_URI,
        ),
        (Flow.PASTE, "waiting for you to sign in at id.example.com (until 12:10 UTC)", ""),
    ],
)
def test_a_cell_that_waits_says_where_to_go_unless_the_address_holds_the_sign_ins_state(
    flow: Flow, line: str, address: str
) -> None:
    offer = offer_of(login(flow))

    assert waiting_line(offer, issuer="id.example.com", until=" (until 12:10 UTC)") == line
    assert waiting_address(offer) == address


def test_a_cell_that_waits_names_the_provider_where_there_is_no_web_address() -> None:
    browser = SignInOffer(flow=Flow.BROWSER, address="")
    code = SignInOffer(flow=Flow.DEVICE, address="", user_code=USER_CODE)

    assert waiting_line(browser, issuer="id.example.com", until="") == "waiting for you to sign in at id.example.com"
    assert waiting_line(code, issuer="id.example.com", until="") == (
        f"waiting for you to type {USER_CODE} at id.example.com"
    )


@pytest.mark.parametrize("flow", [Flow.BROWSER, Flow.DEVICE, Flow.PASTE])
def test_what_a_person_is_shown_is_in_no_representation(flow: Flow) -> None:
    assert repr(offer_of(login(flow))) == f"SignInOffer(flow={flow!r})"
