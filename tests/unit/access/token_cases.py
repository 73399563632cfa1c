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


def claim(name, reason, *values):
    """Return a row for each value of one claim."""
    return {f"{name} {value!a:.70}": (mint(**{name: value}), reason) for value in values}


def header(name, reason, *values, key=None):
    """Return a row for each value of one member of the header."""
    rows = {f"{name} {value!r:.70}": mint(key=key, header={name: value}) for value in values}
    return {f"{title} of {key.kid}" if key else title: (token, reason) for title, token in rows.items()}


def header_bytes(*headers):
    return {f"header {data!r}": (mint_raw(b"{}", header_bytes=data), HEADER) for data in headers}


def payload(*payloads):
    return {f"payload {data!r}": (mint_raw(data), CLAIMS) for data in payloads}


def text(reason, **tokens):
    return {name.replace("_", " "): (token, reason) for name, token in tokens.items()}


def with_parts(head=None, body=None, mark=None):
    """Return a good token with other parts."""
    changes = (head, body, mark)
    return ".".join(good if new is None else new for new, good in zip(changes, mint().split("."), strict=True))


ACCEPTED = {
    **{
        str(changes): mint(**changes)
        for changes in (
            {}, {"audience": "second"}, {"audience": ["other", AUDIENCE]}, {"audience": [AUDIENCE]},
            # within the leeway
            {"expires_in": -59}, {"nbf": NOW_SECONDS + 59}, {"iat": NOW_SECONDS + 59}, {"expires_in": 0.5},
            {"without": ["iat"]}, {"subject": "s" * 255}, {"subject": "Zoë"}, {"name": "\u00e9\n\U0001f600"},
            {"nonce": "n", "at_hash": "x", "azp": "client"},
            {"typ": "Bearer", "azp": "client", "realm_access": {"roles": ["a"]}},
        )
    },
    **{
        f"header {header}": mint(header=header)
        for header in (
            {"typ": None}, {"typ": "at+jwt"}, {"typ": "application/at+jwt"}, {"typ": "jwt"}, {"kid": None},
            # links to keys, certificates and unknown members are not used
            {"jku": "https://evil.example/keys"}, {"x5u": "http://169.254.169.254/"}, {"x5c": ["MIIB"]},
            {"nonce": "abc", "ver": 1},
        )
    },
    "an embedded key that is not used": mint(header={"jwk": FOREIGN_KEY.jwk()}),
    "ES256": mint(key=ec_key()),
    "EdDSA": mint(key=ed25519_key()),
    "no key name, EC": mint(key=ec_key(), header={"kid": None}),
    "payload with white space": claims_text(json.dumps(valid_claims(), indent=4)),
    "32 levels of claims": mint(deep=json.loads("[" * 31 + "]" * 31)),
}  # fmt: skip


