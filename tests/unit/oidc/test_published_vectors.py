"""Published vectors: the examples of the RFCs always, and Wycheproof's files where they lie beside the repository."""

import json
from pathlib import Path

import msgspec
import pytest

from micromegas_jupyter.oidc import jwt
from micromegas_jupyter.oidc.jwt import parse_key_set, parse_token, verify_signature
from tests.fakes.mint import encode

WYCHEPROOF = Path(__file__).parents[4] / "shared" / "data" / "wycheproof"

_JOE = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
_ED25519 = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
RFC_EXAMPLES = {
    "RFC 7515 appendix A.2": {
        "key": {
            "kty": "RSA",
            "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yR"
            "T-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-U"
            "To7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkM"
            "Ls91kzk2PAcDTW9gb54h4FRWyuXpoQ",
            "e": "AQAB",
        },
        "jws": f"eyJhbGciOiJSUzI1NiJ9.{_JOE}."
        "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJ"
        "dbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN"
        "9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXL"
        "IhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
    },
    "RFC 7515 appendix A.3": {
        "key": {
            "kty": "EC",
            "crv": "P-256",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        },
        "jws": f"eyJhbGciOiJFUzI1NiJ9.{_JOE}."
        "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
    },
    "RFC 7515 appendix A.5: unsecured": {"key": _ED25519, "jws": f"eyJhbGciOiJub25lIn0.{_JOE}."},
    "RFC 8037 appendix A.4": {
        "key": _ED25519,
        "jws": "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc."
        "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
    },
}


def _jws_groups():
    found = []
    for name, example in RFC_EXAMPLES.items():
        test = {"tcId": 1, "jws": example["jws"], "result": "invalid" if "unsecured" in name else "valid"}
        found.append(pytest.param({"public": example["key"], "tests": [test]}, id=name))
    for name in ("json_web_signature_test.json", "json_web_key_test.json", "json_web_crypto_test.json"):
        path = WYCHEPROOF / name
        groups = json.loads(path.read_text())["testGroups"] if path.exists() else []
        # One of the files holds encrypted tokens, too, in groups of their own.
        signed = [group for group in groups if "jws" in group["tests"][0]]
        found += [pytest.param(group, id=f"{name[:-5]}-{group['tests'][0]['tcId']}") for group in signed]
    return found


def _parse_any_payload(jws):
    """Parse a JWS whose payload need not be JSON: with an empty object in its place, under the same signing input."""
    text = jws if isinstance(jws, str) else json.dumps(jws)
    header, payload, signature = text.split(".") if text.count(".") == 2 else ("", "", "")
    jwt.decode_base64url(payload)
    parsed = parse_token(f"{header}.e30.{signature}")
    return msgspec.structs.replace(parsed, signing_input=f"{header}.{payload}".encode())


def _is_expected_to_verify(test, key):
    if test["result"] != "valid":
        return False
    header = test["jws"].partition(".")[0]
    # Valid elsewhere, refused here by rule: symmetric algorithms (Wycheproof's own header holds a `?` in two of them),
    # and figure 20 of RFC 7520, which Wycheproof gives a key for PS256 while the token says PS384.
    is_symmetric = key.get("kty", key.get("keys", [{}])[0].get("kty")) == "oct"
    is_slip = key.get("alg") == "PS256" and b"PS384" in jwt.decode_base64url(header)
    return not is_symmetric and not is_slip


@pytest.mark.parametrize("group", _jws_groups())
def test_each_jws_verifies_exactly_when_it_should(group):
    key = group.get("public") or group["private"]
    keys = parse_key_set(key if "keys" in key else {"keys": [key]})

    for test in group["tests"]:
        try:
            verify_signature(_parse_any_payload(test["jws"]), keys)
            verified = True
        except jwt.TokenProblem:
            verified = False
        assert verified == _is_expected_to_verify(test, key), f"test {test['tcId']}"


RAW_VECTORS = {
    "ecdsa_secp256r1_sha256_p1363_test": "ES256", "ecdsa_secp384r1_sha384_p1363_test": "ES384",
    "ecdsa_secp521r1_sha512_p1363_test": "ES512", "ed25519_test": "EdDSA",
    "rsa_pss_2048_sha256_mgf1_32_test": "PS256", "rsa_pss_4096_sha384_mgf1_48_test": "PS384",
    "rsa_pss_4096_sha512_mgf1_64_test": "PS512", "rsa_signature_2048_sha256_test": "RS256",
    "rsa_signature_3072_sha384_test": "RS384", "rsa_signature_4096_sha512_test": "RS512",
}  # fmt: skip


RFC_8032_SECTION_7_1 = {
    "publicKeyJwk": {"kty": "OKP", "crv": "Ed25519", "x": "PUAXw-hDiVqStwqnTRt-vJyYLM8uxJaMwM1V8Sr0Zgw"},
    "tests": [
        {
            "tcId": 2, "msg": "72", "result": "valid",
            "sig": "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
            "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        }
    ],
}  # fmt: skip


def _raw_groups():
    found = [pytest.param("EdDSA", [RFC_8032_SECTION_7_1], id="RFC 8032 section 7.1")]
    for name, algorithm in RAW_VECTORS.items():
        path = WYCHEPROOF / f"{name}.json"
        if path.exists():
            found.append(pytest.param(algorithm, json.loads(path.read_text())["testGroups"], id=name))
    return found


def _jwk_of(group):
    jwk = group.get("publicKeyJwk") or group.get("keyJwk")
    if jwk is not None:
        return {name: value for name, value in jwk.items() if name != "kid"}
    point = bytes.fromhex(group["publicKey"]["uncompressed"])[1:]
    curve = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}[group["publicKey"]["curve"]]
    half = len(point) // 2
    return {"kty": "EC", "crv": curve, "x": encode(point[:half]), "y": encode(point[half:])}


@pytest.mark.parametrize(("algorithm", "groups"), _raw_groups())
def test_each_raw_signature_verifies_exactly_when_it_should(algorithm, groups):
    for group in groups:
        keys = parse_key_set({"keys": [_jwk_of(group)]})
        for test in group["tests"]:
            message, signature = bytes.fromhex(test["msg"]), bytes.fromhex(test["sig"])
            parsed = jwt.ParsedToken(header={"alg": algorithm}, claims={}, signing_input=message, signature=signature)
            try:
                verify_signature(parsed, keys)
                verdict = "valid"
            except jwt.TokenProblem:
                verdict = "invalid"
            # "acceptable" is one RSA signature whose padding lacks a NULL: either verdict is right.
            assert verdict == test["result"] or test["result"] == "acceptable", f"test {test['tcId']}"
