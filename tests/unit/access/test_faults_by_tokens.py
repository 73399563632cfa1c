"""Faults of the environment with every kind of credential: a bad credential is `Rejected`, a fault `Unavailable`.

The two are never exchanged: nobody is told to sign in again because a provider is down, and nobody who holds a bad
token is told to try again.
"""

from __future__ import annotations

from itertools import cycle, product
from typing import TYPE_CHECKING, Any

import pytest

from micromegas_jupyter.access import ApiKeyValidator, MultiValidator, OidcValidator, Rejected, Unavailable
from micromegas_jupyter.config.access import ApiKeySetting
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.errors import ProviderMisbehaved, ProviderUnavailable
from tests.fakes.mint import ISSUER, ec_key, encode_json, forge, mint, rsa_key
from tests.fakes.provider import FakeProvider
from tests.unit.access.conftest import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fakes.clock import FakeClock

API_KEY = "mmk_8c1f0a6de2b94b7f1c3d"


def _fails(error: BaseException) -> Callable[[FakeProvider], None]:
    return lambda provider: setattr(provider, "failure", error)


def _says(name: str, value: Any) -> Callable[[FakeProvider], None]:
    return lambda provider: setattr(provider, name, value)


FAULTS = {
    "does not answer": _fails(ProviderUnavailable("No answer.")),
    "answers with something else": _fails(ProviderMisbehaved("HTML.")),
    "a defect on the way": _fails(ValueError("defect")),
    "no memory": _fails(MemoryError()),
    "an operating system error": _fails(OSError(24, "too many open files")),
    "status 500": _says("status", 500),
    "status 404": _says("status", 404),
    "status 302": _says("status", 302),
    "status 429": _says("status", 429),
    "a discovery document of another issuer": _says(
        "discovery", {"issuer": "https://evil.example", "jwks_uri": ISSUER}
    ),
    "a discovery document without keys": _says("discovery", {"issuer": ISSUER}),
    "a discovery document that is a list": _says("discovery", []),
    "keys over plain http": _says("discovery", {"issuer": ISSUER, "jwks_uri": "http://id.example.com/keys"}),
    "keys at a file": _says("discovery", {"issuer": ISSUER, "jwks_uri": "file:///etc/passwd"}),
    "no list of keys": _says("jwks", {"keys": "none"}),
    "an empty list of keys": _says("jwks", {"keys": []}),
    "a key document that is null": _says("jwks", None),
}
# What the credential itself shows, whatever its issuer's state.
BAD = {
    "empty": "",
    "one word": "hello",
    "an unknown API key": "mmk_ffffffffffffffffffff",
    "two segments": ".".join(mint().split(".")[:2]),
    "unsigned": f"{encode_json({'alg': 'none'})}.{mint().split('.')[1]}.",
    "symmetric": forge(lambda _head, body, mark: (encode_json({"alg": "HS256", "kid": "rsa"}), body, mark)),
    "of an unknown issuer": mint(issuer="https://evil.example"),
    "for another audience": mint(audience="other"),
    "expired": mint(expires_in=-3600),
    "not yet valid": mint(nbf=1_895_521_600),
    "without a subject": mint(without=["sub"]),
    "a logout token": mint(header={"typ": "logout+jwt"}),
    "bound to a key": mint(cnf={"jkt": "x"}),
}
# What only the issuer's keys can tell.
UNDECIDABLE_WITHOUT_KEYS = {
    "good": mint(),
    "good, ES256": mint(key=ec_key()),
    "with a damaged signature": forge(lambda head, body, mark: (head, body, mark[:-8] + "AAAAAAAA")),
    "with changed claims": forge(lambda head, _body, mark: (head, mint(subject="root").split(".")[1], mark)),
    "of an unknown key": mint(key=rsa_key("new")),
    "without a key id": mint(header={"kid": None}),
}


def _chain(provider: FakeProvider, clock: FakeClock) -> MultiValidator:
    keys = ApiKeyValidator([ApiKeySetting(name="grafana", key=Secret(API_KEY))])
    return MultiValidator([keys, OidcValidator(SETTINGS, http=provider, clock=clock)])


def _outcome(validator: MultiValidator, token: str) -> str:
    try:
        validator.validate_token(token)
    except (Rejected, Unavailable) as error:
        return type(error).__name__
    return "accepted"


@pytest.mark.parametrize(("fault", "token"), [*zip(FAULTS, cycle(BAD), strict=False)])  # each of both at least once
def test_a_bad_credential_is_rejected_whatever_is_broken(fault, token, clock):
    provider = FakeProvider()
    FAULTS[fault](provider)

    assert _outcome(_chain(provider, clock), BAD[token]) == "Rejected"


@pytest.mark.parametrize(("fault", "token"), [*product(FAULTS, UNDECIDABLE_WITHOUT_KEYS)])
def test_without_keys_nothing_is_said_about_a_signature(fault, token, clock):
    provider = FakeProvider()
    FAULTS[fault](provider)

    assert _outcome(_chain(provider, clock), UNDECIDABLE_WITHOUT_KEYS[token]) == "Unavailable"


# The address of the keys is known by then, so the discovery document does not count any more.
KEY_FAULTS = [fault for fault in FAULTS if "discovery" not in fault and not fault.startswith("keys ")]
KNOWN_KEYS_OUTCOMES = {
    "good": "accepted",
    "good, ES256": "accepted",
    "with a damaged signature": "Rejected",
    "with changed claims": "Rejected",
    "of an unknown key": "Unavailable",
}


@pytest.mark.parametrize(("fault", "token"), [*product(KEY_FAULTS, KNOWN_KEYS_OUTCOMES)])
def test_a_fault_after_the_keys_were_fetched_hurts_only_unknown_keys(fault, token, clock):
    provider = FakeProvider()
    validator = _chain(provider, clock)
    validator.validate_token(mint(jti="first"))
    FAULTS[fault](provider)
    clock.advance(120)

    assert _outcome(validator, UNDECIDABLE_WITHOUT_KEYS[token]) == KNOWN_KEYS_OUTCOMES[token]


@pytest.mark.parametrize("fault", FAULTS)
def test_once_the_fault_is_over_a_good_token_is_accepted(fault, clock):
    provider = FakeProvider()
    healthy = dict(vars(provider))
    FAULTS[fault](provider)
    validator = _chain(provider, clock)
    assert _outcome(validator, mint()) == "Unavailable"

    for name in ("failure", "status", "discovery", "jwks"):
        setattr(provider, name, healthy[name])
    clock.advance(120)

    assert _outcome(validator, mint()) == "accepted"
