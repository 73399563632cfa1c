"""Tests of `oidc.private_key`: which keys are read, and that no refusal shows any of them."""

import hashlib
import json
import pickle
import ssl
from contextlib import suppress
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.oidc.jwt import parse_key_set, parse_token, verify_signature
from micromegas_jupyter.oidc.private_key import parse_private_key, sign_jwt
from tests.fakes.mint import NOW, ec_key, ed448_key, ed25519_key, encode, encode_number, rsa_key
from tests.fakes.tracebacks import traceback_with_variables

SOURCE = "MICROMEGAS_OIDC_PRIVATE_KEY_FILE"
KEYS = {
    "RS256": rsa_key, "ES256": ec_key, "ES384": lambda: ec_key("e384", "P-384"),
    "ES512": lambda: ec_key("e521", "P-521"), "EdDSA": ed25519_key, "EdDSA of Ed448": ed448_key,
}  # fmt: skip


def pem_of(private, form=PrivateFormat.PKCS8):
    return private.private_bytes(Encoding.PEM, form, NoEncryption()).decode()


def jwk_of(key, **changes):
    members = {**key.jwk(), **_private_members(key), **changes}
    return json.dumps({name: value for name, value in members.items() if value is not None})


def _private_members(key):
    if isinstance(key.private, rsa.RSAPrivateKey):
        numbers = key.private.private_numbers()
        names = {"d": "d", "p": "p", "q": "q", "dp": "dmp1", "dq": "dmq1", "qi": "iqmp"}
        return {name: encode_number(getattr(numbers, attribute)) for name, attribute in names.items()}
    if isinstance(key.private, ec.EllipticCurvePrivateKey):
        return {"d": encode_number(key.private.private_numbers().private_value, (key.private.key_size + 7) // 8)}
    return {"d": encode(key.private.private_bytes_raw())}


def parse(text, *, key_id=None, algorithm=None):
    return parse_private_key(Secret(text), key_id=key_id, algorithm=algorithm, source_name=SOURCE)


def refusal_of(text, *, key_id=None, algorithm=None):
    with pytest.raises(ConfigurationError) as caught:
        parse(text, key_id=key_id, algorithm=algorithm)
    assert caught.value.key == SOURCE
    assert caught.value.remedy
    return caught.value


PEM = pem_of(ec_key().private)


@pytest.mark.parametrize("is_jwk", [False, True])
@pytest.mark.parametrize("name", KEYS)
def test_a_key_signs_with_the_usual_algorithm_of_its_type_and_a_jwk_brings_its_own_id(name, is_jwk):
    key = KEYS[name]()
    read = parse(jwk_of(key)) if is_jwk else parse(pem_of(key.private), key_id=key.kid)

    signed = parse_token(sign_jwt(read, {"sub": "a"}).reveal())

    assert (read.key_id, read.algorithm) == (key.kid, key.algorithm)
    assert dict(signed.header) == {"alg": key.algorithm, "typ": "JWT", "kid": key.kid}
    assert dict(signed.claims) == {"sub": "a"}
    verify_signature(signed, parse_key_set({"keys": [key.jwk()]}))


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"])
def test_an_rsa_key_signs_with_the_algorithm_that_is_chosen(algorithm):
    key = rsa_key()

    signed = parse_token(sign_jwt(parse(pem_of(key.private), algorithm=algorithm), {}).reveal())

    assert signed.algorithm == algorithm
    assert signed.key_id is None
    verify_signature(signed, parse_key_set({"keys": [key.jwk(alg=algorithm)]}))


@pytest.mark.parametrize("name", ["RS256", "ES256"])
def test_an_older_pem_form_is_read(name):
    assert parse(pem_of(KEYS[name]().private, PrivateFormat.TraditionalOpenSSL)).algorithm == name


@pytest.mark.parametrize("name", ["RS256", "ES256", "EdDSA"])
def test_a_public_key_is_refused(name):
    key = KEYS[name]()
    pem = key.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    assert "contains only a public key" in str(refusal_of(pem))
    assert "contains only a public key" in str(refusal_of(json.dumps(key.jwk())))


@pytest.mark.parametrize("is_jwk", [False, True])
@pytest.mark.filterwarnings("ignore:Key size should be")
def test_a_short_rsa_key_is_refused(is_jwk):
    key = rsa_key("short", bits=1024)

    assert "2048" in str(refusal_of(jwk_of(key) if is_jwk else pem_of(key.private)))


@pytest.mark.parametrize("algorithm", ["RS256", "ES384", "HS256", "none"])
def test_an_algorithm_that_does_not_fit_the_key_is_refused_with_those_that_do(algorithm):
    assert "ES256" in refusal_of(pem_of(ec_key().private), algorithm=algorithm).remedy


UNUSABLE = [
    *(
        jwk_of(ec_key(), **changes)
        for changes in (
            {"kty": "oct", "k": "c2VjcmV0"}, {"kty": 1}, {"use": "enc"}, {"key_ops": ["verify"]}, {"key_ops": "sign"},
            {"crv": "secp256k1"}, {"crv": None}, {"d": 1}, {"d": "!"}, {"x": "AAAA"}, {"kid": 1},
            {"kid": "a\nb"}, {"alg": 1}, {"alg": "RS256"},
        )
    ),
    *(pem_of(key) for key in (ec.generate_private_key(ec.SECP256K1()), dsa.generate_private_key(1024))),
    pem_of(x25519.X25519PrivateKey.generate()), PEM.replace("PRIVATE", "ENCRYPTED PRIVATE"), PEM + "ENCRYPTED",
    PEM.replace("\n-----END", "AAAA\n-----END"), "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
    "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", "-----BEGIN PRIVATE KEY-----" + "A" * 70_000,
    "", "not a key", "{", "{}", '{"keys": []}', '["kty"]', "correct horse battery staple, correct horse battery staple",
]  # fmt: skip


@pytest.mark.parametrize("text", UNUSABLE, ids=range(len(UNUSABLE)))
def test_what_is_no_sound_signing_key_is_refused_and_not_shown_even_with_all_variables(text):
    shown, middle = traceback_with_variables(refusal_of(text)), len(text) // 2

    assert "source_name = " in shown
    assert len(text) < 20 or text[middle - 5 : middle + 5] not in shown


def test_a_key_id_has_1024_characters_at_most():
    assert parse(jwk_of(ec_key(), kid="a" * 1024)).key_id == "a" * 1024
    refusal_of(jwk_of(ec_key(), kid="a" * 1025))


def test_a_certificate_beside_the_key_is_named_by_its_sha_256_thumbprint():
    own = certificate_of(rsa_key())

    key = parse(f"{certificate_of(rsa_key('authority'))}{pem_of(rsa_key().private)}\nBag Attributes: é\n{own}")

    thumbprint = encode(hashlib.sha256(ssl.PEM_cert_to_DER_cert(own)).digest())
    header = parse_token(sign_jwt(key, {}).reveal()).header
    assert dict(header) == {"alg": "RS256", "typ": "JWT", "x5t#S256": thumbprint}


@pytest.mark.parametrize(
    "certificate",
    ["-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "-----BEGIN CERTIFICATE-----", None],
)
def test_a_certificate_that_is_damaged_or_another_key_s_is_refused(certificate):
    beside = certificate_of(rsa_key("authority")) if certificate is None else certificate

    assert "certificate" in refusal_of(pem_of(rsa_key().private) + beside).remedy


def certificate_of(key):
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "lake")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).serial_number(1)
    builder = (
        builder.not_valid_before(NOW).not_valid_after(NOW + timedelta(days=1)).public_key(key.private.public_key())
    )
    return builder.sign(key.private, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def test_a_private_key_is_neither_shown_nor_pickled():
    key = parse(jwk_of(ec_key()))

    assert str(json.loads(jwk_of(ec_key()))["d"]) not in repr(key)
    with pytest.raises(TypeError):
        pickle.dumps(key)


@given(position=st.integers(0, len(PEM) - 1), character=st.characters(codec="utf-8"))
def test_no_damage_to_a_key_raises_anything_else(position, character):
    with suppress(ConfigurationError):
        parse(PEM[:position] + character + PEM[position + 1 :])
