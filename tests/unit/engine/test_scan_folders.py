"""Tests of `engine.workarounds.scan_folders`: scans list a folder of links instead of each file."""

import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet
import pytest

from micromegas_jupyter.engine.workarounds.scan_folders import FoundFile, ScanFolders, mark_of
from tests.fakes.clock import FakeClock

THREADS_OF_A_SCAN = """
import sys
from pathlib import Path
import pyarrow as pa
from datafusion import SessionContext
from micromegas_jupyter.core.file_list import FileList
from micromegas_jupyter.core.protocols import DataFile, TableSnapshot
from micromegas_jupyter.engine.contract import EngineSettings
from micromegas_jupyter.engine.sessions import Sessions
from micromegas_jupyter.engine.tables import TableBuilder

files = tuple(DataFile(str(path)) for path in sorted(Path(sys.argv[1]).iterdir()))
table = TableSnapshot(name="t", schema=pa.schema([("n", pa.int64())]), files=files)
lent = Sessions(EngineSettings()).lend()
lent.configure(partitions=2, uses_footers=True, is_remote=False, has_floats=False)
lent.frame(lent.session.sql("SELECT 1").logical_plan()).collect()
before = len(list(Path("/proc/self/task").iterdir()))
builder = TableBuilder()
scan = builder.read(lent.session, table, FileList.of(files), table.schema)
rows = lent.frame(scan.logical_plan()).to_pylist()
print(sum(row["n"] for row in rows), len(list(Path("/proc/self/task").iterdir())) - before)
"""


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "a folder with spaces, 100%"
    folder.mkdir()
    paths = [folder / f"{number}.parquet" for number in range(8)]
    for number, path in enumerate(paths):
        path.write_text(str(number))
    return [str(path) for path in paths]


def found(paths):
    return [FoundFile(path, mark_of(Path(path).stat())) for path in paths]


def own_urls(paths):
    return [Path(path).as_uri() for path in paths]


def contents(urls):
    (url,) = urls
    folder = Path(urlsplit(url).path)
    return [entry.read_text() for entry in sorted(folder.iterdir())]


def test_a_folder_has_the_files_in_order_and_is_used_again(files):
    folders = ScanFolders()

    urls = folders.urls(found(files))

    assert contents(urls) == [str(number) for number in range(8)]
    assert folders.urls(found(files)) == urls
    assert contents(folders.urls(found(files[::-1]))) == [str(number) for number in reversed(range(8))]


def test_a_file_that_was_changed_is_in_another_folder(files):
    folders = ScanFolders()
    urls = folders.urls(found(files))

    Path(files[3]).write_text("changed")

    assert folders.urls(found(files)) != urls


def test_few_files_and_files_elsewhere_keep_their_paths(files):
    folders = ScanFolders()
    remote = [f"s3://bucket/{number}.parquet" for number in range(8)]

    assert folders.urls(found(files[:4])) == own_urls(files[:4])
    assert folders.urls([FoundFile(url) for url in remote]) == remote


def test_a_folder_that_a_statement_may_still_read_is_not_removed_for_another(files):
    clock = FakeClock()
    folders = ScanFolders(clock=clock, max_links=15)
    first = folders.urls(found(files))

    assert folders.urls(found(files[::-1])) == own_urls(files[::-1])
    assert contents(first)
    clock.advance(3601)
    assert contents(folders.urls(found(files[::-1])))
    assert not Path(urlsplit(first[0]).path).exists()


def test_a_folder_that_lost_a_link_is_not_used(files):
    folders = ScanFolders()
    folder = Path(urlsplit(folders.urls(found(files))[0]).path)

    next(folder.iterdir()).unlink()

    assert folders.urls(found(files)) == own_urls(files)


def test_a_scan_of_many_files_needs_few_threads(tmp_path):
    for number in range(300):
        pa.parquet.write_table(pa.table({"n": [number]}), tmp_path / f"{number:03d}.parquet")

    command = [sys.executable, "-c", THREADS_OF_A_SCAN, str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    total, threads = map(int, ran.stdout.split())

    assert total == sum(range(300))
    assert threads <= 60  # without a folder, more than 200; of the few, a busy machine has some more
