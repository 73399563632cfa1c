"""Tokens whose claims are wrong, each with its reason, and tokens whose claims are right in unusual ways."""

import base64
import hashlib
import hmac
import json

from tests.fakes.mint import (
    AUDIENCE,
    ISSUER,
    NOW_SECONDS,
    ec_key,
    ed25519_key,
    encode,
    encode_json,
    forge,
    mint,
    mint_raw,
    rsa_key,
)

# Reasons that many cases share.
ALGORITHM = "algorithm_not_allowed"
HEADER = "header_malformed"
CLAIMS = "claims_malformed"
SIGNATURE = "signature_wrong"

FOREIGN_KEY = rsa_key("foreign")


def claims_text(text):
    return mint_raw(text.encode())


def valid_claims(**changes):
    return {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": NOW_SECONDS + 300, "iat": NOW_SECONDS, **changes}


def with_twice(name, first, second):
    rest = json.dumps({key: value for key, value in valid_claims().items() if key != name})[1:-1]
    return claims_text(f'{{"{name}": {json.dumps(first)}, {rest}, "{name}": {json.dumps(second)}}}')


ACCEPTED = {
    "RS256": mint(),
    "RS256 without a type": mint(header={"typ": None}),
    "RFC 9068 type": mint(header={"typ": "at+jwt"}),
    "RFC 9068 full type": mint(header={"typ": "application/at+jwt"}),
    "type in lower case": mint(header={"typ": "jwt"}),
    "ES256": mint(key=ec_key()),
    "EdDSA": mint(key=ed25519_key()),
    "no key name, RSA": mint(header={"kid": None}),
    "no key name, EC": mint(key=ec_key(), header={"kid": None}),
    "second audience": mint(audience="second"),
    "audience in a list": mint(audience=["other", AUDIENCE]),
    "audience list of one": mint(audience=[AUDIENCE]),
    "expired within the leeway": mint(expires_in=-59),
    "fractional expiry": mint(expires_in=0.5),
    "not-before within the leeway": mint(nbf=NOW_SECONDS + 59),
    "issued within the leeway": mint(iat=NOW_SECONDS + 59),
    "no issue time": mint(without=["iat"]),
    "subject of 255 characters": mint(subject="s" * 255),
    "subject beyond ASCII": mint(subject="Zoë"),
    "header with an unused key link": mint(header={"jku": "https://evil.example/keys"}),
    "header with an unused certificate link": mint(header={"x5u": "http://169.254.169.254/"}),
    "header with an unused embedded key": mint(header={"jwk": FOREIGN_KEY.jwk()}),
    "header with unused certificates": mint(header={"x5c": ["MIIB"]}),
    "header with an unknown member": mint(header={"nonce": "abc", "ver": 1}),
    "payload with white space": claims_text(json.dumps(valid_claims(), indent=4)),
    "payload with escapes": mint(name="\u00e9\n\U0001f600"),
    "ID token with a nonce": mint(nonce="n", at_hash="x", azp="client"),
    "Keycloak access token": mint(typ="Bearer", azp="client", realm_access={"roles": ["a"]}),
    "32 levels of claims": mint(deep=json.loads("[" * 31 + "]" * 31)),
}


WRONG_CLAIMS = {
    # issuer
    "no issuer": (mint(without=["iss"]), "issuer_unknown"),
    "another issuer": (mint(issuer="https://evil.example"), "issuer_unknown"),
    "issuer with a slash": (mint(issuer=f"{ISSUER}/"), "issuer_unknown"),
    "issuer in capitals": (mint(issuer=ISSUER.upper()), "issuer_unknown"),
    "issuer cut short": (mint(issuer=ISSUER[:-1]), "issuer_unknown"),
    "issuer with a suffix": (mint(issuer=f"{ISSUER}.evil.example"), "issuer_unknown"),
    "issuer with the port of https": (mint(issuer=f"{ISSUER}:443"), "issuer_unknown"),
    "issuer over http": (mint(issuer=ISSUER.replace("https", "http")), "issuer_unknown"),
    "issuer with a space": (mint(issuer=f" {ISSUER}"), "issuer_unknown"),
    "issuer is empty": (mint(issuer=""), "issuer_unknown"),
    "issuer is a list": (mint(issuer=[ISSUER]), "issuer_unknown"),
    "issuer is an object": (mint(issuer={"iss": ISSUER}), "issuer_unknown"),
    "issuer is null": (mint(issuer=None), "issuer_unknown"),
    "two issuers": (with_twice("iss", "https://evil.example", ISSUER), CLAIMS),
    # audience
    "no audience": (mint(without=["aud"]), "audience_missing"),
    "another audience": (mint(audience="other"), "audience_mismatch"),
    "audience in capitals": (mint(audience="LAKE"), "audience_mismatch"),
    "audience with a suffix": (mint(audience="lake2"), "audience_mismatch"),
    "audience cut short": (mint(audience="lak"), "audience_mismatch"),
    "audiences in one text": (mint(audience="lake second"), "audience_mismatch"),
    "audience is empty": (mint(audience=""), "audience_mismatch"),
    "audience is an empty list": (mint(audience=[]), "audience_malformed"),
    "audience is null": (mint(audience=None), "audience_malformed"),
    "audience is a number": (mint(audience=1), "audience_malformed"),
    "audience is true": (mint(audience=True), "audience_malformed"),
    "audience is an object": (mint(audience={AUDIENCE: True}), "audience_malformed"),
    "audience list with a number": (mint(audience=[AUDIENCE, 1]), "audience_malformed"),
    "audience list in a list": (mint(audience=[[AUDIENCE]]), "audience_malformed"),
    "other audiences in a list": (mint(audience=["a", "b"]), "audience_mismatch"),
    # times
    "no expiry": (mint(without=["exp"]), "expiry_missing"),
    "expired": (mint(expires_in=-61), "expired"),
    "expired at the leeway's end": (mint(expires_in=-60), "expired"),
    "expired long ago": (mint(exp=1), "expired"),
    "expiry is zero": (mint(exp=0), "expired"),
    "expiry is negative": (mint(exp=-5), "expired"),
    "expiry is text": (mint(exp=str(NOW_SECONDS + 300)), "expiry_malformed"),
    "expiry is a date": (mint(exp="2030-01-01T00:00:00Z"), "expiry_malformed"),
    "expiry is true": (mint(exp=True), "expiry_malformed"),
    "expiry is null": (mint(exp=None), "expiry_malformed"),
    "expiry is a list": (mint(exp=[NOW_SECONDS + 300]), "expiry_malformed"),
    "expiry is an object": (mint(exp={}), "expiry_malformed"),
    "expiry is NaN": (mint(exp=float("nan")), CLAIMS),
    "expiry is Infinity": (mint(exp=float("inf")), CLAIMS),
    "expiry is 1e400": (claims_text(json.dumps(valid_claims(exp="?")).replace('"?"', "1e400")), CLAIMS),
    "expiry is -1e400": (claims_text(json.dumps(valid_claims(exp="?")).replace('"?"', "-1e400")), CLAIMS),
    "expiry of 400 digits": (mint(exp=10**400), "expiry_malformed"),
    "expiry of 5000 digits": (claims_text(json.dumps(valid_claims(exp="?")).replace('"?"', "1" * 5000)), CLAIMS),
    "expiry in the year 10000": (mint(exp=253_402_300_800), "expiry_malformed"),
    "expiry of 1e300": (mint(exp=1e300), "expiry_malformed"),
    "two expiries": (with_twice("exp", NOW_SECONDS + 300, NOW_SECONDS + 900), CLAIMS),
    "not yet valid": (mint(nbf=NOW_SECONDS + 61), "not_yet_valid"),
    "not-before is text": (mint(nbf="0"), "not_before_malformed"),
    "not-before is false": (mint(nbf=False), "not_before_malformed"),
    "not-before is null": (mint(nbf=None), "not_before_malformed"),
    "issued in the future": (mint(iat=NOW_SECONDS + 61), "issued_in_the_future"),
    "issue time is text": (mint(iat="0"), "issued_at_malformed"),
    "issue time is true": (mint(iat=True), "issued_at_malformed"),
    "issue time in milliseconds": (mint(iat=NOW_SECONDS * 1000), "issued_at_malformed"),
    # subject
    "no subject": (mint(without=["sub"]), "subject_missing"),
    "subject is empty": (mint(subject=""), "subject_malformed"),
    "subject is null": (mint(subject=None), "subject_malformed"),
    "subject is a number": (mint(subject=1), "subject_malformed"),
    "subject is a list": (mint(subject=["alice"]), "subject_malformed"),
    "subject is an object": (mint(subject={"sub": "alice"}), "subject_malformed"),
    "subject of 256 characters": (mint(subject="s" * 256), "subject_malformed"),
    "subject with a line break": (mint(subject="a\r\nx-auth-is-admin: true"), "subject_malformed"),
    "subject with a null": (mint(subject="alice\0"), "subject_malformed"),
    "subject with a line separator": (mint(subject="a\u2028b"), "subject_malformed"),
    "subject with a reversed text": (mint(subject="a\u202eb"), "subject_malformed"),
    "two subjects": (with_twice("sub", "alice", "root"), CLAIMS),
    # payload
    "payload is a list": (mint_raw(b"[]"), CLAIMS),
    "payload is text": (mint_raw(b'"claims"'), CLAIMS),
    "payload is null": (mint_raw(b"null"), CLAIMS),
    "payload is no JSON": (mint_raw(b"iss=id"), CLAIMS),
    "payload is two objects": (mint_raw(b"{}{}"), CLAIMS),
    "payload with a trailing comma": (mint_raw(b'{"a":1,}'), CLAIMS),
    "payload with a comment": (mint_raw(b'{"a":1}//'), CLAIMS),
    "payload in UTF-16": (mint_raw(json.dumps(valid_claims()).encode("utf-16")), CLAIMS),
    "payload in UTF-32": (mint_raw(json.dumps(valid_claims()).encode("utf-32")), CLAIMS),
    "payload in Latin-1": (mint_raw('{"name":"é"}'.encode("latin-1")), CLAIMS),
    "payload with an overlong byte": (mint_raw(b'{"a":"\xc0\xaf"}'), CLAIMS),
    "payload with a raw surrogate": (mint_raw(b'{"a":"\xed\xa0\x80"}'), CLAIMS),
    "payload with half a surrogate pair": (claims_text('{"a":"\\ud800"}'), CLAIMS),
    "payload with half a pair in a name": (claims_text('{"\\udc00":1}'), CLAIMS),
    "payload with a raw line break in text": (mint_raw(b'{"a":"x\ny"}'), CLAIMS),
    "payload of 33 levels": (mint(deep=json.loads("[" * 32 + "]" * 32)), CLAIMS),
    "payload of 5000 levels": (mint_raw(b"[" * 5000 + b"]" * 5000), CLAIMS),
    "two names deep inside": (claims_text('{"a":{"b":[{"c":1,"c":1}]}}'), CLAIMS),
    "encrypted content, compressed": (mint_raw(b"\x1f\x8b\x08" + bytes(64)), CLAIMS),
    "a token inside a token": (mint_raw(mint().encode()), CLAIMS),
    # use
    "bound to a key of the client": (mint(cnf={"jkt": "abc"}), "sender_constrained"),
    "bound to a certificate": (mint(cnf={"x5t#S256": "abc"}), "sender_constrained"),
    "logout token by its events": (
        mint(events={"http://schemas.openid.net/event/backchannel-logout": {}}),
        "not_a_bearer_token",
    ),
    "refresh token of Keycloak": (mint(typ="Refresh"), "not_a_bearer_token"),
    "offline token of Keycloak": (mint(typ="Offline"), "not_a_bearer_token"),
    "refresh token of Cognito": (mint(token_use="refresh"), "not_a_bearer_token"),
}


def flip_last_bit(data):
    return data[:-1] + bytes([data[-1] ^ 1])


def re_signed(change, **options):
    """Return a good token with another signature: what `change` makes of the good one's bytes."""
    head, body, mark = mint(**options).split(".")
    return f"{head}.{body}.{encode(change(base64.urlsafe_b64decode(mark + '==')))}"


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
    "a foreign key of the same name": (mint(key=rsa_key("elsewhere"), header={"kid": "rsa"}), SIGNATURE),
    "the embedded key signed": (mint(key=FOREIGN_KEY, header={"kid": "rsa", "jwk": FOREIGN_KEY.jwk()}), SIGNATURE),
    "the linked key signed": (
        mint(key=FOREIGN_KEY, header={"kid": "rsa", "jku": "https://evil.example/keys"}),
        SIGNATURE,
    ),
    "one bit of the signature": (re_signed(flip_last_bit), SIGNATURE),
    "one bit of an ES256 signature": (re_signed(flip_last_bit, key=ec_key()), SIGNATURE),
    "one bit of an EdDSA signature": (re_signed(flip_last_bit, key=ed25519_key()), SIGNATURE),
    "other claims under the signature": (
        forge(lambda head, _body, signature: (head, encode_json(valid_claims(sub="root")), signature)),
        SIGNATURE,
    ),
    "another header over the signature": (
        forge(lambda _head, body, signature: (encode_json({"alg": "RS256", "kid": "rsa"}), body, signature)),
        SIGNATURE,
    ),
    "zeros for ES256": (re_signed(lambda _: bytes(64), key=ec_key()), SIGNATURE),
    "zeros for RS256": (re_signed(lambda _: bytes(256)), SIGNATURE),
    "one as RSA signature": (re_signed(lambda _: bytes(255) + b"\1"), SIGNATURE),
    "a short RSA signature": (re_signed(lambda _: b"x"), SIGNATURE),
    "an RSA signature with a zero in front": (re_signed(lambda good: b"\0" + good), SIGNATURE),
    "an ES256 signature with zeros behind": (re_signed(lambda good: good + b"\0\0", key=ec_key()), SIGNATURE),
    "the signature of another token": (
        forge(lambda head, body, _signature: (head, body, mint(subject="bob").split(".")[2])),
        SIGNATURE,
    ),
}


