"""A server is ready while it takes calls and its tables can be read."""

from pathlib import Path

import pytest

from micromegas_jupyter.lake import Lake
from micromegas_jupyter.server import NotReady
from micromegas_jupyter.wiring import ServeOptions, ServerStack
from micromegas_jupyter.wiring.server_readiness import find_storage_problem


def test_a_server_is_ready_from_its_start_to_its_end(tmp_path):
    stack = ServerStack(ServeOptions(lake=tmp_path / "lake", port=0, disable_auth=True, record=False), environ={})
    before = stack.readiness()
    with stack:
        meanwhile = stack.readiness()
    after = stack.readiness()

    assert (before, meanwhile, after) == (NotReady.STARTING, None, NotReady.DRAINING)


@pytest.mark.parametrize("becomes", ["gone", "file"])
def test_a_folder_that_is_none_any_more_is_a_problem_of_storage(tmp_path: Path, becomes: str):
    root = tmp_path / "lake"
    root.mkdir()
    lake = Lake(root)
    before = find_storage_problem(lake, root)

    root.rmdir()
    if becomes == "file":
        root.write_text("no folder")

    assert before is None
    assert find_storage_problem(lake, root) is NotReady.STORAGE
