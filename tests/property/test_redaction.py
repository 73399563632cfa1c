import base64
import json

from hypothesis import given
from hypothesis import strategies as st

from micromegas_jupyter.telemetry.text import bound_text, redact_secrets

_segments = st.binary(min_size=12, max_size=80).map(lambda raw: base64.urlsafe_b64encode(raw).rstrip(b"=").decode())
_headers = st.sampled_from(['{"alg":"RS256"}', '{ "typ":"JWT"}', '{\n"alg":"none"}', '{\t"kid":"1"}', '{"":1}']).map(
    lambda text: base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()
)
_surroundings = st.text(alphabet=" \n\t\"'=:/,;(){}[]<>&?#%äß", max_size=20)
_secrets = st.text(alphabet="abcdefghijklmnopqrstuvwxyzABCDEF0123456789-_", min_size=6, max_size=60)


@given(_surroundings, _headers, _segments, _segments, _surroundings)
def test_no_part_of_a_compact_token_outlives_redaction(before, header, payload, signature, after):
    redacted = redact_secrets(f"{before}{header}.{payload}.{signature}{after}")

    assert payload not in redacted
    assert signature not in redacted


@given(_surroundings, _secrets)
def test_a_bearer_is_masked_whatever_stands_before_it(before, secret):
    assert secret not in redact_secrets(f"{before}Bearer {secret}").replace("Bearer", "")


@given(st.sampled_from(["code", "state", "access_token", "id_token", "token"]), _secrets)
def test_a_secret_in_a_query_is_masked(name, secret):
    redacted = redact_secrets(f"GET https://lab.example/cb?lang=en&{name}={secret}&x=1")

    assert redacted == f"GET https://lab.example/cb?lang=en&{name}=***&x=1"


@given(st.sampled_from(["access_token", "refresh_token", "client_secret"]), _secrets)
def test_a_secret_in_json_is_masked(name, secret):
    assert redact_secrets(json.dumps({name: secret})) == f'{{"{name}": "***"}}'


@given(st.text(max_size=200), st.integers(min_value=16, max_value=64))
def test_bounded_text_is_valid_and_within_its_bound(text, max_bytes):
    assert len(bound_text(text, max_bytes=max_bytes).encode("utf-8")) <= max_bytes
