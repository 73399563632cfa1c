"""Tests of `access.api_keys`."""

import dataclasses
import hashlib
import logging
import os
import stat
from datetime import timedelta

import pytest
from filelock import FileLock

from micromegas_jupyter.access import ApiKeyValidator, AuthContext, AuthType, Rejected
from micromegas_jupyter.access import api_keys as key_file
from micromegas_jupyter.access.api_keys import KeyFile, daily_warnings, find_keys, key_state, make_api_key
from micromegas_jupyter.access.validator import Roles
from micromegas_jupyter.config.access import ApiKeySetting, LegacyApiKeys, RoleSetting
from micromegas_jupyter.core.protocols import TableAccess, WriteAccess
from micromegas_jupyter.core.system import SYSTEM_RANDOMNESS, Secret
from micromegas_jupyter.errors import ConfigurationError, Unavailable, UsageError
from tests.fakes.mint import NOW

KEY = "mmk_8c1f0a6de2b94b7f"
ONE_DAY_SECONDS = 24 * 3600
DIGEST = hashlib.sha256(KEY.encode()).digest()
PLAIN = ApiKeySetting(name="grafana", key=Secret(KEY))
HASHED = ApiKeySetting(name="grafana", sha256=DIGEST)


def reason_of(validator, token=KEY):
    with pytest.raises(Rejected) as caught:
        validator.validate_token(token)
    assert validator.cached_context(token) is None
    return caught.value.reason


def warnings_of(caplog):
    return [vars(record)["subject"] for record in caplog.records if "plain text" in record.message]


@pytest.fixture(autouse=True)
def _see_warnings(caplog):
    with caplog.at_level(logging.WARNING, "micromegas_jupyter.access"):
        yield


@pytest.mark.parametrize("setting", [PLAIN, HASHED], ids=["plain", "hashed"])
def test_a_key_gives_its_name_may_delegate_and_never_administers(setting):
    validator = ApiKeyValidator([setting], legacy=LegacyApiKeys.ON)

    assert validator.validate_token(KEY) == AuthContext(
        subject="grafana", issuer="api_key", auth_type=AuthType.API_KEY, may_delegate=True
    )


@pytest.mark.parametrize(
    "token", ["", KEY[:-1], KEY + "x", KEY.upper(), f" {KEY}", f"{KEY}\0", "grafana", "\ud800", DIGEST.hex()]
)
@pytest.mark.parametrize("setting", [PLAIN, HASHED], ids=["plain", "hashed"])
def test_anything_else_is_rejected(setting, token):
    assert reason_of(ApiKeyValidator([setting]), token) == "unknown_api_key"


@pytest.mark.parametrize(
    "keys",
    [(PLAIN, PLAIN), (HASHED, HASHED), (PLAIN, HASHED), (HASHED, dataclasses.replace(PLAIN, name="other"))],
)
def test_one_key_twice_is_refused_at_start_without_showing_it(keys):
    with pytest.raises(ConfigurationError, match="twice") as caught:
        ApiKeyValidator(keys)

    assert KEY not in str(caught.value)
    assert caught.value.key == "MICROMEGAS_API_KEYS"


@pytest.mark.parametrize(
    "members", [{"key": Secret("")}, {}, {"key": Secret(KEY), "sha256": DIGEST}, {"sha256": DIGEST[:-1]}]
)
def test_what_is_not_one_key_is_refused_at_start(members):
    with pytest.raises(ConfigurationError, match="'x'"):
        ApiKeyValidator([ApiKeySetting(name="x", **members)])


def test_a_key_that_expired_is_refused(clock):
    ends_at = clock.now() + timedelta(seconds=60)
    validator = ApiKeyValidator([dataclasses.replace(HASHED, expires_at=ends_at)], clock=clock)

    clock.advance(59.9)
    assert validator.validate_token(KEY).expires_at == ends_at
    assert validator.cached_context(KEY) is not None
    clock.advance(0.1)
    assert reason_of(validator) == "api_key_expired"


def test_the_bearer_of_a_key_is_told_of_its_end_two_weeks_before_and_the_log_once_a_day(clock, caplog):
    ends_at = NOW + timedelta(days=20)
    validator = ApiKeyValidator([dataclasses.replace(HASHED, expires_at=ends_at)], clock=clock)

    clock.advance(6 * ONE_DAY_SECONDS - 1)
    assert validator.cached_context(KEY).notice is None
    clock.advance(1)
    notices = {validator.cached_context(KEY).notice, validator.validate_token(KEY).notice}

    assert [f"{ends_at:%Y-%m-%d}" in notice for notice in notices] == [True]
    assert [vars(record)["subject"] for record in caplog.records if "ends soon" in record.message] == ["grafana"]


