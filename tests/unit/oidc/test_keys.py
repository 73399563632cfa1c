"""Tests of `oidc.keys`."""

import pytest

from micromegas_jupyter.errors import ProviderMisbehaved
from micromegas_jupyter.oidc.jws import MAX_KEYS, parse_key_set
from tests.fakes.mint import ec_key, ed448_key, ed25519_key, encode, encode_number, rsa_key


def test_keys_of_all_accepted_kinds_are_imported_in_order():
    keys = parse_key_set({"keys": [rsa_key().jwk(), ec_key().jwk(), ed25519_key().jwk(), ed448_key().jwk()]})

    assert [(key.key_type, key.curve, key.key_id, key.algorithm) for key in keys.keys] == [
        ("RSA", None, "rsa", "RS256"),
        ("EC", "P-256", "ec", "ES256"),
        ("OKP", "Ed25519", "ed", "EdDSA"),
        ("OKP", "Ed448", "ed448", "EdDSA"),
    ]
    assert keys.ignored_count == 0


def test_name_use_and_algorithm_may_be_absent():
    keys = parse_key_set({"keys": [rsa_key().jwk(kid=None, use=None, alg=None)]})

    assert (keys.keys[0].key_id, keys.keys[0].algorithm) == (None, None)


def test_members_that_nobody_needs_do_not_cost_the_key():
    keys = parse_key_set({"keys": [rsa_key().jwk(x5u=5, x5c="?", x5t=[], extra={"a": 1})]})

    assert len(keys.keys) == 1


def test_the_usual_slip_for_es512_means_es512():
    keys = parse_key_set({"keys": [ec_key("slip", "P-521").jwk(alg="ES521")]})

    assert keys.keys[0].algorithm == "ES512"


