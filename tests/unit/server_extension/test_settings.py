import pytest
from traitlets import TraitError
from traitlets.config import Config

from micromegas_jupyter.server_extension.settings import MicromegasRelay


def test_the_address_of_the_server_gets_its_slash() -> None:
    config = Config({"MicromegasRelay": {"public_url": "https://lab.example.com/x"}})

    assert MicromegasRelay(config=config).public_url == "https://lab.example.com/x/"


def test_nothing_is_set_by_itself() -> None:
    relay = MicromegasRelay()

    assert (relay.public_url, relay.per_user_redirect, relay.provider_paths) == ("", False, {})


@pytest.mark.parametrize("url", ["lab.example.com", "https://lab.example.com/?a=b", "javascript:alert(1)"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(TraitError, match=r"MicromegasRelay\.public_url is not"):
        MicromegasRelay(public_url=url)


@pytest.mark.parametrize("paths", [{"https://id.example.com": "id"}, {"http://127.0.0.1:9300": "../lab"}])
def test_paths_are_for_providers_on_this_machine_and_below_the_base_url(paths: dict[str, str]) -> None:
    with pytest.raises(TraitError, match=r"MicromegasRelay\.provider_paths: each key is"):
        MicromegasRelay(provider_paths=paths)


def test_a_path_of_a_provider_is_read() -> None:
    config = Config({"MicromegasRelay": {"provider_paths": {"http://127.0.0.1:9300": "provider"}}})

    assert MicromegasRelay(config=config).provider_paths == {"http://127.0.0.1:9300": "provider"}
