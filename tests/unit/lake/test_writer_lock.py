import os
import stat
from pathlib import Path

import pytest

from micromegas_jupyter.errors import Unavailable
from micromegas_jupyter.lake.writer import forget_writer, hold_writer, list_writers, try_adopt_writer


def test_a_living_writer_is_not_adopted(tmp_path: Path) -> None:
    lock = hold_writer(tmp_path, "w")

    assert try_adopt_writer(tmp_path, "w") is None

    lock.release()


def test_a_writer_that_ended_is_adopted_by_one_only(tmp_path: Path) -> None:
    hold_writer(tmp_path, "w").release()

    first, second = try_adopt_writer(tmp_path, "w"), try_adopt_writer(tmp_path, "w")

    assert first is not None
    assert second is None
    first.release()


def test_a_writer_without_a_lock_file_is_not_taken_for_dead(tmp_path: Path) -> None:
    assert try_adopt_writer(tmp_path, "w") is None
    assert not (tmp_path / ".writers" / "w.lock").exists()


def test_an_id_in_use_is_refused(tmp_path: Path) -> None:
    lock = hold_writer(tmp_path, "w")

    with pytest.raises(Unavailable, match="same id"):
        hold_writer(tmp_path, "w")

    lock.release()


def test_lock_files_are_private(tmp_path: Path) -> None:
    lock = hold_writer(tmp_path / "lake", "w")

    assert stat.S_IMODE((tmp_path / "lake" / ".writers" / "w.lock").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "lake").stat().st_mode) == 0o700
    lock.release()


def test_old_writers_are_listed_until_they_are_forgotten(tmp_path: Path) -> None:
    for writer_id, age in (("old", 1000), ("new", 2000)):
        hold_writer(tmp_path, writer_id).release()
        os.utime(tmp_path / ".writers" / f"{writer_id}.lock", (age, age))

    assert list(list_writers(tmp_path, modified_before=1500)) == ["old"]

    forget_writer(tmp_path, "old")

    assert list(list_writers(tmp_path, modified_before=1500)) == []