WRONG_CLAIMS = {
    # issuer
    "no issuer": (mint(without=["iss"]), "issuer_unknown"),
    **claim(
        "iss", "issuer_unknown", "https://evil.example", f"{ISSUER}/", ISSUER.upper(), ISSUER[:-1],
        f"{ISSUER}.evil.example", f"{ISSUER}:443", ISSUER.replace("https", "http"), f" {ISSUER}", "", [ISSUER],
        {"iss": ISSUER}, None,
    ),
    "two issuers": (with_twice("iss", "https://evil.example", ISSUER), CLAIMS),
    # audience
    "no audience": (mint(without=["aud"]), "audience_missing"),
    **claim("aud", "audience_mismatch", "other", "LAKE", "lake2", "lak", "lake second", "", ["a", "b"]),
    **claim("aud", "audience_malformed", [], None, 1, True, {AUDIENCE: True}, [AUDIENCE, 1], [[AUDIENCE]]),
    # times
    "no expiry": (mint(without=["exp"]), "expiry_missing"),
    "expired at the leeway's end": (mint(expires_in=-60), "expired"),
    **claim("exp", "expired", NOW_SECONDS - 61, 1, 0, -5),
    **claim(
        "exp", "expiry_malformed", str(NOW_SECONDS + 300), "2030-01-01T00:00:00Z", True, None, [NOW_SECONDS + 300], {},
        10**400, 253_402_300_800, 1e300,
    ),
    **claim("exp", CLAIMS, float("nan"), float("inf")),
    **{
        f"expiry of {number[:9]}": (claims_text(json.dumps(valid_claims(exp="?")).replace('"?"', number)), CLAIMS)
        for number in ("1e400", "-1e400", "1" * 5000)
    },
    "two expiries": (with_twice("exp", NOW_SECONDS + 300, NOW_SECONDS + 900), CLAIMS),
    **claim("nbf", "not_yet_valid", NOW_SECONDS + 61),
    **claim("nbf", "not_before_malformed", "0", False, None),
    **claim("iat", "issued_in_the_future", NOW_SECONDS + 61),
    **claim("iat", "issued_at_malformed", "0", True, NOW_SECONDS * 1000),  # milliseconds
    # subject
    "no subject": (mint(without=["sub"]), "subject_missing"),
    **claim(
        "sub", "subject_malformed", "", " ", "\u3000 ", None, 1, ["alice"], {"sub": "alice"}, "s" * 256,
        "a\r\nx-auth-is-admin: true", "alice\0", "a\u2028b", "a\u202eb",
    ),
    "two subjects": (with_twice("sub", "alice", "root"), CLAIMS),
    # payload
    **payload(b"[]", b'"claims"', b"null", b"iss=id", b"{}{}", b'{"a":1,}', b'{"a":1}//'),
    **payload(*(json.dumps(valid_claims()).encode(code) for code in ("utf-16", "utf-32"))),
    **payload('{"name":"é"}'.encode("latin-1"), b'{"a":"\xc0\xaf"}', b'{"a":"x\ny"}'),
    # surrogates: raw, and half a pair in a value and in a name
    **payload(b'{"a":"\xed\xa0\x80"}', b'{"a":"\\ud800"}', b'{"\\udc00":1}'),
    "payload of 33 levels": (mint(deep=json.loads("[" * 32 + "]" * 32)), CLAIMS),
    "payload of 5000 levels": (mint_raw(b"[" * 5000 + b"]" * 5000), CLAIMS),
    "two names deep inside": (claims_text('{"a":{"b":[{"c":1,"c":1}]}}'), CLAIMS),
    "encrypted content, compressed": (mint_raw(b"\x1f\x8b\x08" + bytes(64)), CLAIMS),
    "a token inside a token": (mint_raw(mint().encode()), CLAIMS),
    # use: bound to a key or a certificate of the client, and tokens that are not for calls
    **claim("cnf", "sender_constrained", {"jkt": "abc"}, {"x5t#S256": "abc"}, None),
    **claim("events", "not_a_bearer_token", {"http://schemas.openid.net/event/backchannel-logout": {}}, {}),
    **claim("typ", "not_a_bearer_token", "Refresh", "Offline"),
    **claim("token_use", "not_a_bearer_token", "refresh"),
}  # fmt: skip


def flip_last_bit(data):
    return data[:-1] + bytes([data[-1] ^ 1])


def re_signed(change, **options):
    """Return a good token with another signature: what `change` makes of the good one's bytes."""
    head, body, mark = mint(**options).split(".")
    return f"{head}.{body}.{encode(change(base64.urlsafe_b64decode(mark + '==')))}"


