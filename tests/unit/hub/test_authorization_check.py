from __future__ import annotations

from urllib.parse import urlencode

import pytest

from micromegas_jupyter.hub.kernel_handlers import check_authorization_url
from micromegas_jupyter.hub.refusals import Refused

ENDPOINT = "https://id.example.com/auth"
CALLBACK = "https://hub.example.com/services/micromegas/callback"
STATE = "s" * 43
PARAMETERS = {
    "response_type": "code",
    "client_id": "notebooks",
    "redirect_uri": CALLBACK,
    "state": STATE,
    "nonce": "n",
    "scope": "openid",
    "code_challenge": "c" * 43,
    "code_challenge_method": "S256",
}


def address(base: str = ENDPOINT, **changes: str | None) -> str:
    parameters = {name: value for name, value in {**PARAMETERS, **changes}.items() if value is not None}
    return f"{base}?{urlencode(parameters)}"


def checked(url: object, *, endpoint: str = ENDPOINT) -> str:
    return check_authorization_url(url, endpoint=endpoint, redirect_uri=CALLBACK, client_id="notebooks")


def test_the_hubs_own_sign_in_is_let_through_and_its_state_returned() -> None:
    assert checked(address()) == STATE


def test_a_provider_whose_endpoint_has_parameters_of_its_own_keeps_them() -> None:
    endpoint = f"{ENDPOINT}?p=sign-in"

    assert checked(address(p="sign-in"), endpoint=endpoint) == STATE
    with pytest.raises(Refused):
        checked(address(), endpoint=endpoint)
    with pytest.raises(Refused):
        checked(address(p="other"), endpoint=endpoint)


@pytest.mark.parametrize(
    "url",
    [
        None,
        7,
        "",
        "javascript:alert(1)",
        address("https://evil.example/auth"),
        address("https://id.example.com/auth/../evil"),
        address("https://id.example.com@evil.example/auth"),
        address("http://id.example.com/auth"),
        address() + "#fragment",
        address() + "&state=" + STATE,
        address() + "&redirect_uri=https://evil.example/",
        address() + "&a=1" * 60,
        address(padding="x" * 20_000),
        address(redirect_uri="https://hub.example.com/user/bob/micromegas/callback"),
        address(redirect_uri=CALLBACK + "/"),
        address(client_id="other"),
        address(response_type="code token"),
        address(response_mode="fragment"),
        address(request="ey"),
        address(request_uri="https://evil.example/"),
        address(code_challenge_method="plain"),
        address(code_challenge_method=None),
        address(code_challenge="short"),
        address(state="s" * 42),
        address(state="s" * 42 + " "),
        address(state=None),
    ],
    ids=range(26),
)
def test_everything_else_is_refused(url: object) -> None:
    with pytest.raises(Refused) as caught:
        checked(url)

    assert (caught.value.status, caught.value.error) == (400, "invalid_sign_in")
    assert "evil" not in str(caught.value)
