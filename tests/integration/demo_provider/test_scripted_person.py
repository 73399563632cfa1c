"""The person without a browser: ends where a browser would, and stops where something is wrong."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.demo.provider.scripted_person import ScriptedPerson, sign_in
from micromegas_jupyter.errors import LoginFailed
from tests.fakes.raw_client import query_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fakes.raw_client import RawClient

pytestmark = pytest.mark.integration


class Listener:
    """An application's loopback listener with a start page, a callback and a page after it."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.start_location = ""
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                listener.paths.append(self.path)
                targets = {"/start": listener.start_location, "/callback": "/done", "/circle": "/circle"}
                self.send_response(303 if path in targets else 200)
                if path in targets:
                    self.send_header("Location", targets[path])
                body = b"x" * 300_000 if path == "/large" else b"<p>Done.</p>"
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_arguments: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join(60)
        self.server.server_close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    running = Listener()
    yield running
    running.close()


def test_it_starts_at_the_application_and_ends_on_the_page_after_the_callback(
    client: RawClient, listener: Listener
) -> None:
    client.redirect_uri = f"{listener.url}/callback"
    listener.start_location = client.authorization_url()

    answer = sign_in(f"{listener.url}/start")

    assert query_of(answer)["state"] == client.state
    assert [path.partition("?")[0] for path in listener.paths] == ["/start", "/callback", "/done"]


def test_as_a_browser_it_returns_at_once_and_can_be_waited_for(client: RawClient, listener: Listener) -> None:
    client.redirect_uri = f"{listener.url}/callback"

    with ScriptedPerson(person="bob") as person:
        is_opened = person.open(client.authorization_url())

    assert is_opened is True
    assert "code" in query_of(f"{listener.url}{listener.paths[0]}")


def test_a_failure_as_a_browser_is_told_by_wait(client: RawClient) -> None:
    person = ScriptedPerson(password="wrong")
    person.open(client.authorization_url())

    with pytest.raises(LoginFailed, match="status 403"):
        person.wait()


def test_it_does_not_leave_this_machine(listener: Listener) -> None:
    listener.start_location = "https://id.example.com/authorize"

    with pytest.raises(LoginFailed, match="away from this machine"):
        sign_in(f"{listener.url}/start")


def test_it_does_not_go_round_in_circles(listener: Listener) -> None:
    with pytest.raises(LoginFailed, match="in circles"):
        sign_in(f"{listener.url}/circle")

    assert len(listener.paths) == 20
