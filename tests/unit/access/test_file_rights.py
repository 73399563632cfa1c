"""Tests of `access.file_rights`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.access.jwks import check_rights, find_rights_problem, warn_of_group
from micromegas_jupyter.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


def stat_of(path: Path, mode: int) -> os.stat_result:
    path.write_bytes(b"")
    path.chmod(mode)
    return path.stat()


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o640, 0o644, 0o664])
def test_a_file_of_this_account_that_others_cannot_change_is_trusted(tmp_path: Path, mode: int) -> None:
    assert find_rights_problem(stat_of(tmp_path / "file", mode)) is None


def test_a_file_that_everybody_may_change_is_not_trusted_and_the_setting_is_named(tmp_path: Path) -> None:
    found = stat_of(tmp_path / "file", 0o646)

    with pytest.raises(ConfigurationError, match="every user") as caught:
        check_rights(found, setting="FILE.ca_file", any_owner=True)
    assert caught.value.key == "FILE.ca_file"
    assert "chmod o-w" in caught.value.remedy
    assert str(tmp_path) not in str(caught.value)


def test_a_file_of_another_user_is_trusted_only_where_any_owner_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"")
    if os.geteuid() == 0:
        os.chown(path, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)

    assert find_rights_problem(path.stat()) == "belongs to another user"
    assert find_rights_problem(path.stat(), any_owner=True) is None


@pytest.mark.parametrize(("mode", "warned"), [(0o640, []), (0o660, ["FILE"])])
def test_a_file_that_its_group_may_change_leaves_a_warning(
    tmp_path: Path, mode: int, warned: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    warn_of_group(stat_of(tmp_path / "file", mode), setting="FILE")

    assert [vars(record)["setting"] for record in caplog.records] == warned
