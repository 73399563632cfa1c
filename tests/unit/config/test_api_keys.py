"""Tests of `settings.access`."""

import hashlib
import json
from datetime import UTC, datetime

import pytest

from micromegas_jupyter.config.access import (
    ApiKeySetting,
    check_distinct,
    parse_api_keys,
    read_api_keys,
    render_api_keys,
)
from micromegas_jupyter.core.secrets import Secret
from micromegas_jupyter.errors import ConfigurationError

DIGEST = hashlib.sha256(b"hunter2").digest()
HEX = DIGEST.hex()


def parse(*entries: object) -> tuple[ApiKeySetting, ...]:
    return parse_api_keys(json.dumps(entries), "KEYS")


def refusal(*entries: object) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        parse(*entries)
    return caught.value


def test_upstreams_form_is_a_plain_key_for_reading():
    assert parse({"name": "grafana", "key": "hunter2"}) == (
        ApiKeySetting(name="grafana", key=Secret("hunter2"), scopes=frozenset({"read"})),
    )


def test_every_member_is_read():
    entry = {
        "name": "collector",
        "sha256": HEX.upper(),
        "expires_at": "2027-01-31T12:00:00Z",
        "scopes": ["read", "ingest"],
        "roles": ["viewer"],
        "created_at": "2026-01-31T13:00:00+01:00",
        "revoked_at": "2026-06-01T00:00:00.5Z",
    }

    assert parse(entry) == (
        ApiKeySetting(
            name="collector",
            sha256=DIGEST,
            expires_at=datetime(2027, 1, 31, 12, 0, tzinfo=UTC),
            scopes=frozenset({"read", "ingest"}),
            roles=("viewer",),
            created_at=datetime(2026, 1, 31, 12, 0, tzinfo=UTC),
            revoked_at=datetime(2026, 6, 1, 0, 0, 0, 500_000, tzinfo=UTC),
        ),
    )


def test_two_keys_may_share_a_name():
    assert [key.name for key in parse({"name": "a", "key": "old"}, {"name": "a", "key": "new"})] == ["a", "a"]


def test_no_keys_is_a_list():
    assert parse() == ()


@pytest.mark.parametrize("first", [{"key": "hunter2"}, {"sha256": HEX}])
@pytest.mark.parametrize("second", [{"key": "hunter2"}, {"sha256": HEX}, {"sha256": HEX.upper()}])
def test_a_key_that_stands_twice_in_any_form_is_refused_with_both_places(first, second):
    error = refusal({"name": "other", "key": "other"}, {"name": "a", **first}, {"name": "b", **second})

    assert error.key == "KEYS[2]"
    assert "KEYS[1]" in str(error)
    assert "hunter2" not in str(error)


@pytest.mark.parametrize(
    ("members", "key"),
    [
        ({}, "KEYS[0].key"),
        ({"key": ""}, "KEYS[0].key"),
        ({"key": " "}, "KEYS[0].key"),
        ({"key": None}, "KEYS[0].key"),
        ({"key": "hunter2", "sha256": HEX}, "KEYS[0]"),
        ({"sha256": ""}, "KEYS[0].sha256"),
        ({"sha256": HEX[:-1]}, "KEYS[0].sha256"),
        ({"sha256": HEX[:-1] + "g"}, "KEYS[0].sha256"),
        ({"sha256": HEX[:-2] + " 0"}, "KEYS[0].sha256"),
        ({"sha256": 5}, "KEYS[0].sha256"),
        ({"sha256": hashlib.sha256(b"").hexdigest()}, "KEYS[0].sha256"),
        ({"key": "hunter2", "expires_at": "2027-01-31T12:00:00"}, "KEYS[0].expires_at"),
        ({"key": "hunter2", "expires_at": None}, "KEYS[0].expires_at"),
        ({"key": "hunter2", "created_at": 5}, "KEYS[0].created_at"),
        ({"key": "hunter2", "revoked_at": True}, "KEYS[0].revoked_at"),
        ({"key": "hunter2", "scopes": []}, "KEYS[0].scopes"),
        ({"key": "hunter2", "scopes": "read"}, "KEYS[0].scopes"),
        ({"key": "hunter2", "scopes": ["read", "admin"]}, "KEYS[0].scopes[1]"),
        ({"key": "hunter2", "roles": []}, "KEYS[0].roles"),
        ({"key": "hunter2", "roles": [""]}, "KEYS[0].roles[0]"),
        ({"key": "hunter2", "name": ""}, "KEYS[0].name"),
        ({"key": "hunter2", "name": "a\nb"}, "KEYS[0].name"),
    ],
)
def test_a_malformed_entry_is_refused_by_its_place_and_without_the_key(members, key):
    error = refusal({"name": "grafana", **members})

    assert error.key == key
    assert "hunter2" not in str(error)


