"""Tokens whose key or signature is wrong, each with its reason."""

from __future__ import annotations

import base64

from tests.fakes.mint import (
    ec_key,
    ed25519_key,
    encode,
    encode_json,
    encode_number,
    forge,
    mint,
    rsa_key,
)
from tests.unit.access.claim_cases import FOREIGN_KEY, valid_claims


def flip_last_bit(segment: str) -> str:
    data = bytearray(base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4)))
    data[-1] ^= 1
    return encode(bytes(data))


WRONG_KEY = {
    # key
    "unknown key": (mint(header={"kid": "unknown"}), "unknown_key"),
    "key name in capitals": (mint(header={"kid": "RSA"}), "unknown_key"),
    "key name is empty": (mint(header={"kid": ""}), "unknown_key"),
    "key name is a path": (mint(header={"kid": "../../etc/passwd"}), "unknown_key"),
    "key name is SQL": (mint(header={"kid": "' OR 1=1 --"}), "unknown_key"),
    "key name is a URL": (mint(header={"kid": "http://169.254.169.254/"}), "unknown_key"),
    "no key name and a foreign key": (mint(key=FOREIGN_KEY, header={"kid": None}), "unknown_key"),
    "RSA key for ES256": (mint(header={"alg": "ES256"}), "key_does_not_fit"),
    "curve key for RS256": (mint(key=ec_key(), header={"alg": "RS256"}), "key_does_not_fit"),
    "curve key for EdDSA": (mint(key=ec_key(), header={"alg": "EdDSA"}), "key_does_not_fit"),
    "key of another algorithm": (mint(header={"alg": "PS256"}), "key_does_not_fit"),
    "key of another hash": (mint(header={"alg": "RS512"}), "key_does_not_fit"),
    "curve key for another hash": (mint(key=ec_key(), header={"alg": "ES512"}), "key_does_not_fit"),
    # signature
    "a foreign key of the same name": (mint(key=rsa_key("elsewhere"), header={"kid": "rsa"}), "signature_wrong"),
    "the embedded key signed": (
        mint(key=FOREIGN_KEY, header={"kid": "rsa", "jwk": FOREIGN_KEY.jwk()}),
        "signature_wrong",
    ),
    "the linked key signed": (
        mint(key=FOREIGN_KEY, header={"kid": "rsa", "jku": "https://evil.example/keys"}),
        "signature_wrong",
    ),
    "one bit of the signature": (
        forge(lambda head, body, signature: (head, body, flip_last_bit(signature))),
        "signature_wrong",
    ),
    "one bit of an ES256 signature": (
        forge(lambda head, body, signature: (head, body, flip_last_bit(signature)), key=ec_key()),
        "signature_wrong",
    ),
    "one bit of an EdDSA signature": (
        forge(lambda head, body, signature: (head, body, flip_last_bit(signature)), key=ed25519_key()),
        "signature_wrong",
    ),
    "other claims under the signature": (
        forge(lambda head, _body, signature: (head, encode_json(valid_claims(sub="root")), signature)),
        "signature_wrong",
    ),
    "another header over the signature": (
        forge(lambda _head, body, signature: (encode_json({"alg": "RS256", "kid": "rsa"}), body, signature)),
        "signature_wrong",
    ),
    "zeros for ES256": (
        forge(lambda head, body, _signature: (head, body, encode(bytes(64))), key=ec_key()),
        "signature_wrong",
    ),
    "zeros for RS256": (forge(lambda head, body, _signature: (head, body, encode(bytes(256)))), "signature_wrong"),
    "one as RSA signature": (
        forge(lambda head, body, _signature: (head, body, encode_number(1, 256))),
        "signature_wrong",
    ),
    "a short RSA signature": (forge(lambda head, body, _signature: (head, body, encode(b"x"))), "signature_wrong"),
    "an RSA signature with a zero in front": (
        forge(lambda head, body, signature: (head, body, encode(b"\0" + base64.urlsafe_b64decode(signature + "==")))),
        "signature_wrong",
    ),
    "an ES256 signature with zeros behind": (
        forge(
            lambda head, body, signature: (head, body, encode(base64.urlsafe_b64decode(signature + "==") + b"\0\0")),
            key=ec_key(),
        ),
        "signature_wrong",
    ),
    "the signature of another token": (
        forge(lambda head, body, _signature: (head, body, mint(subject="bob").split(".")[2])),
        "signature_wrong",
    ),
}
