"""How fast credentials are checked beside the bare signature and beside a call; printed side by side, never judged."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import statistics
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from pyarrow.flight import FlightCallOptions, FlightClient

from micromegas_jupyter.access import ApiKeyValidator, MultiValidator, OidcValidator
from micromegas_jupyter.config.access import ApiKeySetting
from micromegas_jupyter.config.issuers import IssuerSetting, OidcServerSettings
from micromegas_jupyter.config.server import ServerSettings
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.wiring import ServerStack
from tests.fakes.clock import FakeClock
from tests.fakes.mint import AUDIENCE, ISSUER, NOW, ec_key, mint, rsa_key
from tests.fakes.provider import FakeProvider

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from micromegas_jupyter.access.metrics import AccessMetrics
    from tests.fakes.mint import SigningKey

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@contextmanager
def _unheard() -> Iterator[None]:
    """Leave the audit's logger without handlers, so that what listens to it (pytest does) is not measured."""
    logger = logging.getLogger("micromegas_jupyter")
    handlers, logger.handlers, logger.propagate = logger.handlers, [], False
    try:
        yield
    finally:
        logger.handlers, logger.propagate = handlers, True


@contextmanager
def _audit_written_to(path: Path) -> Iterator[None]:
    handler = logging.FileHandler(path)
    with _unheard(), closing(handler):
        logging.getLogger("micromegas_jupyter").addHandler(handler)
        yield


def _microseconds(call: Callable[[], object], *, calls: int = 20_000) -> float:
    rounds = []
    with _unheard():
        for _ in range(7):
            started = SYSTEM_CLOCK.monotonic()
            for _ in range(calls // 7):
                call()
            rounds.append((SYSTEM_CLOCK.monotonic() - started) / (calls // 7) * 1e6)
    return statistics.median(rounds)


def _each(call: Callable[[str], object], tokens: Iterable[str]) -> float:
    spent = []
    for token in tokens:
        started = SYSTEM_CLOCK.monotonic()
        call(token)
        spent.append(SYSTEM_CLOCK.monotonic() - started)
    return statistics.median(spent) * 1e6


def _validator(*, cache_size: int = 20_000, metrics: AccessMetrics | None = None) -> OidcValidator:
    settings = OidcServerSettings(
        issuers=(IssuerSetting(issuer=ISSUER, audiences=(AUDIENCE,)),), token_cache_size=cache_size
    )
    return OidcValidator(settings, http=FakeProvider(), clock=FakeClock(NOW), metrics=metrics)


def _tokens(key: SigningKey, count: int) -> list[str]:
    return [
        mint(key=key, subject=f"person-{number}", email="alice@example.com", name="Alice", groups=["a", "b"])
        for number in range(count)
    ]


def _bare_verification(key: SigningKey) -> Callable[[str], object]:
    public = key.private.public_key()

    def verify(token: str) -> None:
        head, _, signature_text = token.rpartition(".")
        signature = base64.urlsafe_b64decode(signature_text + "==")
        if key.algorithm == "RS256":
            public.verify(signature, head.encode(), padding.PKCS1v15(), hashes.SHA256())
        else:
            numbers = (int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
            public.verify(encode_dss_signature(*numbers), head.encode(), ec.ECDSA(hashes.SHA256()))

    return verify


@pytest.mark.parametrize("key", [rsa_key(), ec_key()], ids=["RS256", "ES256"])
def test_a_new_token_beside_its_bare_signature(key: SigningKey, tmp_path: Path) -> None:
    quiet, audited, bare = _validator(), _validator(), _bare_verification(key)
    tokens = _tokens(key, 2000)
    for validator in (quiet, audited):
        validator.validate_token(tokens[-1])
    tokens.pop()

    with _unheard():
        ours, theirs = _each(quiet.validate_token, tokens), _each(bare, tokens)
    with _audit_written_to(tmp_path / "audit"):
        written = _each(audited.validate_token, tokens)

    print(
        f"\n{key.algorithm}: new token {ours:.0f} us, bare signature {theirs:.0f} us, ratio {ours / theirs:.2f}; "
        f"with its audit line in a file {written:.0f} us"
    )
    assert quiet.cached_context(tokens[0]) is not None


def test_a_known_token_in_the_chain_of_all_validators() -> None:
    keys = [ApiKeySetting(name=f"key-{number}", sha256=hashlib.sha256(b"%d" % number).digest()) for number in range(10)]
    oidc = _validator()
    chain = MultiValidator([ApiKeyValidator(keys), oidc])
    token = _tokens(rsa_key(), 1)[0]
    chain.validate_token(token)

    alone, in_chain = (_microseconds(lambda part=part: part.cached_context(token)) for part in (oidc, chain))
    whole = _microseconds(lambda: chain.validate_token(token))

    print(
        f"\nknown token: OIDC alone {alone:.2f} us, with API keys before it {in_chain:.2f}, validate_token {whole:.2f}"
    )
    assert chain.cached_context(token) is not None


def test_an_api_key_whatever_their_number() -> None:
    for count in (1, 1000, 100_000):
        texts = [f"mmk_{number:043d}" for number in range(count)]
        settings = [ApiKeySetting(name=text, sha256=hashlib.sha256(text.encode()).digest()) for text in texts]
        validator = ApiKeyValidator(settings)
        wanted = texts[count // 2]

        cached = _microseconds(partial(validator.cached_context, wanted))
        whole = _microseconds(partial(validator.validate_token, wanted))

        print(f"\nAPI key, one of {count}: look-up {cached:.2f} us, validate_token {whole:.2f} us")
        assert validator.validate_token(wanted).subject == wanted


def test_a_known_token_beside_a_call_through_the_server(tmp_path) -> None:
    key = "a-key-for-this-benchmark-only"
    environ = {"MICROMEGAS_API_KEYS": json.dumps([{"name": "bench", "key": key}])}
    options = ServerSettings(no_http=True, lake=tmp_path, port=0, no_telemetry=True)
    with (
        ServerStack(options, environ=environ) as server,
        FlightClient(server.uri.replace("grpc:", "grpc+tcp:")) as client,
    ):
        assert server.validator is not None
        validator = server.validator
        headers = FlightCallOptions(headers=[(b"authorization", f"Bearer {key}".encode())])
        assert client.list_actions(headers)

        call = _microseconds(lambda: client.list_actions(headers), calls=700)
        check = _microseconds(lambda: validator.cached_context(key))

    print(f"\nno-op call {call:.0f} us, of which the credential {check:.2f} us ({check / call:.2%})")
    assert validator.cached_context(key) is not None
