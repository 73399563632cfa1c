"""A Hub's sign-in service on loopback that keeps to the contract of docs/jupyterhub.md; what it answers can be set."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Self

from tests.fakes.mint import mint_raw
from tests.fakes.stand_in import PLATFORM_KEY

if TYPE_CHECKING:
    from collections.abc import Callable

HUB_TOKEN = "hub-token-that-nobody-may-keep"
ISSUER = "https://id.example.com"
CLIENT_ID = "lake-notebooks"


@dataclass(frozen=True, slots=True, kw_only=True)
class HubCall:
    """One request that came."""

    method: str
    path: str
    authorization: str | None
    body: object


@dataclass(frozen=True, slots=True, kw_only=True)
class HubReply:
    """One answer; text is sent as HTML."""

    status: int = 200
    body: object = None
    location: str | None = None


class FakeHubService:
    """A context manager; every call is kept, and `reply` may be replaced.

    Attributes:
        environ: What a Hub with this service starts a server with.
    """

    def __init__(self) -> None:
        self.calls: list[HubCall] = []
        self.lifetime_seconds = 3600
        self.issuer = ISSUER
        self.client_id = CLIENT_ID
        self.before_answer: Callable[[], object] = lambda: None
        self.reply: Callable[[HubCall], HubReply] = self.contract
        self.redirect_uri = "https://hub.example.com/services/micromegas/callback"
        self.start_url = "https://hub.example.com/services/micromegas/start/n4me"
        self.answer_to_redirect: str | None = None
        self.asked_for_answer = threading.Event()
        self.authorization_urls: list[str] = []
        self._server = _Server(self)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/services/micromegas/"

    @property
    def environ(self) -> dict[str, str]:
        return {
            "KERNEL_MICROMEGAS_HUB": self.url,
            "JUPYTERHUB_API_TOKEN": HUB_TOKEN,
            "JUPYTERHUB_API_URL": "http://127.0.0.1:8081/hub/api",
            "JUPYTERHUB_USER": "alice",
        }

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def refuse(self, status: int, code: str) -> None:
        """Answer every call with an error of the contract."""
        body = {"error": code, "message": "Words of the service.", "remedy": "More of its words."}
        self.reply = lambda _call: HubReply(status=status, body=body)

    def token(self) -> str:
        """Make a bearer token of Alice's; each one is another."""
        claims = {
            "iss": self.issuer,
            "sub": "alice-sub",
            "aud": CLIENT_ID,
            "name": "Alice Martin",
            "email": "alice@example.com",
            "groups": ["analysts"],
            "exp": 1,  # by a clock that nobody here believes
            "jti": str(len(self.calls)),
        }
        return mint_raw(json.dumps(claims).encode(), key=PLATFORM_KEY)

    def contract(self, call: HubCall) -> HubReply:  # noqa: PLR0911 - one for each call
        """Answer as the contract says."""
        if call.authorization != f"Bearer {HUB_TOKEN}":
            return HubReply(status=401, body={"error": "invalid_token", "message": "", "remedy": ""})
        match call.method, call.path.removeprefix("/services/micromegas/"), call.body:
            case "POST", "token", {}:
                return HubReply(
                    body={
                        "access_token": self.token(),
                        "token_type": "Bearer",
                        "expires_at": 1,
                        "expires_in": self.lifetime_seconds,
                        "issuer": self.issuer,
                        "user": "alice",
                    }
                )
            case "GET", "redirect", None:
                return HubReply(
                    body={"redirect_uri": self.redirect_uri, "issuer": self.issuer, "client_id": self.client_id}
                )
            case "POST", "sign-ins", {"authorization_url": str(url)}:
                self.authorization_urls.append(url)
                return HubReply(status=201, body={"name": "n4me", "start_url": self.start_url, "expires_in": 600})
            case "POST", "sign-ins/n4me/answer", {}:
                self.asked_for_answer.set()
                if self.answer_to_redirect is None:
                    return HubReply(status=204)
                return HubReply(body={"query": self.answer_to_redirect})
        return HubReply(status=404, body="<p>Not found</p>")


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, service: FakeHubService) -> None:
        self.service = service
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._answer(None)

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _answer(self, body: object) -> None:
        assert isinstance(self.server, _Server)
        service = self.server.service
        call = HubCall(method=self.command, path=self.path, authorization=self.headers.get("Authorization"), body=body)
        service.calls.append(call)
        service.before_answer()
        reply = service.reply(call)
        is_text = isinstance(reply.body, str)
        text = str(reply.body) if is_text else json.dumps(reply.body)
        content = b"" if reply.status == 204 else text.encode()
        with suppress(OSError):
            self.send_response(reply.status)
            self.send_header("Content-Type", "text/html" if is_text else "application/json")
            self.send_header("Content-Length", str(len(content)))
            if reply.location is not None:
                self.send_header("Location", reply.location)
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, *_parts: object) -> None:
        """Write nothing."""
