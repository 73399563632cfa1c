"""Tokens that are wrong in form, header or algorithm, each with its reason; the claims in them are good."""

from __future__ import annotations

import hashlib
import hmac
import json

from tests.fakes.mint import (
    ec_key,
    encode,
    encode_json,
    forge,
    mint,
    mint_raw,
    rsa_key,
)

PUBLIC_NUMBER = str(rsa_key().jwk()["n"]).encode()


def signed_with_hmac(secret: bytes, algorithm: str = "HS256") -> str:
    head = encode_json({"alg": algorithm, "kid": "rsa", "typ": "JWT"})
    body = mint().split(".")[1]
    digest = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}[algorithm]
    return f"{head}.{body}.{encode(hmac.new(secret, f'{head}.{body}'.encode(), digest).digest())}"


def unsigned(algorithm: object) -> str:
    return f"{encode_json({'alg': algorithm, 'typ': 'JWT'})}.{mint().split('.')[1]}."


WRONG_FORM = {
    # size and shape
    "nothing": ("", "token_empty"),
    "16 KiB and one byte": ("a" * 16385, "token_implausible"),
    "a mebibyte": ("a" * 2**20, "token_implausible"),
    "one word": ("token", "not_three_segments"),
    "an API key": ("mmk_0123456789abcdef", "not_three_segments"),
    "two segments": ("e30.e30", "not_three_segments"),
    "four segments": (mint() + ".AA", "not_three_segments"),
    "five segments of an encrypted token": (mint() + ".AA.AA", "not_three_segments"),
    "only dots": ("..", "header_malformed"),
    "JSON serialisation": (json.dumps({"payload": "e30", "signatures": []}), "not_three_segments"),
    "a letter beyond ASCII": (mint() + "é", "token_not_ascii"),
    "a full-width dot": (mint().replace(".", "\uff0e"), "token_not_ascii"),
    "a lone surrogate": ("\ud800", "token_not_ascii"),
    "a null byte": (mint() + "\0", "not_base64url"),
    "a leading space": (" " + mint(), "not_base64url"),
    "a trailing newline": (mint() + "\n", "not_base64url"),
    "the word Bearer": ("Bearer " + mint(), "not_base64url"),
    "padding": (mint(key=ec_key()) + "==", "not_base64url"),
    "plain base64 letters": (forge(lambda head, body, _signature: (head, body, "+/+/")), "not_base64url"),
    "trailing bits": (forge(lambda head, body, _signature: (head, body, "AB")), "not_base64url"),
    "one letter too many": (forge(lambda head, body, _signature: (head, body, "AAAAA")), "not_base64url"),
    "a space within": (
        forge(lambda head, body, signature: (head, body[:8] + " " + body[8:], signature)),
        "not_base64url",
    ),
    "no signature": (forge(lambda head, body, _signature: (head, body, "")), "signature_missing"),
    "no payload": (forge(lambda head, _body, signature: (head, "", signature)), "claims_malformed"),
    "no header": (forge(lambda _head, body, signature: ("", body, signature)), "header_malformed"),
    # header
    "header is a list": (mint_raw(b"{}", header_bytes=b'["alg"]'), "header_malformed"),
    "header is a number": (mint_raw(b"{}", header_bytes=b"1"), "header_malformed"),
    "header is cut off": (mint_raw(b"{}", header_bytes=b'{"alg":"RS256"'), "header_malformed"),
    "header is UTF-16": (mint_raw(b"{}", header_bytes='{"alg":"RS256"}'.encode("utf-16-le")), "header_malformed"),
    "header with a byte-order mark": (mint_raw(b"{}", header_bytes=b'\xef\xbb\xbf{"alg":"RS256"}'), "header_malformed"),
    "header with two algorithms": (
        mint_raw(b"{}", header_bytes=b'{"alg":"none","alg":"RS256"}'),
        "header_malformed",
    ),
    "header with two key names": (
        mint_raw(b"{}", header_bytes=b'{"alg":"RS256","kid":"a","kid":"rsa"}'),
        "header_malformed",
    ),
    "header of 33 levels": (
        mint_raw(b"{}", header_bytes=b'{"alg":"RS256","a":' + b"[" * 33 + b"]" * 33 + b"}"),
        "header_malformed",
    ),
    "no algorithm": (mint(header={"alg": None}), "algorithm_missing"),
    "algorithm is a list": (mint(header={"alg": ["RS256"]}), "algorithm_missing"),
    "algorithm is a number": (mint(header={"alg": 256}), "algorithm_missing"),
    "algorithm is an object": (mint(header={"alg": {"a": "RS256"}}), "algorithm_missing"),
    "critical extension": (mint(header={"crit": ["exp"], "exp": 1}), "critical_extension"),
    "empty list of critical extensions": (mint(header={"crit": []}), "critical_extension"),
    "critical extension is text": (mint(header={"crit": "exp"}), "critical_extension"),
    "unencoded payload": (mint(header={"b64": False, "crit": ["b64"]}), "critical_extension"),
    "unencoded payload, not critical": (mint(header={"b64": False}), "critical_extension"),
    "logout token by type": (mint(header={"typ": "logout+jwt"}), "type_not_accepted"),
    "proof of possession by type": (mint(header={"typ": "dpop+jwt"}), "type_not_accepted"),
    "security event by type": (mint(header={"typ": "secevent+jwt"}), "type_not_accepted"),
    "client assertion by type": (mint(header={"typ": "client-authentication+jwt"}), "type_not_accepted"),
    "type is a number": (mint(header={"typ": 7}), "type_not_accepted"),
    "type is empty": (mint(header={"typ": ""}), "type_not_accepted"),
    "key name is a number": (mint(header={"kid": 0}), "key_id_malformed"),
    "key name is a list": (mint(header={"kid": ["rsa"]}), "key_id_malformed"),
    "key name is endless": (mint(header={"kid": "k" * 2000}), "key_id_malformed"),
    # algorithm
    "none with a signature": (mint(header={"alg": "none"}), "algorithm_not_allowed"),
    "none without a signature": (unsigned("none"), "signature_missing"),
    "None": (mint(header={"alg": "None"}), "algorithm_not_allowed"),
    "NONE": (mint(header={"alg": "NONE"}), "algorithm_not_allowed"),
    "nOnE": (mint(header={"alg": "nOnE"}), "algorithm_not_allowed"),
    "none with a space": (mint(header={"alg": "none "}), "algorithm_not_allowed"),
    "algorithm is empty": (mint(header={"alg": ""}), "algorithm_not_allowed"),
    "algorithm in lower case": (mint(header={"alg": "rs256"}), "algorithm_not_allowed"),
    "HMAC with the public key": (signed_with_hmac(PUBLIC_NUMBER), "algorithm_not_allowed"),
    "HMAC with an empty key": (signed_with_hmac(b""), "algorithm_not_allowed"),
    "HS384 with the public key": (signed_with_hmac(PUBLIC_NUMBER, "HS384"), "algorithm_not_allowed"),
    "HS512 with the public key": (signed_with_hmac(PUBLIC_NUMBER, "HS512"), "algorithm_not_allowed"),
    "ES256K": (mint(header={"alg": "ES256K"}), "algorithm_not_allowed"),
    "RS1": (mint(header={"alg": "RS1"}), "algorithm_not_allowed"),
    "an encryption algorithm": (mint(header={"alg": "RSA-OAEP"}), "algorithm_not_allowed"),
    "password-based encryption": (mint(header={"alg": "PBES2-HS256+A128KW", "p2c": 10**9}), "algorithm_not_allowed"),
    "dir": (mint(header={"alg": "dir", "enc": "A128GCM", "zip": "DEF"}), "algorithm_not_allowed"),
}
