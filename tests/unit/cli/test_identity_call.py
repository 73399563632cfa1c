"""Asking a server who its caller is, without the Flight library."""

import json
from concurrent import futures

import grpc
import pytest

from micromegas_jupyter.auth import StaticTokenAuthProvider
from micromegas_jupyter.cli.whoami_command import ask_identity
from micromegas_jupyter.errors import LoginRequired

IDENTITY = {"subject": "ci", "issuer": "api_key", "auth_type": "api_key", "is_admin": False}
PROVIDER = StaticTokenAuthProvider("the-key")


def _result(body):
    """Encode a Flight `Result`: field 1, its length as a varint, the body."""
    length = len(body)
    encoded = b""
    while length > 0x7F:
        encoded += bytes((length & 0x7F | 0x80,))
        length >>= 7
    return b"\x0a" + encoded + bytes((length,)) + body


def _identity(**changes):
    return _result(json.dumps({**IDENTITY, **changes}).encode())


class ScriptedServer:
    """Answers `DoAction` as it is told and keeps what came."""

    def __init__(self):
        self.results = [_identity()]
        self.status = None
        self.notice = None
        self.closing_notice = None
        self.requests = []
        self.metadata = {}
        self._server = grpc.server(futures.ThreadPoolExecutor(2))
        handler = grpc.unary_stream_rpc_method_handler(self._answer)
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("arrow.flight.protocol.FlightService", {"DoAction": handler}),)
        )
        self.uri = f"grpc://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def stop(self):
        self._server.stop(None).wait(10)

    def _answer(self, request, context):
        self.requests.append(request)
        self.metadata = dict(context.invocation_metadata())
        if self.notice is not None:
            context.send_initial_metadata((("x-micromegas-notice", self.notice),))
        if self.status is not None:
            context.abort(self.status, "no")
        if self.closing_notice is not None:
            context.set_trailing_metadata((("x-micromegas-notice", self.closing_notice),))
        yield from self.results


@pytest.fixture
def server():
    running = ScriptedServer()
    yield running
    running.stop()


def _ask(uri, provider=PROVIDER, tell=lambda _text: None, **options):
    return ask_identity(uri, provider, tell_notice=tell, environ={}, **options)


def test_the_server_is_asked_with_the_token_and_says_who_it_is_for(server):
    identity = _ask(server.uri)

    assert (identity.subject, identity.is_admin) == ("ci", False)
    assert server.requests == [b"\x0a\x10MicromegasWhoAmI"]
    assert server.metadata["authorization"] == "Bearer the-key"
    assert server.metadata["x-client-type"] == "python"


def test_without_a_provider_no_credential_is_sent(server):
    assert _ask(server.uri, provider=None) is not None
    assert "authorization" not in server.metadata


@pytest.mark.parametrize("characters", [10, 200, 20_000])
def test_an_answer_of_any_length_that_may_be_is_read(server, characters):
    subject = "x" * characters
    server.results = [_identity(subject=subject)]

    identity = _ask(server.uri)

    # The client's own limit of an answer is 16 kB.
    assert (identity is None) == (characters == 20_000)
    assert identity is None or identity.subject == subject


@pytest.mark.parametrize("place", ["notice", "closing_notice"])
def test_what_the_server_says_about_the_credential_is_told(server, place):
    setattr(server, place, "this key ends soon")
    told = []

    _ask(server.uri, tell=told.append)

    assert told == ["this key ends soon"]


@pytest.mark.parametrize(
    "results",
    [
        [],
        [_identity(), _identity()],
        [b""],
        [b"\x12\x02{}"],
        [b"\x0a\x05{}"],
        [b"\x0a\xff\xff\xff\xff"],
        [_result(b"not json")],
        [_result(b"x" * 70_000)],
    ],
    ids=["none", "two", "empty", "another field", "a wrong length", "no length", "no JSON", "too large"],
)
def test_an_answer_of_another_form_is_left_to_the_whole_client(server, results):
    server.results = results

    assert _ask(server.uri) is None


def test_an_answer_without_end_is_left_after_its_second_part(server):
    taken = []

    def without_end():
        for number in range(100_000):
            taken.append(number)
            yield _identity()

    server.results = without_end()

    assert _ask(server.uri) is None
    assert len(taken) < 50_000


@pytest.mark.parametrize("status", [grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNIMPLEMENTED])
def test_a_refusal_is_left_to_the_whole_client(server, status):
    server.status = status

    assert _ask(server.uri) is None


def test_a_server_that_is_not_there_is_left_to_the_whole_client():
    assert _ask("grpc://127.0.0.1:1") is None


@pytest.mark.parametrize("uri", ["grpc://lake.example.com:50051", "not an address"])
def test_for_an_address_that_the_whole_client_would_refuse_no_token_is_fetched(uri):
    class Watched:
        asked = 0

        def get_token(self):
            self.asked += 1
            return "the-key"

    provider = Watched()

    assert _ask(uri, provider=provider) is None
    assert provider.asked == 0


def test_authorities_that_cannot_be_read_are_left_to_the_whole_client(tmp_path):
    assert _ask("grpc+tls://127.0.0.1:1", extra_ca_bundle=tmp_path / "none.pem") is None


def test_a_provider_without_a_token_is_left_to_the_whole_client(server):
    class SignedOut:
        def get_token(self):
            raise LoginRequired("You are not signed in.")

    assert _ask(server.uri, provider=SignedOut()) is None
    assert server.requests == []
