"""A scripted provider whose answers are spoilt on their way, down to single bytes.

A fault spends nothing: what it spoils is a good answer, made without using up the code or refresh token that was sent
for it. So a client that takes the answer all the same is found out, and one that does not has lost nothing.
"""

import base64
import gzip
import json
import threading
from contextlib import suppress
from dataclasses import replace
from urllib.parse import urlencode

from tests.fakes.loopback_http import LoopbackHandler, Reply
from tests.fakes.mint import encode_json, mint_raw
from tests.fakes.scripted_provider import ScriptedProvider

ELSEWHERE = "/elsewhere"
# The pause between two bytes is shorter than any time-out of a single read, and all bytes take longer than any call.
TRICKLE_PAUSE_SECONDS = 0.05
LONG_BODY_BYTES = 400
LONGEST_STALL_SECONDS = 60.0
OVERSIZED_BYTES = 1_000_001

_SECRET_MEMBERS = ("access_token", "refresh_token", "id_token", "device_code")
_SECRET_FIELDS = ("code", "code_verifier", "refresh_token", "device_code", "token", "client_secret")
_UNSPENT_GRANTS = ("refresh_token", "urn:ietf:params:oauth:grant-type:device_code")


class Wire:
    """One connection on which a fault answers."""

    def __init__(self, handler, request):
        self._handler = handler
        self.provider = handler.provider
        self.request = request

    def send(self, data):
        self._handler.wfile.write(data)
        self._handler.wfile.flush()

    def send_head(self, status, headers, *, length):
        self._handler.send_response(status)
        for name, value in {**headers, "Content-Length": str(length)}.items():
            self._handler.send_header(name, value)
        self._handler.end_headers()

    def send_reply(self, reply, content=None):
        body = reply.content if content is None else content
        self.send_head(reply.status, reply.all_headers, length=len(body))
        self.send(body)


class FaultyProvider(ScriptedProvider):
    """A scripted provider with a fault at some paths."""

    poll_seconds = 0.005

    def __init__(self, **options):
        self.faults = {}
        self.stopping = threading.Event()
        self.secrets = set()
        super().__init__(**options)

    def stop(self):
        self.stopping.set()
        super().stop()

    def issue(self, **options):
        answer = super().issue(**options)
        self._note(answer, _SECRET_MEMBERS)
        return answer

    def handle(self, seen):
        self._note(seen.form, _SECRET_FIELDS)
        reply = super().handle(seen)
        self._note(reply.body, _SECRET_MEMBERS)
        return reply

    def unspent(self, seen):
        if seen.path == "/revoke":
            self.handle(seen)
            return Reply(text="")  # to access tokens, too
        if seen.path != "/token" or seen.form.get("grant_type") not in _UNSPENT_GRANTS:
            return self.handle(seen)
        with self._lock:
            self.requests.append(seen)
            self._note(seen.form, _SECRET_FIELDS)
            return Reply(body=self.issue())

    def _note(self, members, names):
        if isinstance(members, dict):
            self.secrets.update(str(members[name]) for name in names if members.get(name))


class FaultyHandler(LoopbackHandler):
    """Answers one request, with the fault that lies at its path."""

    @property
    def provider(self):
        return self.server.answering

    def _answer(self, body):
        seen = self.seen(body)
        fault = self.provider.faults.get(seen.path)
        if fault is None:
            super()._answer(body)
            return
        self.close_connection = True
        with suppress(OSError):  # the client hung up, as it should
            fault(Wire(self, seen), self.provider.unspent(seen))


FaultyProvider.handler = FaultyHandler


def hang(wire, _reply):
    wire.provider.stopping.wait(LONGEST_STALL_SECONDS)


def trickle(wire, reply):
    content = _long(reply)
    wire.send_head(reply.status, reply.all_headers, length=len(content))
    for byte in content:
        wire.send(bytes([byte]))
        if wire.provider.stopping.wait(TRICKLE_PAUSE_SECONDS):
            return


def cut(wire, reply):
    content = _long(reply)
    wire.send_head(reply.status, reply.all_headers, length=len(content))
    wire.send(content[: len(content) // 2])


def server_error(wire, reply):
    wire.send_reply(replace(reply, status=500))


def too_many_requests(wire, reply):
    wire.send_reply(replace(reply, status=429, headers={**reply.headers, "Retry-After": "1"}))


def malformed_json(wire, reply):
    wire.send_reply(reply, reply.content[:-1] or b"{")


def oversized(wire, reply):
    wire.send_reply(reply, reply.content + b" " * OVERSIZED_BYTES)


def compressed(wire, reply):
    packed = gzip.compress(reply.content)
    wire.send_reply(replace(reply, headers={**reply.headers, "Content-Encoding": "gzip"}), packed)


def redirect(wire, reply):
    wire.send_reply(replace(reply, status=307, headers={**reply.headers, "Location": wire.provider.base + ELSEWHERE}))


def wrong_content_type(wire, reply):
    wire.send_reply(replace(reply, headers={**reply.headers, "Content-Type": "text/html"}))


def not_an_object(wire, reply):
    wire.send_reply(Reply(body=[reply.body]))


def refuse(code):
    def fault(wire, _reply):
        sent = urlencode(wire.request.form)
        wire.send_reply(Reply(status=400, body={"error": code, "error_description": f"no: {sent}"}))

    return fault


def change(**members):
    def fault(wire, reply):
        body = {name: value for name, value in {**reply.body, **members}.items() if value is not None}
        wire.send_reply(replace(reply, body=body))

    return fault


def forge(*, key=None, **claims):
    """Return a fault that changes claims of the ID token, and signs it with the provider's key or another one."""

    def fault(wire, reply):
        payload = json.dumps({**_claims(reply), **claims}).encode()
        change(id_token=mint_raw(payload, key=key or wire.provider.signing_key))(wire, reply)

    return fault


def unsigned(wire, reply):
    change(id_token=f"{encode_json({'alg': 'none'})}.{encode_json(_claims(reply))}.")(wire, reply)


def another_issuer_in_callback(wire, reply):
    location = reply.headers["Location"].replace(urlencode({"iss": wire.provider.issuer}), "iss=https%3A%2F%2Fevil")
    wire.send_reply(replace(reply, headers={"Location": location}))


def _claims(reply):
    payload = str(reply.body["id_token"]).split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


def _long(reply):
    # Blanks behind a document change nothing in it.
    return json.dumps(reply.body).encode().ljust(LONG_BODY_BYTES) if reply.body else b" " * LONG_BODY_BYTES
