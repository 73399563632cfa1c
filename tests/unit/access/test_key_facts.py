"""Tests of `access.key_facts`."""

import hashlib
from datetime import timedelta

import pytest

from micromegas_jupyter.access.api_keys import find_keys, key_digest, key_id, key_state
from micromegas_jupyter.config.access import ApiKeySetting
from micromegas_jupyter.core.secrets import Secret
from micromegas_jupyter.errors import UsageError

FIRST = ApiKeySetting(name="report", sha256=bytes.fromhex("11" * 32))
SECOND = ApiKeySetting(name="report", sha256=bytes.fromhex("22" * 32))
THIRD = ApiKeySetting(name="other", sha256=bytes.fromhex("33" * 32))
# Shares eight digits with the third.
FOURTH = ApiKeySetting(name="fourth", sha256=bytes.fromhex("33" * 31 + "34"))
KEYS = (FIRST, SECOND, THIRD, FOURTH)


def test_a_key_has_one_digest_whichever_way_it_is_configured():
    digest = hashlib.sha256(b"key").digest()

    plain, hashed = ApiKeySetting(name="a", key=Secret("key")), ApiKeySetting(name="a", sha256=digest)

    assert key_digest(plain) == key_digest(hashed) == digest
    assert key_id(plain) == digest.hex()[:8]


def test_a_state_follows_from_the_times(clock):
    def state(**times: object) -> str:
        return key_state(ApiKeySetting(name="a", sha256=b"", **times), now=clock.now())

    assert state() == "valid"
    assert state(expires_at=clock.now() + timedelta(seconds=1)) == "valid"
    assert state(expires_at=clock.now()) == "expired"
    assert state(expires_at=clock.now(), revoked_at=clock.now()) == "revoked"


def test_a_name_means_all_its_keys():
    assert find_keys(KEYS, "report") == [FIRST, SECOND]


@pytest.mark.parametrize("wanted", ["22222222", "222222222222", "22" * 32])
def test_an_id_means_one_key(wanted):
    assert find_keys(KEYS, wanted) == [SECOND]


def test_an_id_may_be_written_in_capitals():
    key = ApiKeySetting(name="a", sha256=bytes.fromhex("ab" * 32))

    assert find_keys([key], "ABABABAB") == [key]


@pytest.mark.parametrize("wanted", ["2222222", "44444444", "repor", "", "22" * 33])
def test_what_no_key_has_is_an_error_that_does_not_repeat_it(wanted):
    with pytest.raises(UsageError, match="No key") as caught:
        find_keys(KEYS, wanted)

    assert not wanted or wanted not in str(caught.value)


def test_an_id_of_two_keys_is_an_error_and_more_digits_help():
    with pytest.raises(UsageError, match="several"):
        find_keys(KEYS, "33333333")

    assert find_keys(KEYS, "33" * 31 + "34") == [FOURTH]


def test_a_name_that_is_the_id_of_another_key_is_an_error():
    named = ApiKeySetting(name="11111111", sha256=bytes.fromhex("55" * 32))

    with pytest.raises(UsageError, match="several"):
        find_keys((*KEYS, named), "11111111")
