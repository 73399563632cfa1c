import pytest

from micromegas_jupyter.telemetry.text import bound_text, is_secret_property, redact_secrets

# Three segments whose header is {"alg":"RS256"}; no key ever made the signature.
TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("calling with Bearer abc now", "calling with Bearer *** now"), (f"got {TOKEN}, fine", "got ***, fine"),
        (f"id_token%3D{TOKEN}%26x=1", "id_token%3D***%26x=1"),
        ("GET /callback?code=abc&state=def&lang=en HTTP/1.1", "GET /callback?code=***&state=***&lang=en HTTP/1.1"),
        ("next=%2Fcb%3Fcode%3Dabc%26lang%3Den", "next=%2Fcb%3Fcode%3D***%26lang%3Den"),
        ("grant_type=refresh_token&refresh_token=abc", "grant_type=refresh_token&refresh_token=***"),
        ("code=SplxlOBeZQQYbYS6WxSbIA&client_secret=x", "code=***&client_secret=***"),
        ('{"access_token": "abc", "expires_in": 5}', '{"access_token": "***", "expires_in": 5}'),
        ("{'id_token': 'abc'}", "{'id_token': '***'}"), (r'"{\"id_token\":\"abc\"}"', r'"{\"id_token\":\"***\"}"'),
        ("('authorization', 'Basic YTpi')", "('authorization', '***')"),
        ("Authorization: Basic YTpi\r\nHost: a", "Authorization: ***\r\nHost: a"),
        ("Set-Cookie: sid=1; Path=/", "Set-Cookie: ***"), (f"cut {TOKEN[:30]}", "cut ***"),
    ],
)  # fmt: skip
def test_secrets_are_masked_and_the_rest_is_kept(text, expected):
    assert redact_secrets(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "exit code=1 state=running", "import micromegas_jupyter.telemetry_tables.definitions_of_tables",
        "survey_processing_module.part_one.part_two", "2026-11-24T12:00:00.123 127.0.0.1:50051 took 1.25 s",
        "SELECT msg FROM log_entries WHERE level <= 3 AND time > now()",
    ],
)  # fmt: skip
def test_text_without_secrets_is_left_alone(text):
    assert redact_secrets(text) == text


@pytest.mark.parametrize("name", ["token", "access_token", "X-Api-Key", "client.secret", "Authorization", "password"])
def test_a_property_that_is_named_like_a_secret_is_one(name):
    assert is_secret_property(name)


@pytest.mark.parametrize("name", ["tokens_used", "user", "secretary", "code", "query_id"])
def test_a_property_that_is_named_otherwise_is_none(name):
    assert not is_secret_property(name)


@pytest.mark.parametrize(
    "text",
    [
        "(b'Set-Cookie', b'hunter2')", "[(b'Authorization', b'Basic hunter2')]",
        "('Proxy-Authorization', 'Basic hunter2')", "[b'X-Api-Key', b'hunter2']",
        "GET / HTTP/1.1\\r\\nAuthorization: Basic hunter2\\r\\nHost: x", "client_secret: hunter2",
        "refresh_token: hunter2", "code_verifier='hunter2'", "MICROMEGAS_OIDC_CLIENT_SECRET=hunter2",
        "micromegas query --client-secret hunter2", "https://user:hunter2@host.example/path",
        '[{"name": "ci", "key": "hunter2"}]',
    ],
)  # fmt: skip
def test_secrets_in_what_libraries_and_people_print_are_masked(text):
    assert "hunter2" not in redact_secrets(text)


@pytest.mark.parametrize(
    ("text", "expected"), [("grün", "grün"), ("ü" * 100, "ü" * 20 + "… [cut]"), ("bad \udcff name", "bad ? name")]
)
def test_text_is_bounded_in_bytes_and_valid(text, expected):
    assert bound_text(text, max_bytes=50 if len(text) > 20 else 20) == expected


@pytest.mark.parametrize(
    "line",
    [*(f'{{"event":"access","outcome":"refused","code":"{code}"}}' for code in ("AUTH010", "AVAIL001", "SQL004")),
     '{"issuer":"api_key","time":"2026-11-24T12:00:00Z"}'],
)  # fmt: skip
def test_an_error_code_of_an_audit_line_and_what_follows_the_name_of_a_secret_are_kept(line):
    assert redact_secrets(line) == line


@pytest.mark.parametrize(
    "code", ["SplxlOBeZQQYbYS6WxSbIA", "auth010", "AUTH010x", "AUTH0101", "4/0AX4XfWi", "AUTH010 and more"]
)
def test_an_authorization_code_in_json_is_masked(code):
    assert redact_secrets(f'{{"code":"{code}","lang":"en"}}') == '{"code":"***","lang":"en"}'
    assert redact_secrets('{"access_token":"AUTH010"}') == '{"access_token":"***"}'
