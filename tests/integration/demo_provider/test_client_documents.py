"""Applications that the demo provider knows by a URL: what it fetches, what it accepts, and what it sends nowhere."""

import threading

import pytest
import requests

from micromegas_jupyter.demo.provider import DemoProvider, client_documents
from micromegas_jupyter.demo.provider.client_documents import is_document_url, read_client
from micromegas_jupyter.demo.provider.scripted_person import sign_in
from micromegas_jupyter.errors import ProviderMisbehaved
from tests.fakes.loopback_http import LoopbackHttp, Reply
from tests.fakes.raw_client import RawClient, claims_of, query_of
from tests.fakes.tls_provider import OTHER_HOST, TlsProvider
from tests.fakes.waiting import wait_until

pytestmark = pytest.mark.integration

URL = "https://agent.example/client.json"
DOCUMENT = {
    "client_id": URL,
    "client_name": "An agent",
    "redirect_uris": ["http://127.0.0.1/callback", "http://[::1]:1/a?b=c", "https://agent.example/back", "agent://x"],
    "token_endpoint_auth_method": "none",
}


class Site(LoopbackHttp):
    """Serves one document; `reply` replaces it."""

    def __init__(self):
        super().__init__()
        self.url = f"{self.base}/client.json"
        self.reply = Reply(body={**DOCUMENT, "client_id": self.url})
        self.requests = []
        self.release = threading.Event()
        self.release.set()

    def handle(self, seen):
        self.requests.append(seen.path)
        self.release.wait(60)
        return self.reply


@pytest.fixture
def site():
    with Site() as running:
        yield running
        running.release.set()


def open_page(client):
    return requests.get(client.authorization_url(), timeout=60, allow_redirects=False)


def test_an_application_signs_in_with_its_url_as_client_id(provider, site):
    client = RawClient(provider.issuer, site.url)
    page = open_page(client)
    tokens = client.exchange(query_of(sign_in(client.authorization_url(), visit_callback=False))["code"]).json()
    site.reply = Reply(status=404, body={})
    renewed = client.refresh(tokens["refresh_token"])
    gone = open_page(client)

    assert client.metadata["client_id_metadata_document_supported"] is True
    assert f"An agent (127.0.0.1:{site.url.split(':')[2].split('/')[0]})" in page.text
    assert claims_of(tokens["id_token"])["aud"] == claims_of(tokens["access_token"])["client_id"] == site.url
    assert renewed.status_code == 200  # without another fetch
    assert (gone.status_code, "status 404" in gone.text) == (400, True)
    assert set(site.requests) == {"/client.json"}


@pytest.mark.parametrize(
    "reply",
    [
        Reply(status=302, headers={"Location": "/other.json"}),
        Reply(body={**DOCUMENT, "client_name": "x" * 5 * 1024}),
        Reply(text='{"client_id": 1, "client_id": 2}'),
        Reply(body=DOCUMENT),  # of another URL
        Reply(status=500, body={}),
    ],
)
def test_a_document_that_cannot_be_used_ends_on_a_page_without_a_redirect(provider, site, reply):
    site.reply = reply
    page = open_page(RawClient(provider.issuer, site.url))

    assert (page.status_code, "could not be identified" in page.text) == (400, True)
    assert site.requests == ["/client.json"]


def test_a_site_that_does_not_respond_delays_nobody_else_and_ends_at_the_deadline(site, monkeypatch):
    monkeypatch.setattr(client_documents, "_FETCH_SECONDS", 1.0)
    site.release.clear()
    pages = []
    with DemoProvider() as provider:
        client = RawClient(provider.issuer, site.url)
        waiting = threading.Thread(target=lambda: pages.append(open_page(client)), daemon=True)
        waiting.start()
        wait_until(lambda: site.requests, "the fetch")
        other = client.get("/")
        assert waiting.is_alive()
        waiting.join(60)

    assert other.status_code == 200
    assert (pages[0].status_code, "within 1 seconds" in pages[0].text) == (400, True)


def test_no_address_inside_the_network_is_fetched(provider, tmp_path, monkeypatch):
    with TlsProvider(tmp_path, host=OTHER_HOST) as inside:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(inside.ca_file))
        page = open_page(RawClient(provider.issuer, inside.url))

    assert (page.status_code, "private" in page.text) == (400, True)


@pytest.mark.parametrize(
    ("client_id", "is_url"),
    [
        (URL, True), ("http://127.0.0.1:1/c", True), ("http://localhost/c", True), ("http://agent.example/c", False),
        ("https://agent.example", False), ("https://agent.example/", False), ("https://agent.example/a/../b", False),
        ("https://agent.example/%2e%2e/b", False), ("https://user@agent.example/c", False),
        ("https://agent.example/c#a", False), ("https://agent.example/c?a=b", False), ("file:///etc/passwd", False),
        ("micromegas-demo", False), (f"https://agent.example/{'c' * 2048}", False),
        ("https://agent.example/c\n", False),
    ],
)  # fmt: skip
def test_only_plain_urls_of_documents_are_fetched(client_id, is_url):
    assert is_document_url(client_id) is is_url


@pytest.mark.parametrize(
    ("redirect_uri", "is_allowed"),
    [
        ("http://127.0.0.1:40404/callback", True), ("http://127.0.0.1/callback", True), ("http://[::1]:9/a?b=c", True),
        ("https://agent.example/back", True), ("https://agent.example:444/back", False), ("agent://x", False),
        ("https://agent.example/back?a=b", False), ("http://127.0.0.1:40404/callback/", False), ("", False),
        ("http://127.0.0.1:1@evil.example/callback", False), ("http://localhost:1/callback", False),
    ],
)  # fmt: skip
def test_answers_go_to_the_redirect_uris_of_the_document_only(redirect_uri, is_allowed):
    assert read_client(URL, DOCUMENT).is_redirect_uri(redirect_uri) is is_allowed


@pytest.mark.parametrize(
    "changes",
    [
        {"client_id": f"{URL}/"}, {"redirect_uris": []}, {"redirect_uris": "https://agent.example/back"},
        {"redirect_uris": ["agent://x"] * 20 + ["https://agent.example/back"]}, {"redirect_uris": ["agent://x", 7]},
        {"client_name": "a\u202e"}, {"client_name": 7},
        {"token_endpoint_auth_method": "client_secret_basic"}, {"token_endpoint_auth_method": "private_key_jwt"},
        {"client_secret": "s"},
    ],
)  # fmt: skip
def test_a_document_that_is_incomplete_or_needs_a_secret_is_rejected(changes):
    with pytest.raises(ProviderMisbehaved):
        read_client(URL, {**DOCUMENT, **changes})


def test_documents_that_are_not_objects_are_rejected():
    with pytest.raises(ProviderMisbehaved):
        read_client(URL, [])
