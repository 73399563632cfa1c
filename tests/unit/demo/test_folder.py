"""The folder that the demo keeps: what is in it, what is never changed, and who may use it."""

import json
import subprocess
import sys

import pytest

from micromegas_jupyter.demo.folder import JOB_KERNEL, JOB_NOTEBOOK, NOTEBOOK, DemoFolder
from micromegas_jupyter.errors import ConfigurationError

EDITED = b"not even JSON"


def test_missing_notebooks_are_added_and_the_others_left_as_they_are(tmp_path):
    with DemoFolder(tmp_path / "new" / "demo") as folder:
        first = folder.add_notebooks()
    notebooks = sorted(folder.notebooks.glob("*.ipynb"))
    (folder.notebooks / NOTEBOOK).write_bytes(EDITED)
    (folder.notebooks / JOB_NOTEBOOK).unlink()
    (folder.notebooks / "mine.ipynb").write_bytes(EDITED)
    # As a demo leaves it that is killed while it copies.
    (folder.notebooks / f".{JOB_NOTEBOOK}.0123456789abcdef.tmp").write_bytes(EDITED)

    with DemoFolder(folder.notebooks, is_fresh=True) as again:
        second = again.add_notebooks()

    job = json.loads((folder.notebooks / JOB_NOTEBOOK).read_bytes())
    assert (first, second) == (0, len(notebooks) - 1)
    assert {NOTEBOOK, JOB_NOTEBOOK} < {path.name for path in notebooks}
    assert (folder.notebooks / NOTEBOOK).read_bytes() == (folder.notebooks / "mine.ipynb").read_bytes() == EDITED
    assert job["metadata"]["kernelspec"]["name"] == JOB_KERNEL
    assert list(folder.notebooks.glob(".*.tmp")) == []


def test_a_fresh_start_removes_the_lake_alone_and_what_an_interrupted_one_left(tmp_path):
    with DemoFolder(tmp_path) as folder:
        folder.lake.mkdir()
        (folder.lake / "row").touch()
        (folder.jupyter_settings).mkdir()
        (folder.lake.with_suffix(".removed") / "older").mkdir(parents=True)
    with DemoFolder(tmp_path):
        kept = sorted(path.name for path in folder.lake.parent.iterdir())
    with DemoFolder(tmp_path, is_fresh=True):
        fresh = sorted(path.name for path in folder.lake.parent.iterdir())

    assert kept == ["jupyter", "lake"]
    assert fresh == ["jupyter"]


def test_a_fresh_start_keeps_a_lake_that_is_not_the_demos(tmp_path):
    configuration, elsewhere = tmp_path / ".micromegas" / "lake", tmp_path / "elsewhere"
    for lake in (configuration, elsewhere):
        lake.mkdir(parents=True)
        (lake / "row").touch()
    with DemoFolder(tmp_path) as folder:
        folder.lake.symlink_to(elsewhere)

    with DemoFolder(tmp_path, is_fresh=True):
        assert not folder.lake.is_symlink()

    assert all((lake / "row").exists() for lake in (configuration, elsewhere))


def test_one_demo_at_a_time_uses_a_folder_and_a_killed_one_leaves_it(tmp_path):
    program = (
        "import sys; from pathlib import Path; from micromegas_jupyter.demo.folder import DemoFolder\n"
        "folder = DemoFolder(Path(sys.argv[1])); print('ready', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"ready\n"
        with pytest.raises(ConfigurationError, match="Another demo is using the directory") as caught:
            DemoFolder(tmp_path, is_fresh=True)
        other.kill()

    assert "--notebooks DIR" in caught.value.remedy
    DemoFolder(tmp_path).close()


@pytest.mark.parametrize("place", ["file/demo", "file", "link"])
def test_a_folder_that_cannot_be_used_is_named_with_what_to_do(tmp_path, place):
    (tmp_path / "file").touch()
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / ".micromegas-demo").symlink_to(tmp_path)

    with pytest.raises(ConfigurationError, match=str(tmp_path / place)) as caught:
        DemoFolder(tmp_path / place)

    assert caught.value.remedy == "Choose a different directory with --notebooks DIR."


def test_a_read_only_folder_is_named_with_what_to_do(tmp_path):
    program = (
        "import os; from pathlib import Path; from micromegas_jupyter.demo.folder import DemoFolder\n"
        "os.geteuid() or os.setuid(65534)  # root may write everywhere\n"
        "try: DemoFolder(Path('micromegas-demo'))\n"
        "except Exception as error: print(error)"
    )
    tmp_path.chmod(0o555)

    printed = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout

    tmp_path.chmod(0o755)
    assert printed.startswith("The directory micromegas-demo is not writable: Permission denied.")
    assert "--notebooks DIR" in printed
