"""A folder of Parquet files served to real kernels, each by a child of its own that ends with it."""

import os
import re
import signal
import socket
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.integration.notebook.interrupting import LOAD
from tests.integration.notebook.kernels import attended_kernel

pytestmark = pytest.mark.integration


@pytest.fixture
def folder(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    pq.write_table(pa.table({"n": [1, 2, 3]}), data / "events.parquet")
    pq.write_table(pa.table({"n": [4]}), data / "My Table.parquet")
    (data / "broken.parquet").write_bytes(b"PAR1")
    return data


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    with attended_kernel({"HOME": str(tmp_path_factory.mktemp("home"))}) as running:
        running.run(LOAD)
        yield running


def said(kernel, source):
    """Run a cell that works and return what it printed."""
    cell = kernel.run(source)
    assert cell.reply["status"] == "ok", cell
    return cell.printed


def port_in(text):
    found = re.search(r"127\.0\.0\.1:(\d+)", text)
    assert found is not None, text
    return int(found[1])


def is_gone(port):
    """Return whether nobody listens there any more; waits for it."""
    pause = threading.Event()
    for _ in range(1200):
        with socket.socket() as attempt:
            if attempt.connect_ex(("127.0.0.1", port)) != 0:
                return True
        pause.wait(0.05)
    return False


def count(kernel, table):
    said(kernel, f"%%sql rows <<\nSELECT count(*) AS n FROM {table}")
    return said(kernel, "print(int(rows['n'][0]), end='')")


def test_a_folder_is_served_replaced_and_left(kernel, folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    pq.write_table(pa.table({"n": [1]}), other / "only.parquet")

    first = said(kernel, f"%micromegas_serve {folder}")
    counts = [count(kernel, "events"), count(kernel, '"My Table"')]
    named = said(kernel, "%sql rows << --connection local SELECT 1 AS n")
    chosen = said(kernel, "%micromegas_connect local")
    failed = kernel.run(f"%micromegas_serve {tmp_path / 'nowhere'}").of("error")[0]["traceback"]
    (tmp_path / "delta" / "sales" / "_delta_log").mkdir(parents=True)
    refused = [
        kernel.run(f"%micromegas_serve {what}").of("error")[0]["traceback"][0]
        for what in (tmp_path / "delta", f"--lake {tmp_path / 'delta'}", "file:///data")
    ]
    still = count(kernel, "events")
    second = said(kernel, f"%micromegas_serve {other}")
    replaced = count(kernel, "only")
    stopped = said(kernel, "%micromegas_serve --stop")

    assert first.startswith(f'✓ 2 tables of {folder}: "My Table", events\n')
    assert "⚠ broken.parquet is left out: it cannot be read as a .parquet file." in first
    assert counts == ["3", "1"]
    assert named == ""
    assert chosen.endswith("It accepts calls from this notebook only.\n")
    assert failed == [
        f"✗ The folder {tmp_path / 'nowhere'} does not exist. Use a folder that contains tables. · USE001"
    ]
    assert "sales is left out: its log cannot be read" in refused[0]
    assert refused[1].startswith("✗ There is no lake in ")
    assert refused[2].startswith("✗ Tables cannot be stored in file: locations.")
    assert (still, replaced) == ("3", "1")
    assert is_gone(port_in(first))
    assert is_gone(port_in(second))
    assert stopped.startswith("The local server was stopped. Later cells use ")


def test_a_lake_is_served(kernel, tmp_path):
    (tmp_path / "lake").mkdir()

    said(kernel, f"%micromegas_serve --lake {tmp_path / 'lake'}")

    assert int(count(kernel, "log_entries")) >= 0


def test_a_killed_kernel_takes_its_server_along_and_leaves_that_of_another(kernel, folder, tmp_path):
    mine = port_in(said(kernel, f"%micromegas_serve {folder}"))
    with attended_kernel({"HOME": str(tmp_path)}) as other:
        other.run(LOAD)
        theirs = port_in(said(other, f"%micromegas_serve {folder}"))
        os.kill(int(said(other, "import os; print(os.getpid(), end='')")), signal.SIGKILL)

        assert is_gone(theirs)

    assert mine != theirs
    assert count(kernel, "events") == "3"
    kernel.shut_down()
    assert is_gone(mine)
