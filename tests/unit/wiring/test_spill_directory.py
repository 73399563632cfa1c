"""A server keeps what is temporary in a folder of its own, below the one that an administrator names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.wiring.spill_directory import (
    check_spill_directory,
    make_process_folder,
    remove_spilled_by_the_dead,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", ["missing", "file"])
def test_a_folder_that_is_none_stops_the_server(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")

    with pytest.raises(ConfigurationError) as caught:
        check_spill_directory(str(tmp_path / name))

    assert caught.value.key == "MICROMEGAS_SERVER_SPILL_DIRECTORY"
    assert str(tmp_path) not in str(caught.value)


def test_a_folder_that_is_there_is_taken(tmp_path: Path) -> None:
    check_spill_directory(str(tmp_path))
    check_spill_directory(None)


def test_only_folders_of_the_dead_are_removed(tmp_path: Path) -> None:
    (tmp_path / "micromegas-server-abcdefgh").mkdir(mode=0o700)  # of a process that has ended
    living = make_process_folder(str(tmp_path))

    assert remove_spilled_by_the_dead(str(tmp_path)) == 1

    assert list(tmp_path.iterdir()) == [living.path]
    living.close()
    assert list(tmp_path.iterdir()) == []
