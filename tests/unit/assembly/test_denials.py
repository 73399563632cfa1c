"""Where a server's denials are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.assembly.denials import open_deny_list
from micromegas_jupyter.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


def test_they_are_in_the_lake(tmp_path: Path) -> None:
    deny_list = open_deny_list({}, lake=tmp_path, recorder=lambda: None)

    assert deny_list is not None
    deny_list.add("client = 'x'", "a reason", created_by="root")
    assert (tmp_path / "query_denials.json").exists()


def test_a_folder_that_is_not_written_to_has_none(tmp_path: Path) -> None:
    assert open_deny_list({}, lake=None, recorder=lambda: None) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("has_lake", [True, False])
def test_a_configured_file_wins(tmp_path: Path, *, has_lake: bool) -> None:
    file = tmp_path / "denials.json"

    deny_list = open_deny_list(
        {"MICROMEGAS_QUERY_DENIALS_FILE": str(file)}, lake=tmp_path if has_lake else None, recorder=lambda: None
    )

    assert deny_list is not None
    deny_list.add("client = 'x'", "a reason", created_by="root")
    assert file.exists()


def test_a_relative_name_is_refused() -> None:
    with pytest.raises(ConfigurationError) as refused:
        open_deny_list({"MICROMEGAS_QUERY_DENIALS_FILE": "denials.json"}, lake=None, recorder=lambda: None)

    assert refused.value.key == "MICROMEGAS_QUERY_DENIALS_FILE"
