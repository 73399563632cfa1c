"""A Hub's sign-in service on loopback that keeps to the contract of docs/jupyterhub.md; what it answers can be set."""

import json
from types import SimpleNamespace

from tests.fakes.loopback_http import LoopbackHttp, Reply
from tests.fakes.mint import mint_raw
from tests.fakes.platform_stand_ins import PLATFORM_KEY

HUB_TOKEN = "hub-token-that-nobody-may-keep"
ISSUER = "https://id.example.com"
CLIENT_ID = "lake-notebooks"


def HubReply(*, status=200, body=None, location=None):  # noqa: N802 - used as a class elsewhere
    """Return one answer; text is sent as HTML."""
    headers = {"Location": location} if location else {}
    if isinstance(body, str):
        return Reply(status=status, text=body, headers={"Content-Type": "text/html", **headers})
    return Reply(status=status, body=body, text="" if status == 204 else None, headers=headers)


class FakeHubService(LoopbackHttp):
    """A context manager; every call is kept, and `reply` may be replaced."""

    def __init__(self):
        super().__init__()
        self.calls = []
        self.lifetime_seconds = 3600
        self.issuer = ISSUER
        self.client_id = CLIENT_ID
        self.before_answer = lambda: None
        self.reply = self.contract
        self.redirect_uri = "https://hub.example.com/services/micromegas/callback"
        self.start_url = "https://hub.example.com/services/micromegas/start/n4me"
        self.answer_to_redirect = None
        self.authorization_urls = []
        self.url = f"{self.base}/services/micromegas/"

    @property
    def environ(self):
        return {
            "KERNEL_MICROMEGAS_HUB": self.url,
            "JUPYTERHUB_API_TOKEN": HUB_TOKEN,
            "JUPYTERHUB_API_URL": "http://127.0.0.1:8081/hub/api",
            "JUPYTERHUB_USER": "alice",
        }

    def handle(self, seen):
        body = json.loads(seen.body) if seen.method == "POST" else None
        call = SimpleNamespace(path=seen.path, authorization=seen.headers.get("authorization"), body=body)
        self.calls.append(call)
        self.before_answer()
        return self.reply(call)

    def refuse(self, status, code):
        body = {"error": code, "message": "Words of the service.", "remedy": "More of its words."}
        self.reply = lambda _call: HubReply(status=status, body=body)

    def token(self):
        person = {"sub": "alice-sub", "name": "Alice Martin", "email": "alice@example.com", "groups": ["analysts"]}
        times = {"exp": 1, "jti": str(len(self.calls))}  # by a clock that nobody here believes
        claims = {"iss": self.issuer, "aud": CLIENT_ID, **person, **times}
        return mint_raw(json.dumps(claims).encode(), key=PLATFORM_KEY)

    def contract(self, call):
        if call.authorization != f"Bearer {HUB_TOKEN}":
            return HubReply(status=401, body={"error": "invalid_token", "message": "", "remedy": ""})
        match call.path.removeprefix("/services/micromegas/"), call.body:
            case "token", {}:
                token = {"access_token": self.token(), "token_type": "Bearer", "expires_at": 1, "user": "alice"}
                return HubReply(body={**token, "expires_in": self.lifetime_seconds, "issuer": self.issuer})
            case "redirect", None:
                return HubReply(
                    body={"redirect_uri": self.redirect_uri, "issuer": self.issuer, "client_id": self.client_id}
                )
            case "sign-ins", {"authorization_url": str(url)}:
                self.authorization_urls.append(url)
                return HubReply(status=201, body={"name": "n4me", "start_url": self.start_url, "expires_in": 600})
            case "sign-ins/n4me/answer", {}:
                answer = self.answer_to_redirect
                return HubReply(status=204) if answer is None else HubReply(body={"query": answer})
        return HubReply(status=404, body="<p>Not found</p>")
