"""A server keeps what is temporary in a folder of its own, below the one that an administrator names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from micromegas_jupyter.assembly.spill_directory import make_process_folder, remove_spilled_by_the_dead

if TYPE_CHECKING:
    from pathlib import Path


def test_only_folders_of_the_dead_are_removed(tmp_path: Path) -> None:
    (tmp_path / "micromegas-server-abcdefgh").mkdir(mode=0o700)
    living = make_process_folder(str(tmp_path))

    assert remove_spilled_by_the_dead(str(tmp_path)) == 1

    assert list(tmp_path.iterdir()) == [living.path]
    living.close()