def _roca_like_modulus() -> int:
    # A number that is a power of 65537 modulo each odd prime up to 167, built by the Chinese remainder theorem.
    primes = [number for number in range(3, 168) if all(number % smaller for smaller in range(2, number))]
    product = 1
    for prime in primes:
        product *= prime
    candidate = pow(65537, 1000, product)
    step = 2 * product
    start = candidate if candidate % 2 else candidate + product
    return start + step * ((2**2047 - start) // step + 1)


@pytest.mark.parametrize(
    "unusable",
    [
        pytest.param(None, id="null"),
        pytest.param("key", id="text"),
        pytest.param([], id="list"),
        pytest.param({}, id="empty object"),
        pytest.param({"kty": "oct", "k": "c2VjcmV0"}, id="symmetric"),
        pytest.param({"kty": "AKP", "alg": "ML-DSA-44"}, id="unknown type"),
        pytest.param({"kty": ["RSA"]}, id="type is a list"),
        pytest.param(rsa_key().jwk(d="AQAB"), id="private part"),
        pytest.param(ec_key().jwk(d="AQAB"), id="private part of a curve key"),
        pytest.param(rsa_key().jwk(oth=[]), id="other primes"),
        pytest.param(rsa_key().jwk(use="enc"), id="for encryption"),
        pytest.param(rsa_key().jwk(use=1), id="use is a number"),
        pytest.param(rsa_key().jwk(key_ops=["encrypt"]), id="for another operation"),
        pytest.param(rsa_key().jwk(key_ops="verify"), id="operations are text"),
        pytest.param(rsa_key().jwk(kid=5), id="name is a number"),
        pytest.param(rsa_key().jwk(alg=["RS256"]), id="algorithm is a list"),
        pytest.param(rsa_key().jwk(n=None), id="no modulus"),
        pytest.param(rsa_key().jwk(n=""), id="empty modulus"),
        pytest.param(rsa_key().jwk(n=5), id="modulus is a number"),
        pytest.param(rsa_key().jwk(n="A" * 3000), id="endless modulus"),
        pytest.param(rsa_key().jwk(n="?!"), id="modulus is not base64url"),
        pytest.param(rsa_key().jwk(n="é" * 400), id="modulus is not ASCII"),
        pytest.param(rsa_key().jwk(n=encode_number((1 << 1023) + 1)), id="1024 bits"),
        pytest.param(rsa_key().jwk(n=encode_number((1 << 2046) + 1)), id="2047 bits"),
        pytest.param(rsa_key().jwk(n=encode_number((1 << 8192) + 1)), id="8193 bits"),
        pytest.param(rsa_key().jwk(n=encode_number(1 << 2047)), id="even modulus"),
        pytest.param(rsa_key().jwk(n=encode_number(_roca_like_modulus())), id="broken generator"),
        pytest.param(rsa_key().jwk(e=encode_number(1)), id="exponent one"),
        pytest.param(rsa_key().jwk(e=encode_number(65536)), id="even exponent"),
        pytest.param(rsa_key().jwk(e=encode_number((1 << 64) + 1)), id="endless exponent"),
        pytest.param(ec_key().jwk(y=ec_key().jwk()["x"]), id="point off the curve"),
        pytest.param(ec_key().jwk(crv="P-384"), id="another curve's point"),
        pytest.param(ec_key().jwk(crv="secp256k1"), id="curve that no algorithm uses"),
        pytest.param(ec_key().jwk(crv=["P-256"]), id="curve is a list"),
        pytest.param(ec_key().jwk(crv=None), id="no curve"),
        pytest.param(ec_key().jwk(kty="RSA"), id="curve key called RSA"),
        pytest.param(ed25519_key().jwk(x=encode(b"short")), id="Ed25519 key of five bytes"),
        pytest.param(ed25519_key().jwk(crv="X25519"), id="key agreement"),
    ],
)
def test_an_unusable_key_is_left_out_and_the_others_stay(unusable):
    keys = parse_key_set({"keys": [unusable, ec_key().jwk()]})

    assert [key.key_id for key in keys.keys] == ["ec"]
    assert keys.ignored_count == 1


def test_keys_after_the_first_thousand_are_left_out():
    keys = parse_key_set({"keys": [ec_key().jwk()] * (MAX_KEYS + 5)})

    assert (len(keys.keys), keys.ignored_count) == (1000, 5)


def test_a_set_of_only_unusable_keys_is_empty():
    keys = parse_key_set({"keys": [{"kty": "oct"}]})

    assert (keys.keys, keys.ignored_count) == ((), 1)


@pytest.mark.parametrize("document", [None, [], "keys", {}, {"keys": {}}, {"keys": None}, {"keys": []}])
def test_a_document_without_keys_is_the_providers_fault(document):
    with pytest.raises(ProviderMisbehaved):
        parse_key_set(document)


def test_all_keys_of_one_name_are_kept_and_a_bad_one_costs_none_of_them():
    keys = parse_key_set({"keys": [rsa_key().jwk(kid="one", e="AAAA"), rsa_key().jwk(kid="one"), ec_key("one").jwk()]})

    assert [(key.key_id, key.key_type) for key in keys.keys] == [("one", "RSA"), ("one", "EC")]


@pytest.mark.parametrize("bits", [2048, 3072, 4096])
def test_an_rsa_key_of_usual_size_is_imported(bits):
    keys = parse_key_set({"keys": [rsa_key(f"rsa{bits}", bits=bits).jwk()]})

    assert len(keys.keys) == 1


class TestSmallOrder:
    """Points for which anybody can write signatures: their order divides the curve's cofactor."""

    P25519 = 2**255 - 19
    P448 = 2**448 - 2**224 - 1
    # Of order eight; its square root of the curve's equation is checked below.
    Y8 = int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little")

    def test_the_literal_above_is_a_point_of_order_eight(self):
        prime = self.P25519
        d = -121665 * pow(121666, -1, prime)
        x_squared = (self.Y8**2 - 1) * pow(d * self.Y8**2 + 1, -1, prime) % prime

        # Doubling gives y = (x² + y²) / (1 - d x² y²): here zero, which is a point of order four.
        assert pow(x_squared, (prime - 1) // 2, prime) == 1
        assert (x_squared + self.Y8**2) % prime == 0

    @pytest.mark.parametrize("sign", [0, 1 << 255])
    @pytest.mark.parametrize("y", [0, 1, P25519 - 1, Y8, P25519 - Y8, P25519, P25519 + 1])
    def test_such_an_ed25519_key_is_left_out(self, y, sign):
        keys = parse_key_set({"keys": [ed25519_key().jwk(x=encode((y | sign).to_bytes(32, "little"))), ec_key().jwk()]})

        assert [key.key_id for key in keys.keys] == ["ec"]

    @pytest.mark.parametrize("sign", [0, 1 << 455])
    @pytest.mark.parametrize("y", [0, 1, P448 - 1])
    def test_such_an_ed448_key_is_left_out(self, y, sign):
        keys = parse_key_set({"keys": [ed448_key().jwk(x=encode((y | sign).to_bytes(57, "little"))), ec_key().jwk()]})

        assert [key.key_id for key in keys.keys] == ["ec"]


class TestIssuerOfAKey:
    """A provider with many tenants says for each key whose tokens it signs."""

    ISSUER = "https://login.example.com/t1/v2.0"

    def names(self, *issuers: object, tenant: str | None = "t1") -> list[str | None]:
        listed = [ec_key(str(number)).jwk(issuer=issuer) for number, issuer in enumerate(issuers)]
        return [key.key_id for key in parse_key_set({"keys": listed}, issuer=self.ISSUER, tenant=tenant).keys]

    def test_keys_for_this_tenant_for_all_tenants_and_for_nobody_in_particular_are_used(self):
        assert self.names(self.ISSUER, "https://login.example.com/{tenantid}/v2.0", None) == ["0", "1", "2"]

    def test_other_tenants_keys_are_left_out_and_the_rest_stays(self):
        assert self.names("https://login.example.com/t2/v2.0", self.ISSUER) == ["1"]

    def test_an_issuer_that_is_no_text_costs_the_key(self):
        assert self.names(1, [self.ISSUER], {"a": 1}, self.ISSUER) == ["3"]

    def test_without_a_tenant_the_place_for_it_means_nothing(self):
        assert self.names("https://login.example.com/{tenantid}/v2.0", self.ISSUER, tenant=None) == ["1"]

    def test_the_place_alone_does_not_make_another_issuer_ours(self):
        assert self.names("https://evil.example.com/{tenantid}/v2.0", "{tenantid}") == []

    def test_whoever_does_not_say_the_issuer_gets_all_keys(self):
        assert len(parse_key_set({"keys": [ec_key().jwk(issuer="https://evil.example")]}).keys) == 1
