"""Where the Hub's service may be, for this server's token to go there."""

import pytest

from micromegas_jupyter.auth.flows.hub import find_hub
from micromegas_jupyter.errors import ConfigurationError

API = "http://hub:8081/hub/api"


def environ(url, *, token="t0ken", api=API):
    return {"KERNEL_MICROMEGAS_HUB": url, "JUPYTERHUB_API_TOKEN": token, "JUPYTERHUB_API_URL": api}


@pytest.mark.parametrize(
    "url",
    [
        "https://hub.example.com/services/micromegas/",
        "http://127.0.0.1:8000/services/micromegas/",
        "http://[::1]:8000/services/micromegas/",
        "http://localhost/services/micromegas/",
        "http://hub:10101/services/micromegas/",
    ],
)
def test_the_token_goes_over_tls_or_to_this_machine_or_to_the_hubs_own_host(url):
    place = find_hub(environ(url))

    assert (place.url, place.token.reveal()) == (url, "t0ken")
    assert "t0ken" not in repr(place)


@pytest.mark.parametrize(
    ("url", "api"),
    [
        ("http://proxy.example.com/services/micromegas/", API),
        ("http://hub/services/micromegas/", ""),
        ("http://hub/services/micromegas/", "http://[broken"),
        ("http://hub.example.com/services/micromegas/", API),
    ],
)
def test_over_plain_http_it_goes_nowhere_else(url, api):
    with pytest.raises(ConfigurationError, match="is not sent there") as caught:
        find_hub(environ(url, api=api))

    assert caught.value.key == "KERNEL_MICROMEGAS_HUB"
    assert "administrator" in caught.value.remedy


@pytest.mark.parametrize(
    "url",
    [
        "ftp://hub/services/micromegas/",
        "1",
        "https://",
        "https://hub/services/micromegas",
        "https://user@hub/services/micromegas/",
        "https://hub/services/?a=/",
        "https://hub/services/#/",
        "https://hub:0/services/",
        "https://hub:99999/services/",
        "https://hub\\evil/services/",
        "https://hub/ services/",
        "https://hub/" + "a" * 2048 + "/",
    ],
)
def test_what_can_be_read_in_two_ways_is_no_address(url):
    with pytest.raises(ConfigurationError):
        find_hub(environ(url))


@pytest.mark.parametrize("token", ["two words", "é", "a\nb", "a" * 4097])
def test_a_token_that_no_request_could_carry_is_refused(token):
    with pytest.raises(ConfigurationError) as caught:
        find_hub(environ("https://hub/", token=token))

    assert caught.value.key == "JUPYTERHUB_API_TOKEN"
    assert token not in str(caught.value)


@pytest.mark.parametrize("missing", ["KERNEL_MICROMEGAS_HUB", "JUPYTERHUB_API_TOKEN"])
def test_without_either_there_is_no_service(missing):
    assert find_hub({**environ("https://hub/"), missing: ""}) is None
