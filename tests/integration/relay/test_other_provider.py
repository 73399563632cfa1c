"""Signing in by redirect at a certified provider of another make, and when it does not know the server's address."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.integration.other_provider.person import sign_in_other
from tests.integration.relay.servers import jupyter_server, kernel_environment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.other_provider.running import OtherProvider
    from tests.integration.relay.servers import JupyterServer
    from tests.integration.relay.signing_in import SignIn

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(scope="module")
def server(other_provider: OtherProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[JupyterServer]:
    folder = tmp_path_factory.mktemp("other")
    environ = kernel_environment(folder, issuer=other_provider.issuer, client_id=other_provider.client_id)
    with jupyter_server(folder, environ=environ) as running:
        yield running


def test_a_person_signs_in_at_a_certified_provider(sign_in: SignIn) -> None:
    page = sign_in.come_back(sign_in.answer(sign_in_other))

    assert "Signed in as Alice Martin." in page


def test_a_server_that_the_provider_does_not_know_is_refused_there_and_the_notebook_names_its_address(
    sign_in: SignIn,
) -> None:
    # The provider knows the address 127.0.0.1, and not the other name of this machine.
    server = sign_in.kernel.server
    sign_in.start_url = sign_in.start_url.replace("127.0.0.1", "localhost")
    sign_in.browser = replace(server, url=server.url.replace("127.0.0.1", "localhost")).browser()

    refused = sign_in.get(sign_in.start().headers["Location"])
    sign_in.kernel.wait_until_saved(sign_in.redirect_uri)

    assert refused.status_code == 400
    assert urlsplit(sign_in.redirect_uri).hostname == "localhost"
    assert sign_in.redirect_uri in sign_in.kernel.saved()
