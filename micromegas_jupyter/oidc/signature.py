"""Checks a token's signature against a provider's keys.

Parsing the token, fetching the keys and judging the claims are left to others.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from micromegas_jupyter.oidc.jws import ParsedToken, TokenProblem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from joserfc.jwa import JWSAlgModel

    from micromegas_jupyter.oidc.keys import KeySet, VerificationKey

MAX_KEYS_TRIED = 10


class UnknownKey(TokenProblem):
    """No key of the set can have made the signature; a newer set of the same provider might hold it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    key_type: str
    curves: frozenset[str | None] = frozenset({None})
    # By curve; a signature of any other length has a second encoding: RFC 7518 section 3.4, RFC 8032 section 5.1.
    signature_bytes: Mapping[str | None, int]


_RSA = _Rule(key_type="RSA", signature_bytes={})
_RULES: Mapping[str, _Rule] = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), _RSA),
    "ES256": _Rule(key_type="EC", curves=frozenset({"P-256"}), signature_bytes={"P-256": 64}),
    "ES384": _Rule(key_type="EC", curves=frozenset({"P-384"}), signature_bytes={"P-384": 96}),
    "ES512": _Rule(key_type="EC", curves=frozenset({"P-521"}), signature_bytes={"P-521": 132}),
    "EdDSA": _Rule(
        key_type="OKP", curves=frozenset({"Ed25519", "Ed448"}), signature_bytes={"Ed25519": 64, "Ed448": 114}
    ),
    "Ed25519": _Rule(key_type="OKP", curves=frozenset({"Ed25519"}), signature_bytes={"Ed25519": 64}),
}
DEFAULT_ALGORITHMS = frozenset(_RULES)


def check_algorithm(parsed: ParsedToken, algorithms: frozenset[str]) -> None:
    """Check that the token's algorithm is one that is accepted.

    Source: RFC 8725 section 3.1. Symmetric algorithms and `none` are never accepted, whatever `algorithms` holds.

    Raises:
        TokenProblem: It is not.
    """
    if parsed.algorithm not in algorithms or parsed.algorithm not in _RULES:
        raise TokenProblem("algorithm_not_allowed")


def verify_signature(parsed: ParsedToken, keys: KeySet, *, algorithms: frozenset[str] = DEFAULT_ALGORITHMS) -> None:
    """Check that a key of the set made the token's signature.

    With a `kid` only keys of that name count; without one, at most `MAX_KEYS_TRIED` keys that fit are tried. A key
    fits when its type, its curve and its own `alg` are those of the token's algorithm (RFC 8725 sections 3.1, 3.2).

    Raises:
        UnknownKey: No key has the token's `kid`, or the token has none and no key verifies it.
        TokenProblem: The algorithm is not accepted, the named key does not fit it, or the signature is wrong.
    """
    check_algorithm(parsed, algorithms)
    key_id = parsed.key_id
    named = [key for key in keys.keys if key_id is None or key.key_id == key_id]
    if not named:
        raise UnknownKey("unknown_key")
    fitting = [key for key in named if _fits(key, parsed.algorithm)]
    if any(_verifies(parsed, key) for key in fitting[:MAX_KEYS_TRIED]):
        return
    if key_id is None:
        raise UnknownKey("unknown_key")
    raise TokenProblem("signature_wrong" if fitting else "key_does_not_fit")


def _fits(key: VerificationKey, algorithm: str) -> bool:
    rule = _RULES[algorithm]
    return key.key_type == rule.key_type and key.curve in rule.curves and key.algorithm in {None, algorithm}


def _verifies(parsed: ParsedToken, key: VerificationKey) -> bool:
    expected_bytes = _RULES[parsed.algorithm].signature_bytes.get(key.curve)
    if expected_bytes is not None and len(parsed.signature) != expected_bytes:
        return False
    try:
        return _verifiers()[parsed.algorithm].verify(parsed.signing_input, parsed.signature, key.key)
    except Exception:  # noqa: BLE001 - whatever the library makes of hostile bytes, the signature does not verify
        return False


@cache
def _verifiers() -> Mapping[str, JWSAlgModel]:
    from joserfc.jwa import JWS_ALGORITHMS  # slow to load, and not needed to read a token that was checked before

    return {model.name: model for model in JWS_ALGORITHMS if model.name in _RULES}
