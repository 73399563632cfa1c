"""The demo provider as a browser meets it: pages, forms, sessions, signing out; start and stop."""

import logging
import re

import pytest
import requests

from micromegas_jupyter.demo.provider import DemoProvider
from micromegas_jupyter.demo.provider.scripted_person import parse_forms
from tests.fakes.raw_client import RawClient, query_of

pytestmark = pytest.mark.integration


class Tab:
    """A browser tab with its cookies; it follows redirects within the provider only."""

    def __init__(self, issuer):
        self.issuer = issuer
        self.session = requests.Session()
        self.session.trust_env = False
        self.page = requests.Response()

    def open(self, url):
        return self._settle(self.session.get(url, timeout=60, allow_redirects=False))

    def send(self, form, **fields):
        answer = self.session.post(form.action, data=form.fields | fields, timeout=60, allow_redirects=False)
        return self._settle(answer)

    def form(self):
        return parse_forms(self.page.text, page_url=self.page.url)[0]

    def sign_in(self, url, person="alice"):
        self.open(url)
        return self.send(self.form(), person=person)

    def _settle(self, answer):
        while answer.is_redirect and not answer.headers["Location"].startswith("http"):
            answer = self.session.get(f"{self.issuer}/{answer.headers['Location']}", timeout=60, allow_redirects=False)
        self.page = answer
        return answer


@pytest.fixture
def tab(provider):
    opened = Tab(provider.issuer)
    yield opened
    opened.session.close()


def test_every_page_has_the_security_headers(tab, client):
    wanted = {
        "Content-Security-Policy": "default-src 'none'; style-src 'self'; frame-ancestors 'none'; base-uri 'none'",
        "Cache-Control": "no-store", "X-Frame-Options": "DENY", "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }  # fmt: skip
    for url in (client.authorization_url(), f"{tab.issuer}/device", f"{tab.issuer}/", f"{tab.issuer}/nowhere"):
        headers = tab.open(url).headers

        assert {name: headers.get(name) for name in wanted} == wanted


def test_a_form_without_its_token_is_refused_and_signs_nobody_in(tab, client):
    tab.open(client.authorization_url())
    without = tab.send(tab.form(), person="alice", form_token="")
    again = tab.open(client.authorization_url())

    assert without.status_code == 400
    assert "This form is no longer valid" in without.text
    assert "<h1>Sign in</h1>" in again.text


@pytest.mark.parametrize(("person", "password"), [("alice", "wrong"), ("mallory", "demo"), ("alice", "ü")])
def test_a_wrong_name_or_password_is_told_on_the_page(tab, client, person, password):
    tab.open(client.authorization_url())

    answer = tab.send(tab.form(), person=person, password=password)

    assert answer.status_code == 403
    assert 'role="alert"' in answer.text


def test_a_device_cannot_be_allowed_by_a_form_from_elsewhere(tab, client):
    fields = {"client_id": client.client_id, "scope": "openid"}
    device = client.post("device_authorization_endpoint", fields).json()
    tab.sign_in(f"{tab.issuer}/device-confirm?user_code={device['user_code']}")

    refused = tab.send(tab.form(), decision="allow", form_token="guess")

    assert refused.status_code == 400
    assert client.ask_for_device(device["device_code"]).json()["error"] == "authorization_pending"


def test_an_application_with_the_id_token_signs_out_at_once_and_back(tab, client):
    tab.sign_in(client.authorization_url())
    code = query_of(tab.send(tab.form(), decision="allow").headers["Location"])["code"]
    hint = client.exchange(code).json()["id_token"]

    url = f"{tab.issuer}/logout?id_token_hint={hint}&post_logout_redirect_uri=http://127.0.0.1:9/bye&state=s"
    answer = tab.open(url)
    after = tab.open(client.authorization_url(prompt="none"))

    assert answer.headers["Location"] == "http://127.0.0.1:9/bye?state=s"
    assert query_of(after.headers["Location"])["error"] == "login_required"


def test_a_foreign_id_token_signs_nobody_out_and_signing_out_leads_to_no_other_machine(tab, client, get_code):
    hint = client.exchange(get_code()).json()["id_token"]

    for foreign in ("x", "e30.e30.e30", "a.b.c.d.e"):
        assert tab.open(f"{tab.issuer}/logout?id_token_hint={foreign}").status_code == 400
    for target in ("https://evil.example/", "http://127.0.0.1:9@evil.example/", "//evil.example", "javascript:x"):
        query = {"id_token_hint": hint, "post_logout_redirect_uri": target}
        answer = requests.get(f"{tab.issuer}/logout", params=query, timeout=60, allow_redirects=False)

        assert answer.status_code == 200
        assert "Location" not in answer.headers


def test_without_the_id_token_the_person_is_asked_before_signing_out(tab, client):
    tab.sign_in(client.authorization_url())

    asked = tab.open(f"{tab.issuer}/logout?client_id={client.client_id}&post_logout_redirect_uri=http://127.0.0.1:9/")
    refused = tab.send(tab.form(), form_token="guess")
    tab.open(f"{tab.issuer}/logout")
    done = tab.send(tab.form())

    assert "<h1>Sign out?</h1>" in asked.text
    assert refused.status_code == 400
    assert "You are signed out" in done.text
    assert "signed in, in this browser" not in tab.open(tab.issuer).text


def test_a_name_that_is_not_this_machine_is_refused(provider):
    answer = requests.get(
        f"{provider.issuer}/.well-known/openid-configuration", headers={"Host": "evil.example"}, timeout=10
    )

    assert answer.status_code == 400


def test_pages_cookies_and_redirects_stay_below_its_base_url(clock):
    callback = "https://hub.example.org/user/x/micromegas/callback"

    with DemoProvider(clock=clock, jupyter_base_url="/user/x/") as provider:
        client = RawClient(provider.issuer, provider.client_id, redirect_uri=callback)
        page = client.get(client.authorization_url().removeprefix(provider.issuer))
        elsewhere = client.authorization_url(redirect_uri=callback.replace("/x/", "/y/"))
        refused = client.get(elsewhere.removeprefix(provider.issuer))

    assert "Path=/user/x/micromegas-demo/" in page.headers["Set-Cookie"]
    assert not re.search(r"(?:href|action|src)=\"(?:https?:|/)", page.text)
    assert "<h1>Sign in</h1>" in page.text
    assert refused.status_code == 400
    assert client.metadata["authorization_endpoint"] == f"{provider.issuer}/authorize"
    # Nobody could open these.
    assert not {"end_session_endpoint", "device_authorization_endpoint"} & set(client.metadata)


def test_nothing_secret_is_logged_at_any_level(caplog, client, provider, get_code):
    caplog.set_level(logging.DEBUG)

    code = get_code()
    token = client.exchange(code).json()
    renewed = client.refresh(token["refresh_token"]).json()
    service = (provider.service_client_id, provider.service_secret.reveal())
    client.post("token_endpoint", {"grant_type": "client_credentials"}, basic=service)
    device = client.post("device_authorization_endpoint", {"client_id": client.client_id, "scope": "openid"}).json()
    client.ask_for_device(device["device_code"])

    logged = caplog.text + "".join(str(vars(record)) for record in caplog.records)
    secrets = {
        code, client.verifier, client.state, provider.service_secret.reveal(), device["device_code"],
        *(text[name] for text in (token, renewed) for name in ("access_token", "id_token", "refresh_token")),
    }  # fmt: skip
    assert "request answered" in logged
    assert [secret for secret in secrets if secret in logged] == []