WRONG_KEY = {
    # key
    **header("kid", "unknown_key", "unknown", "RSA", "", "../../etc/passwd", "' OR 1=1 --", "http://169.254.169.254/"),
    "no key name and a foreign key": (mint(key=FOREIGN_KEY, header={"kid": None}), "unknown_key"),
    **header("alg", "key_does_not_fit", "ES256", "PS256", "RS512"),
    **header("alg", "key_does_not_fit", "RS256", "EdDSA", "ES512", key=ec_key()),
    # signature
    "a foreign key of the same name": (mint(key=rsa_key("elsewhere"), header={"kid": "rsa"}), SIGNATURE),
    "the embedded key signed": (mint(key=FOREIGN_KEY, header={"kid": "rsa", "jwk": FOREIGN_KEY.jwk()}), SIGNATURE),
    "a linked key signed": (
        mint(key=FOREIGN_KEY, header={"kid": "rsa", "jku": "https://evil.example/keys"}),
        SIGNATURE,
    ),
    "one bit of the signature": (re_signed(flip_last_bit), SIGNATURE),
    "one bit of an ES256 signature": (re_signed(flip_last_bit, key=ec_key()), SIGNATURE),
    "one bit of an EdDSA signature": (re_signed(flip_last_bit, key=ed25519_key()), SIGNATURE),
    "other claims under the signature": (with_parts(body=encode_json(valid_claims(sub="root"))), SIGNATURE),
    "another header over it": (with_parts(head=encode_json({"alg": "RS256", "kid": "rsa"})), SIGNATURE),
    "zeros for ES256": (re_signed(lambda _: bytes(64), key=ec_key()), SIGNATURE),
    "zeros for RS256": (re_signed(lambda _: bytes(256)), SIGNATURE),
    "one as RSA signature": (re_signed(lambda _: bytes(255) + b"\1"), SIGNATURE),
    "a short RSA signature": (re_signed(lambda _: b"x"), SIGNATURE),
    "an RSA signature with a zero in front": (re_signed(lambda good: b"\0" + good), SIGNATURE),
    "an ES256 signature with zeros behind": (re_signed(lambda good: good + b"\0\0", key=ec_key()), SIGNATURE),
    "the signature of another token": (with_parts(mark=mint(subject="bob").split(".")[2]), SIGNATURE),
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
    **text("not_three_segments", one_word="token", an_API_key="mmk_0123456789abcdef", two_segments="e30.e30"),
    **text("not_three_segments", four_segments=mint() + ".AA", five_segments_as_if_encrypted=mint() + ".AA.AA"),
    "JSON serialisation": (json.dumps({"payload": "e30", "signatures": []}), "not_three_segments"),
    "only dots": ("..", HEADER),
    **text("token_not_ascii", a_letter=mint() + "é", a_dot=mint().replace(".", "\uff0e"), a_surrogate="\ud800"),
    **text("not_base64url", a_leading_space=" " + mint(), a_trailing_newline=mint() + "\n", a_null=mint() + "\0"),
    **text("not_base64url", the_word_Bearer="Bearer " + mint(), padding=mint(key=ec_key()) + "=="),
    **text("not_base64url", plain_base64=with_parts(mark="+/+/"), trailing_bits=with_parts(mark="AB")),
    **text("not_base64url", a_letter_too_many=with_parts(mark="AAAAA"), a_space_within=mint().replace("Mi", "Mi ", 1)),
    "no signature": (with_parts(mark=""), "signature_missing"),
    "no payload": (with_parts(body=""), CLAIMS),
    "no header": (with_parts(head=""), HEADER),
    # header: a list, a number, cut off, with a byte-order mark, in UTF-16, with names twice, of 33 levels
    **header_bytes(b'["alg"]', b"1", b'{"alg":"RS256"', b'\xef\xbb\xbf{"alg":"RS256"}'),
    **header_bytes('{"alg":"RS256"}'.encode("utf-16-le"), b'{"alg":"none","alg":"RS256"}'),
    **header_bytes(b'{"alg":"RS256","kid":"a","kid":"rsa"}', b'{"alg":"RS256","a":' + b"[" * 33 + b"]" * 33 + b"}"),
    **header("alg", "algorithm_missing", None, ["RS256"], 256, {"a": "RS256"}),
    **header("crit", "critical_extension", [], "exp"),
    **header("b64", "critical_extension", False),
    "critical extension": (mint(header={"crit": ["exp"], "exp": 1}), "critical_extension"),
    "unencoded payload": (mint(header={"b64": False, "crit": ["b64"]}), "critical_extension"),
    # logout token, proof of possession, security event, client assertion
    **header("typ", "type_not_accepted", "logout+jwt", "dpop+jwt", "secevent+jwt", "client-authentication+jwt", 7, ""),
    **header("kid", "key_id_malformed", 0, ["rsa"], "k" * 2000),
    # algorithm
    "none without a signature": (unsigned("none"), "signature_missing"),
    **header("alg", ALGORITHM, "none", "None", "NONE", "nOnE", "none ", "", "rs256", "ES256K", "RS1", "RSA-OAEP"),
    "password-based encryption": (mint(header={"alg": "PBES2-HS256+A128KW", "p2c": 10**9}), ALGORITHM),
    "dir": (mint(header={"alg": "dir", "enc": "A128GCM", "zip": "DEF"}), ALGORITHM),
    "HMAC with an empty key": (signed_with_hmac(b""), ALGORITHM),
    "HS256 with the public key": (signed_with_hmac(PUBLIC_NUMBER), ALGORITHM),
    "HS384 with the public key": (signed_with_hmac(PUBLIC_NUMBER, "HS384"), ALGORITHM),
    "HS512 with the public key": (signed_with_hmac(PUBLIC_NUMBER, "HS512"), ALGORITHM),
}
