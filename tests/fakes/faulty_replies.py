"""A scripted provider whose answers are spoilt on their way, down to single bytes.

A fault spends nothing: what it spoils is a good answer, made without using up the code or refresh token that was sent
for it. So a client that takes the answer all the same is found out, and one that does not has lost nothing.
"""

import gzip
import json
import threading
from contextlib import suppress
from dataclasses import replace
from urllib.parse import urlencode

from tests.fakes.loopback_http import LoopbackHandler, Reply
from tests.fakes.mint import encode_json, mint_raw
from tests.fakes.raw_client import claims_of
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
        self.request_seen = self.seen(body)
        fault = self.provider.faults.get(self.request_seen.path)
        if fault is None:
            super()._answer(body)
            return
        self.close_connection = True
        with suppress(OSError):  # the client hung up, as it should
            fault(self, self.provider.unspent(self.request_seen))

    def send(self, data):
        self.wfile.write(data)
        self.wfile.flush()

    def send_head(self, reply, *, length):
        self.send_response(reply.status)
        for name, value in {**reply.all_headers, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()

    def send_reply(self, reply, content=None):
        body = reply.content if content is None else content
        self.send_head(reply, length=len(body))
        self.send(body)


FaultyProvider.handler = FaultyHandler


def hang(handler, _reply):
    handler.provider.stopping.wait(LONGEST_STALL_SECONDS)


def trickle(handler, reply):
    content = _long(reply)
    handler.send_head(reply, length=len(content))
    for byte in content:
        handler.send(bytes([byte]))
        if handler.provider.stopping.wait(TRICKLE_PAUSE_SECONDS):
            return


def cut(handler, reply):
    content = _long(reply)
    handler.send_head(reply, length=len(content))
    handler.send(content[: len(content) // 2])


def alter(status=None, **headers):
    def fault(handler, reply):
        changed = {name.replace("_", "-"): value for name, value in headers.items()}
        handler.send_reply(replace(reply, status=status or reply.status, headers={**reply.headers, **changed}))

    return fault


server_error = alter(500)
too_many_requests = alter(429, Retry_After="1")
redirect = alter(307, Location=ELSEWHERE)
wrong_content_type = alter(Content_Type="text/html")


def malformed_json(handler, reply):
    handler.send_reply(reply, reply.content[:-1] or b"{")


def oversized(handler, reply):
    handler.send_reply(reply, reply.content + b" " * OVERSIZED_BYTES)


def compressed(handler, reply):
    packed = gzip.compress(reply.content)
    handler.send_reply(replace(reply, headers={**reply.headers, "Content-Encoding": "gzip"}), packed)


def not_an_object(handler, reply):
    handler.send_reply(Reply(body=[reply.body]))


def refuse(code):
    def fault(handler, _reply):
        sent = urlencode(handler.request_seen.form)
        handler.send_reply(Reply(status=400, body={"error": code, "error_description": f"no: {sent}"}))

    return fault


def change(**members):
    def fault(handler, reply):
        body = {name: value for name, value in {**reply.body, **members}.items() if value is not None}
        handler.send_reply(replace(reply, body=body))

    return fault


def forge(*, key=None, **claims):
    """Return a fault that changes claims of the ID token, and signs it with the provider's key or another one."""

    def fault(handler, reply):
        payload = json.dumps({**claims_of(reply.body["id_token"]), **claims}).encode()
        change(id_token=mint_raw(payload, key=key or handler.provider.signing_key))(handler, reply)

    return fault


def unsigned(handler, reply):
    claims = encode_json(claims_of(reply.body["id_token"]))
    change(id_token=f"{encode_json({'alg': 'none'})}.{claims}.")(handler, reply)


def another_issuer_in_callback(handler, reply):
    issuer = urlencode({"iss": handler.provider.issuer})
    location = reply.headers["Location"].replace(issuer, "iss=https%3A%2F%2Fevil")
    handler.send_reply(replace(reply, headers={"Location": location}))


def _long(reply):
    # Blanks behind a document change nothing in it.
    return json.dumps(reply.body).encode().ljust(LONG_BODY_BYTES) if reply.body else b" " * LONG_BODY_BYTES