@pytest.mark.parametrize(
    ("setting", "options", "reason"),
    [
        (dataclasses.replace(HASHED, revoked_at=NOW), {}, "api_key_revoked"),
        (HASHED, {"denied": frozenset({"grafana"})}, "denied"),
        (PLAIN, {"legacy": LegacyApiKeys.REFUSE}, "legacy_api_key_refused"),
        # Where there are no roles, a key that names one would read everything.
        (dataclasses.replace(HASHED, roles=("ops",)), {}, "api_key_roles_not_configured"),
    ],
)
def test_a_key_that_may_not_be_used_is_refused_for_its_reason_and_others_are_not(setting, options, reason):
    other = ApiKeySetting(name="other", sha256=hashlib.sha256(b"other").digest())
    validator = ApiKeyValidator([setting, other], **options)

    assert reason_of(validator) == reason
    assert validator.validate_token("other").subject == "other"


@pytest.mark.parametrize(
    ("scopes", "expected"),
    [
        ({"read"}, WriteAccess()),
        ({"read", "write"}, WriteAccess(ingest=frozenset({"orders"}), owns=frozenset({"team_*"}))),
        ({"ingest"}, WriteAccess(ingest=frozenset({"*"}), creates=frozenset({"*"}))),
        ({"ingest:a", "ingest:b_*"}, WriteAccess(ingest=frozenset({"a", "b_*"}), creates=frozenset({"a", "b_*"}))),
    ],
)
def test_what_roles_let_a_key_write_to_needs_the_scope_for_it(scopes, expected):
    rights = Roles({"team": RoleSetting(ingest=frozenset({"orders"}), owns=frozenset({"team_*"}))})
    setting = dataclasses.replace(HASHED, roles=("team",), scopes=frozenset(scopes))

    assert ApiKeyValidator([setting], roles=rights).validate_token(KEY).write_access == expected


def test_roles_decide_what_the_bearer_may_read():
    rights = Roles({"ops": RoleSetting(tables={"logs": "level <= 2"}), "all": RoleSetting()}, ["all"])
    setting = dataclasses.replace(HASHED, roles=("ops", "gone"))

    context = ApiKeyValidator([setting], roles=rights).validate_token(KEY)

    assert context.roles == ("ops", "all")
    assert context.table_access == TableAccess(filters={"logs": ("level <= 2",)})


def test_a_file_full_of_such_roles_costs_a_limited_number_of_lines(caplog, clock, monkeypatch):
    monkeypatch.setattr(key_file, "_MAX_ROLE_WARNINGS", 3)
    setting = dataclasses.replace(HASHED, roles=tuple("abcde"))

    ApiKeyValidator([setting], roles=Roles(), clock=clock, warnings=daily_warnings(clock))

    assert [vars(record)["role"] for record in caplog.records] == ["a", "b", "c"]


def test_a_role_that_is_not_configured_counts_for_nothing_and_is_told_once_a_day(caplog, clock):
    rights, warnings = Roles({"ops": RoleSetting(tables={"logs": None})}), daily_warnings(clock)
    setting = dataclasses.replace(HASHED, roles=("typo",))

    for _ in range(3):
        validator = ApiKeyValidator([setting], roles=rights, clock=clock, warnings=warnings)

    assert validator.validate_token(KEY).table_access == TableAccess(filters={})
    (event,) = [vars(record) for record in caplog.records]
    assert (event["subject"], event["credential"], event["role"]) == ("grafana", DIGEST.hex()[:8], "typo")


def test_the_log_warns_of_plain_text_once_per_key_and_day_however_they_are_looked_up(caplog, clock):
    validator = ApiKeyValidator([PLAIN, ApiKeySetting(name="other", key=Secret(KEY + "2"))], clock=clock)
    for _ in range(3):
        validator.cached_context(KEY)
        validator.validate_token(KEY)
        validator.cached_context(KEY + "2")
        clock.advance(ONE_DAY_SECONDS / 4)
    before = warnings_of(caplog)
    clock.advance(ONE_DAY_SECONDS / 4)

    validator.cached_context(KEY)

    assert (before, warnings_of(caplog)) == (["grafana", "other"], ["grafana", "other", "grafana"])


