"""What becomes of an answer that there is no room for."""

from pathlib import Path
from typing import TextIO

import pytest

from micromegas_jupyter.cli.output import _enough_room
from micromegas_jupyter.errors import UsageError


def _write_to(output: TextIO) -> None:
    with _enough_room(output):
        print("rows", file=output)
        output.flush()


def test_a_full_disk_is_said_to_be_one_and_nothing_is_written_later() -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as output:
        with pytest.raises(UsageError, match="cannot be written: No space left on device"):
            _write_to(output)

        output.flush()  # what is left goes nowhere


def test_a_reader_that_has_left_is_another_matter(tmp_path: Path) -> None:
    with (
        (tmp_path / "rows").open("w", encoding="utf-8") as output,
        pytest.raises(BrokenPipeError),
        _enough_room(output),
    ):
        raise BrokenPipeError
