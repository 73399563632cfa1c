"""What is wrong with a text is a value here; the keys themselves are tried in `test_private_key`."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from micromegas_jupyter.oidc.private_key import KeyMaterial, KeyProblem, read_key_text
from tests.fakes.mint import ec_key

PEM = ec_key().private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "holds neither a PEM key nor a JSON Web Key"),
        ("{", "is not valid JSON"),
        ('{"keys": []}', "holds no JSON Web Key"),
        ('{"kty": "oct"}', "holds a key of a type that cannot sign here"),
        ('{"kty": "EC", "crv": "P-256", "x": "a", "y": "b"}', "holds a public key only"),
        ('{"kty": "EC", "d": "a", "use": "enc"}', "holds a key that is not for signing"),
        ('{"kty": "EC", "d": "a", "crv": ["P-256"]}', "holds a key on a curve that cannot sign here"),
        ('{"kty": "EC", "d": "a", "crv": "P-256"}', "holds a damaged key"),
        (PEM.replace("PRIVATE", "ENCRYPTED PRIVATE"), "holds an encrypted key"),
        (PEM[:60], "holds a damaged key, or one of a type that cannot sign here"),
    ],
)
def test_what_is_wrong_is_said(text: str, what: str) -> None:
    found = read_key_text(text)

    assert isinstance(found, KeyProblem)
    assert found.what == what


def test_a_key_is_found_and_not_shown() -> None:
    found = read_key_text(PEM)

    assert isinstance(found, KeyMaterial)
    assert repr(found) == "KeyMaterial(key_id=None, algorithm=None, certificate_thumbprint=None)"


@given(position=st.integers(0, len(PEM) - 1), character=st.characters(codec="utf-8"))
def test_no_damage_to_a_key_raises_anything(position: int, character: str) -> None:
    found = read_key_text(PEM[:position] + character + PEM[position + 1 :])

    assert isinstance(found, KeyMaterial | KeyProblem)
