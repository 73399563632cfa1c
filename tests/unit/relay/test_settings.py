import pytest
from traitlets import TraitError
from traitlets.config import Config

from micromegas_jupyter.relay.settings import MicromegasRelay


def test_the_address_of_the_server_gets_its_slash() -> None:
    config = Config({"MicromegasRelay": {"public_url": "https://lab.example.com/x"}})

    assert MicromegasRelay(config=config).public_url == "https://lab.example.com/x/"


def test_nothing_is_set_by_itself() -> None:
    relay = MicromegasRelay()

    assert (relay.public_url, relay.per_user_redirect) == ("", False)


@pytest.mark.parametrize("url", ["lab.example.com", "https://lab.example.com/?a=b", "javascript:alert(1)"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(TraitError, match=r"MicromegasRelay\.public_url is not"):
        MicromegasRelay(public_url=url)
