"""Where a server's denials are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.wiring.denials import find_denials_file, open_deny_list

if TYPE_CHECKING:
    from pathlib import Path


def test_they_are_in_the_lake(tmp_path: Path) -> None:
    assert find_denials_file({}, lake=tmp_path) == tmp_path / "query_denials.json"


def test_a_folder_that_is_not_written_to_has_none() -> None:
    assert find_denials_file({}, lake=None) is None
    assert open_deny_list(None, recorder=lambda: None) is None


@pytest.mark.parametrize("has_lake", [True, False])
def test_a_configured_file_wins(tmp_path: Path, *, has_lake: bool) -> None:
    file = tmp_path / "denials.json"

    found = find_denials_file({"MICROMEGAS_QUERY_DENIALS_FILE": str(file)}, lake=tmp_path if has_lake else None)

    assert found == file


def test_a_relative_name_is_refused() -> None:
    with pytest.raises(ConfigurationError) as refused:
        find_denials_file({"MICROMEGAS_QUERY_DENIALS_FILE": "denials.json"}, lake=None)

    assert refused.value.key == "MICROMEGAS_QUERY_DENIALS_FILE"
