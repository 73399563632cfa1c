"""How fast credentials are checked beside the bare signature and beside a call; printed side by side, never judged."""

import base64
import logging
import statistics
from contextlib import contextmanager

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from micromegas_jupyter.access import OidcValidator
from micromegas_jupyter.config.issuers import IssuerSetting, OidcServerSettings
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from tests.fakes.clock import FakeClock
from tests.fakes.mint import AUDIENCE, ISSUER, NOW, ec_key, mint, rsa_key
from tests.fakes.provider import FakeProvider

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@contextmanager
def _unheard():
    """Leave the audit's logger without handlers, so that what listens to it (pytest does) is not measured."""
    logger = logging.getLogger("micromegas_jupyter")
    handlers, logger.handlers, logger.propagate = logger.handlers, [], False
    try:
        yield
    finally:
        logger.handlers, logger.propagate = handlers, True


def _each(call, tokens):
    spent = []
    for token in tokens:
        started = SYSTEM_CLOCK.monotonic()
        call(token)
        spent.append(SYSTEM_CLOCK.monotonic() - started)
    return statistics.median(spent) * 1e6


def _tokens(key, count):
    return [
        mint(key=key, subject=f"person-{number}", email="alice@example.com", name="Alice", groups=["a", "b"])
        for number in range(count)
    ]


def _bare_verification(key):
    public = key.private.public_key()

    def verify(token):
        head, _, signature_text = token.rpartition(".")
        signature = base64.urlsafe_b64decode(signature_text + "==")
        if key.algorithm == "RS256":
            public.verify(signature, head.encode(), padding.PKCS1v15(), hashes.SHA256())
        else:
            numbers = (int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
            public.verify(encode_dss_signature(*numbers), head.encode(), ec.ECDSA(hashes.SHA256()))

    return verify


@pytest.mark.parametrize("key", [rsa_key(), ec_key()], ids=["RS256", "ES256"])
def test_a_new_token_beside_its_bare_signature(key, say):
    settings = OidcServerSettings(
        issuers=(IssuerSetting(issuer=ISSUER, audiences=(AUDIENCE,)),), token_cache_size=20_000
    )
    validator = OidcValidator(settings, http=FakeProvider(), clock=FakeClock(NOW))
    *tokens, first = _tokens(key, 2000)
    validator.validate_token(first)

    with _unheard():
        ours, theirs = _each(validator.validate_token, tokens), _each(_bare_verification(key), tokens)

    assert validator.cached_context(tokens[0]) is not None
    say(f"{key.algorithm}: new token {ours:.0f} us, bare signature {theirs:.0f} us, ratio {ours / theirs:.2f}")
