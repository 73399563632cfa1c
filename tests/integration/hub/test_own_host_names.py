"""A Hub that gives each person's server and the service a host name of its own, in Chromium: both ways sign in.

Runs with `--long` only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.integration.hub.guide import filled_in
from tests.integration.hub.lab import ASK, card_of, chromium, run_all, sign_in_by_redirect, write_notebook
from tests.integration.hub.running import RunningHub

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page

# The first test starts two Hubs.
pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]


class HubWithHostNames(RunningHub):
    """The same programs with another configuration. Chromium knows all names below `localhost` as this machine."""

    @property
    def browser_url(self) -> str:
        """The Hub's own address in browsers."""
        return f"http://hub.localhost:{self.ports[0]}/"

    @property
    def browser_service_url(self) -> str:
        """The address of the service's host in browsers."""
        return f"http://micromegas--service.hub.localhost:{self.ports[0]}/"

    @property
    def service_url(self) -> str:
        return f"http://127.0.0.1:{self.ports[3]}/services/micromegas/"

    @property
    def exchanging_url(self) -> str:
        return f"http://127.0.0.1:{self.ports[4]}/services/exchanging/"

    def own_guide(self, text: str) -> str:
        host = f'c.JupyterHub.subdomain_host = "{self.browser_url.removesuffix("/")}"\n'
        return filled_in(
            text,
            {
                "c.Spawner.environment = ": f"{host}c.Spawner.environment = ",
                f'"{self.url}hub/oauth_callback"': f'"{self.browser_url}hub/oauth_callback"',
                f'public_url="{self.url}"': f'public_url="{self.browser_service_url}"',
                f'client_id = "{self.provider.hub_client_id}"': f'client_id = "{self.provider.hub_client_id}-names"',
                f'"{self.provider.client_id}"': f'"{self.provider.client_id}-names"',
            },
        )


@pytest.fixture(scope="module")
def named_hub(hub: RunningHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubWithHostNames]:
    """A second Hub, for the same system users; nobody has signed in."""
    named = HubWithHostNames.beside(hub, folder=tmp_path_factory.mktemp("named-hub"))
    hub.provider.allow_host_names(
        hub=f"{named.browser_url}hub/oauth_callback",
        notebooks=f"{named.browser_service_url}services/micromegas/callback",
    )
    try:
        named.start()
        yield named
    finally:
        named.stop()


def sign_in(page: Page, hub: HubWithHostNames) -> None:
    """Sign in to the Hub as alice."""
    page.goto(f"{hub.browser_url}hub/home")
    page.locator("[name=login]").fill("alice")
    page.locator("[name=password]").fill("any")
    page.get_by_role("button", name="Sign-in").click()
    page.get_by_role("button", name="Continue").click()
    page.wait_for_url(f"{hub.browser_url}hub/home")


def test_kernels_are_signed_in_without_a_click_and_by_the_redirect_at_the_services_own_host(
    named_hub: HubWithHostNames,
) -> None:
    alice = named_hub.people["alice"]
    write_notebook(
        named_hub,
        "alice",
        "names.ipynb",
        f"%env MICROMEGAS_CONFIG_DIR={alice.home / 'with-host-names'}\n%load_ext micromegas_jupyter",
        ASK,
        "%micromegas_login --flow redirect",
        ASK,
    )
    with chromium() as context:
        page = context.new_page()
        sign_in(page, named_hub)
        named_hub.start_server("alice")
        page.goto(f"{named_hub.browser_url}hub/user-redirect/lab/workspaces/names/tree/names.ipynb")
        run_all(page)

        sign_in_by_redirect(page, done_url=f"{named_hub.browser_service_url}services/micromegas/done")

        expect(card_of(page)).to_contain_text("Signed in as ")
        expect(page.locator(".jp-OutputArea").last).to_contain_text("alice")
        expect(page.locator(".jp-Cell .jp-OutputArea").nth(1)).to_contain_text("alice")
        assert page.url.startswith(f"http://{alice.name}.hub.localhost:")