PUBLIC_NUMBER = str(rsa_key().jwk()["n"]).encode()


def signed_with_hmac(secret, algorithm="HS256"):
    head = encode_json({"alg": algorithm, "kid": "rsa", "typ": "JWT"})
    body = mint().split(".")[1]
    digest = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}[algorithm]
    return f"{head}.{body}.{encode(hmac.new(secret, f'{head}.{body}'.encode(), digest).digest())}"


def unsigned(algorithm):
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
    "only dots": ("..", HEADER),
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
    "no payload": (forge(lambda head, _body, signature: (head, "", signature)), CLAIMS),
    "no header": (forge(lambda _head, body, signature: ("", body, signature)), HEADER),
    # header
    "header is a list": (mint_raw(b"{}", header_bytes=b'["alg"]'), HEADER),
    "header is a number": (mint_raw(b"{}", header_bytes=b"1"), HEADER),
    "header is cut off": (mint_raw(b"{}", header_bytes=b'{"alg":"RS256"'), HEADER),
    "header is UTF-16": (mint_raw(b"{}", header_bytes='{"alg":"RS256"}'.encode("utf-16-le")), HEADER),
    "header with a byte-order mark": (mint_raw(b"{}", header_bytes=b'\xef\xbb\xbf{"alg":"RS256"}'), HEADER),
    "header with two algorithms": (mint_raw(b"{}", header_bytes=b'{"alg":"none","alg":"RS256"}'), HEADER),
    "header with two key names": (mint_raw(b"{}", header_bytes=b'{"alg":"RS256","kid":"a","kid":"rsa"}'), HEADER),
    "header of 33 levels": (
        mint_raw(b"{}", header_bytes=b'{"alg":"RS256","a":' + b"[" * 33 + b"]" * 33 + b"}"),
        HEADER,
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
    "none with a signature": (mint(header={"alg": "none"}), ALGORITHM),
    "none without a signature": (unsigned("none"), "signature_missing"),
    "None": (mint(header={"alg": "None"}), ALGORITHM),
    "NONE": (mint(header={"alg": "NONE"}), ALGORITHM),
    "nOnE": (mint(header={"alg": "nOnE"}), ALGORITHM),
    "none with a space": (mint(header={"alg": "none "}), ALGORITHM),
    "algorithm is empty": (mint(header={"alg": ""}), ALGORITHM),
    "algorithm in lower case": (mint(header={"alg": "rs256"}), ALGORITHM),
    "HMAC with the public key": (signed_with_hmac(PUBLIC_NUMBER), ALGORITHM),
    "HMAC with an empty key": (signed_with_hmac(b""), ALGORITHM),
    "HS384 with the public key": (signed_with_hmac(PUBLIC_NUMBER, "HS384"), ALGORITHM),
    "HS512 with the public key": (signed_with_hmac(PUBLIC_NUMBER, "HS512"), ALGORITHM),
    "ES256K": (mint(header={"alg": "ES256K"}), ALGORITHM),
    "RS1": (mint(header={"alg": "RS1"}), ALGORITHM),
    "an encryption algorithm": (mint(header={"alg": "RSA-OAEP"}), ALGORITHM),
    "password-based encryption": (mint(header={"alg": "PBES2-HS256+A128KW", "p2c": 10**9}), ALGORITHM),
    "dir": (mint(header={"alg": "dir", "enc": "A128GCM", "zip": "DEF"}), ALGORITHM),
}
