"""Providers and platforms that note every secret they receive or issue, and say when a request comes."""

import flask

from micromegas_jupyter.demo.provider import DemoProvider
from tests.fakes import scripted_provider
from tests.fakes.scripted_provider import ScriptedProvider


class WatchedDemoProvider(DemoProvider):
    def __init__(self, *, secrets, on_request, **options):
        super().__init__(**options)
        self._secrets = secrets
        self._on_request = on_request

    def register(self, app):
        super().register(app)
        app.before_request(self._note_request)
        app.after_request(self._note_answer)

    def _note_request(self):
        self._on_request()
        for members in (flask.request.form, flask.request.args):
            self._secrets.note_members(members.items(multi=True))
        self._secrets.note_headers({"authorization": flask.request.headers.get("Authorization", "")})

    def _note_answer(self, answer):
        self._secrets.note_address(answer.headers.get("Location", ""))
        if flask.request.path in {"/token", "/device_authorization"}:
            self._secrets.note_text(answer.get_data(as_text=True))
        return answer


def watched(kind, secrets, on_request):
    class Watched(kind):
        def handle(self, call):
            on_request()
            secrets.note_members(call.form.items())
            secrets.note_headers(call.headers)
            reply = super().handle(call)
            secrets.note_text(reply.content.decode())
            return reply

    return Watched


class EchoingProvider(ScriptedProvider):
    """A provider that, told so, refuses and puts everything it was sent into what it answers."""

    def __init__(self, secrets, on_request, **options):
        super().__init__(**options)
        self.manners = []
        self._secrets = secrets
        self._on_request = on_request

    def handle(self, seen):
        self._on_request()
        self._secrets.note_members([*seen.form.items(), *seen.query.items()])
        self._secrets.note_headers(seen.headers)
        is_asked_for_tokens = seen.path in {"/token", "/revoke", "/device_authorization"}
        manner = self.manners.pop(0) if self.manners and is_asked_for_tokens else "honest"
        reply = super().handle(seen) if manner == "honest" else _echo(seen, manner)
        self._secrets.note_text(reply.content.decode())
        self._secrets.note_address(reply.headers.get("Location", ""))
        return reply


def _echo(seen, manner):
    sent = " ".join([*seen.form.values(), seen.headers.get("authorization", "")])
    told = {"X-Request": sent, "WWW-Authenticate": f'Bearer error="{sent}"'}
    match manner:
        case "description":
            body = {"error": "invalid_request", "error_description": sent, "error_uri": f"https://id.example/?{sent}"}
            return scripted_provider.Reply(status=400, body=body, headers=told)
        case "error":
            return scripted_provider.Reply(status=401, body={"error": sent, "request": dict(seen.form)}, headers=told)
        case "page":
            page = {"Content-Type": "text/html", **told}
            return scripted_provider.Reply(status=500, text=f"<html>{sent}</html>", headers=page)
        case "redirect":
            return scripted_provider.Reply(status=302, text=sent, headers={"Location": f"/?echo={sent}", **told})
        case _:
            raise ValueError(manner)
