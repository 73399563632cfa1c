"""A process keeps what is temporary in a folder of its own, below the one that an administrator names."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.assembly.spill_directory import (
    make_process_folder,
    own_temporaries,
    process_folder_variables,
    remove_spilled_by_the_dead,
)
from micromegas_jupyter.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


def test_what_is_temporary_is_in_one_folder_that_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TMPDIR", raising=False)
    (tmp_path / "micromegas-server-abcdefgh").mkdir(mode=0o700)  # of a process that has ended
    before = tempfile.gettempdir()

    with own_temporaries(str(tmp_path)):
        (folder,) = tmp_path.iterdir()
        inside = (os.environ["TMPDIR"], tempfile.gettempdir())
        (folder / "rows").touch()

    assert inside == (str(folder), str(folder))
    assert folder.name.startswith("micromegas-server-")
    assert list(tmp_path.iterdir()) == []
    assert ("TMPDIR" in os.environ, tempfile.gettempdir()) == (False, before)


def test_a_variable_that_was_there_is_there_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/somewhere")

    with own_temporaries(str(tmp_path)):
        pass

    assert os.environ["TMPDIR"] == "/somewhere"


def test_a_folder_that_cannot_be_made_is_the_settings_fault(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught, own_temporaries(str(tmp_path / "missing")):
        pass

    assert caught.value.key == "MICROMEGAS_SERVER_SPILL_DIRECTORY"


def test_only_folders_of_the_dead_are_removed(tmp_path: Path) -> None:
    (tmp_path / "micromegas-server-abcdefgh").mkdir(mode=0o700)
    living = make_process_folder(str(tmp_path))

    assert remove_spilled_by_the_dead(str(tmp_path)) == 1

    assert list(tmp_path.iterdir()) == [living.path]
    assert process_folder_variables(living) == {"TMPDIR": str(living.path)}
    living.close()