@pytest.mark.parametrize(
    ("times", "state"),
    [
        ({}, "valid"), ({"expires_at": NOW + timedelta(seconds=1)}, "valid"), ({"expires_at": NOW}, "expired"),
        ({"expires_at": NOW, "revoked_at": NOW}, "revoked"),
    ],
)  # fmt: skip
def test_the_state_of_a_key_follows_from_its_times(times, state):
    assert key_state(dataclasses.replace(HASHED, **times), now=NOW) == state


# The fourth shares eight digits with the third, and its name is the id of the first.
FOUR_KEYS = [
    ApiKeySetting(name=name, sha256=bytes.fromhex(digest))
    for name, digest in (
        ("report", "11" * 32), ("report", "ab" * 32), ("other", "33" * 32), ("11111111", "33" * 31 + "34")
    )
]  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "positions"),
    [("report", [0, 1]), ("abababab", [1]), ("ABABABAB", [1]), ("ab" * 32, [1]), ("33" * 31 + "34", [3])],
)
def test_a_name_means_all_its_keys_and_an_id_one(wanted, positions):
    assert find_keys(FOUR_KEYS, wanted) == [FOUR_KEYS[position] for position in positions]


@pytest.mark.parametrize("wanted", ["abababa", "44444444", "repor", "", "ab" * 33])
def test_what_no_key_has_is_an_error_that_does_not_repeat_it(wanted):
    with pytest.raises(UsageError, match="No key") as caught:
        find_keys(FOUR_KEYS, wanted)

    assert not wanted or wanted not in str(caught.value)


@pytest.mark.parametrize(("wanted", "ids"), [("33333333", ["33" * 8, "33" * 8]), ("11111111", ["33" * 8, "11" * 8])])
def test_what_could_mean_several_keys_is_an_error_with_their_longer_ids(wanted, ids):
    with pytest.raises(UsageError, match=rf"several keys: {', '.join(ids)}\.") as caught:
        find_keys(FOUR_KEYS, wanted)

    assert "more digits" in caught.value.remedy


def add(path):
    made = make_api_key("report", randomness=SYSTEM_RANDOMNESS, now=NOW, scopes=frozenset({"read"}))
    KeyFile(path).change(lambda keys: (*keys, made.setting), creates=True)
    return made


@pytest.fixture
def path(tmp_path):
    return tmp_path / "keys.json"


def test_the_file_holds_no_key_and_belongs_to_its_owner_alone(path):
    for use in (KeyFile(path).load, lambda: KeyFile(path).change(lambda keys: keys)):
        with pytest.raises(UsageError, match="keys create"):
            use()
    before = os.umask(0)
    try:
        made = add(path)
    finally:
        os.umask(before)

    assert made.secret.reveal() not in path.read_text()
    assert {stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()} == {0o600}


@pytest.mark.parametrize(
    "content",
    [
        b"", b"[", b"{}", b'[{"name": "x"}]', b'[{"name": "x", "key": "k", "colour": "red"}]', b"\xff",
        b'[{"name": "x", "key": "k"}, {"name": "y", "key": "k"}]',
    ],
)  # fmt: skip
def test_a_file_that_is_no_list_of_keys_is_refused_and_left_as_it_is(path, content):
    path.write_bytes(content)

    with pytest.raises(ConfigurationError, match=r"keys\.json"):
        KeyFile(path).load()
    with pytest.raises(ConfigurationError, match=r"keys\.json"):
        add(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "make", [lambda path: path.symlink_to("target"), os.mkfifo, os.mkdir], ids=["link", "pipe", "folder"]
)
@pytest.mark.parametrize("name", ["keys.json", "keys.json.lock"])
def test_what_is_not_a_regular_file_is_not_used(tmp_path, make, name):
    make(tmp_path / name)

    with pytest.raises(UsageError):
        add(tmp_path / "keys.json")

    assert not (tmp_path / "target").exists()


def test_waiting_for_another_writer_ends(path, monkeypatch):
    monkeypatch.setattr(key_file, "LOCK_TIMEOUT_SECONDS", 0.05)

    with FileLock(f"{path}.lock"), pytest.raises(Unavailable):
        add(path)
