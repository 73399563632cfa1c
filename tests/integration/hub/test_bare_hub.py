"""A Hub with neither the sign-in service nor OAuthenticator: a code signs in. Runs with `--long` only."""

import re

import pytest
import requests

from tests.integration.hub.browser import TIMEOUT_SECONDS
from tests.integration.hub.running import RunningHub
from tests.integration.other_provider.person import sign_in_other

# The first test starts two Hubs.
pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

CODE = re.compile(r"and type (\S+)[\s\S]*Open (\S+) to sign in")
BEARER_TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]{10,}\.")


class BareHub(RunningHub):
    """The same programs with another configuration."""

    is_bare = True
    health_paths = ("hub/login",)

    def sign_in_by_password(self, name):
        """Sign a person in at the Hub's own page."""
        with requests.Session() as browser:
            browser.trust_env = False
            browser.get(f"{self.url}hub/login", timeout=TIMEOUT_SECONDS)
            form = {"username": name, "password": self.witness_token, "_xsrf": browser.cookies["_xsrf"]}
            page = browser.post(f"{self.url}hub/login?next=/hub/home", data=form, timeout=TIMEOUT_SECONDS)
            assert page.url == f"{self.url}hub/home", page.url


@pytest.fixture(scope="module")
def bare_hub(hub, tmp_path_factory):
    """A second Hub, for the same system users; bob has a server."""
    application = {
        "MICROMEGAS_OIDC_ISSUER": hub.provider.issuer,
        "MICROMEGAS_OIDC_CLIENT_ID": hub.provider.client_id,
    }
    folder = tmp_path_factory.mktemp("bare-hub")
    with BareHub.beside(hub, folder=folder, environment=hub.environment | application) as bare:
        bare.sign_in_by_password(bare.people["bob"].name)
        bare.start_server("bob")
        yield bare


def test_a_code_signs_in_and_what_the_administrator_could_add_is_said(bare_hub):
    with bare_hub.kernel("bob") as kernel:
        kernel.run("%load_ext micromegas_jupyter")

        offered = kernel.run("%micromegas_login")
        text = "\n".join(content["data"].get("text/plain", "") for content in offered.of("display_data"))
        assert "This Hub has no sign-in service. Its administrator can add one" in text
        found = CODE.search(text)
        assert found is not None, text
        sign_in_other(found[2], person="bob", user_code=found[1])
        asked = kernel.run("%%sql me <<\nSELECT current_user() AS me")
        told = kernel.run("print(me['me'][0], end='')")
        saved = kernel.saved()
        kernel.run("%micromegas_logout")

    assert asked.reply["status"] == "ok", asked
    assert told.printed == "bob"
    assert not BEARER_TOKEN.search(saved)