def test_an_unknown_name_is_refused_and_not_shown_since_it_may_be_the_key():
    error = refusal({"hunter2": "grafana"})

    assert error.key == "KEYS[0]"
    assert "hunter2" not in str(error)


@pytest.mark.parametrize("text", ["", "hunter2", "{}", '{"name": "a", "key": "hunter2"}', "null", '"hunter2"'])
def test_a_text_that_is_no_list_is_refused(text):
    with pytest.raises(ConfigurationError) as caught:
        parse_api_keys(text, "KEYS")

    assert caught.value.key == "KEYS"
    assert "hunter2" not in str(caught.value)


def test_more_keys_than_the_limit_are_refused():
    with pytest.raises(ConfigurationError, match="KEYS holds more than 100000 keys"):
        read_api_keys([None] * 100_001, "KEYS")


def test_more_keys_than_the_limit_in_all_are_refused():
    keys = [(ApiKeySetting(name="a", sha256=number.to_bytes(32, "big")), str(number)) for number in range(100_001)]
    check_distinct(keys[:100_000])

    with pytest.raises(ConfigurationError, match="more than 100000 API keys in all"):
        check_distinct(keys)


def test_any_role_may_be_named_since_one_bad_entry_must_not_keep_the_others_from_being_read():
    entries = [{"name": "a", "key": "x", "roles": ["viewer", "editor"]}]

    assert read_api_keys(entries, "KEYS")[0].roles == ("viewer", "editor")


def test_what_is_rendered_reads_back_sorted_by_name_and_stable():
    keys = (
        ApiKeySetting(name="zoë", key=Secret("plain")),
        ApiKeySetting(
            name="a",
            sha256=DIGEST,
            expires_at=datetime(2027, 1, 31, 12, 0, tzinfo=UTC),
            scopes=frozenset({"read", "ingest"}),
            roles=("viewer",),
            created_at=datetime(2026, 1, 31, 12, 0, 0, 1, tzinfo=UTC),
            revoked_at=datetime(2026, 6, 1, tzinfo=UTC),
        ),
        ApiKeySetting(name="a", sha256=hashlib.sha256(b"second").digest()),
    )

    text = render_api_keys(keys)

    assert parse_api_keys(text, "KEYS") == (keys[1], keys[2], keys[0])
    assert render_api_keys(parse_api_keys(text, "KEYS")) == text


def test_the_text_of_a_key_file_is_indented_and_ends_in_a_line_break():
    text = render_api_keys([ApiKeySetting(name="a", sha256=DIGEST, roles=("viewer",))])

    assert text == (
        f'[\n  {{\n    "name": "a",\n    "sha256": "{HEX}",\n    "roles": [\n      "viewer"\n    ]\n  }}\n]\n'
    )


def test_scopes_that_every_key_has_are_not_written():
    assert "scopes" not in render_api_keys([ApiKeySetting(name="a", sha256=DIGEST)])


@pytest.mark.parametrize(
    "keys",
    [
        [ApiKeySetting(name="a", sha256=DIGEST)] * 100_001,
        [ApiKeySetting(name="a", key=Secret("ä" * 2**23))],
    ],
    ids=["many", "long"],
)
def test_a_file_that_could_not_be_read_back_is_not_rendered(keys):
    with pytest.raises(ConfigurationError, match="more API keys than one key file can hold") as caught:
        render_api_keys(keys)

    assert "Remove" in caught.value.remedy


def test_a_key_is_not_written_where_its_digest_is_enough():
    text = render_api_keys([ApiKeySetting(name="a", key=Secret("hunter2"), sha256=DIGEST)])

    assert "hunter2" not in text
    assert HEX in text


def test_keys_and_digests_are_not_in_the_repr():
    shown = repr(parse({"name": "a", "key": "hunter2"}, {"name": "b", "sha256": "0" * 64}))

    assert "hunter2" not in shown
    assert "00" not in shown
