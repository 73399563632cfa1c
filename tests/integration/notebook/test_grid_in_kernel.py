"""A result's grid in a real kernel: it answers while another cell runs."""

import pytest

from tests.integration.notebook.kernels import attended_kernel

pytestmark = pytest.mark.integration

SHOW = """import pyarrow as pa
from micromegas_jupyter.notebook.query_result import QueryResult
QueryResult(pa.table({"n": range(100_000)}))"""
# The cell ends once the grid's answer is there, and not before.
BUSY = """import time
print("busy")
while not done.exists():
    time.sleep(0.01)"""


def test_a_grid_answers_while_a_cell_runs(tmp_path):
    done = tmp_path / "done"
    answers = []
    with attended_kernel() as kernel:
        kernel.run(f"from pathlib import Path\ndone = Path({str(done)!r})")
        shown = kernel.run(SHOW)
        (comm_id,) = {content["comm_id"] for content in shown.of("comm_open") if "total" in content["data"]["state"]}
        subshell = kernel.open_subshell()
        question = {"id": 1, "op": "rows", "order": {"filters": {}, "sort": [[0, True]]}, "first": 0, "count": 2}

        def ask_and_wait(message):
            if message["msg_type"] == "stream":
                kernel.send_to_widget(comm_id, question, subshell_id=subshell)
                kernel.wait_until(lambda: answers.extend(found(kernel, comm_id)) or answers)
                done.touch()

        kernel.run(BUSY, while_running=ask_and_wait)

    assert answers[0] == {"id": 1, "answer": {"total": 100_000, "texts": [["99,999", "99,998"]]}}


COUNT = """import gc, psutil, pyarrow, ipywidgets
gc.collect()
pyarrow.default_memory_pool().release_unused()
print(len(ipywidgets.widgets.widget._instances), psutil.Process().memory_info().rss)"""
WARM_UP, MAX_GROWTH_BYTES = 100, 5_000_000


@pytest.mark.parametrize("displays", [20, pytest.param(1000, marks=[pytest.mark.long, pytest.mark.timeout(900)])])
def test_displays_leave_no_widgets_and_little_memory(displays):
    show = f"{SHOW[: SHOW.rindex('QueryResult')]}display(QueryResult(pa.table({{'n': range(100_000)}})))"
    with attended_kernel() as kernel:

        def run(*sources, deleted=()):
            printed = "".join(
                kernel.run(source, metadata={"cellId": "a", "deletedCells": list(deleted)}).printed
                for source in sources
            )
            kernel.all_messages.clear()  # they hold the grids' programs
            return printed

        run(*[show] * (WARM_UP if displays > WARM_UP else 1))
        shown = kernel.run(show, metadata={"cellId": "b"})
        before = run(COUNT).split()
        run(*[show] * displays)
        after = run(COUNT, deleted="b").split()

    assert shown.of("comm_open")
    assert (int(before[0]) > 0, after[0]) == (True, "0")
    assert int(after[1]) - int(before[1]) < MAX_GROWTH_BYTES


def found(kernel, comm_id):
    contents = [each["content"] for each in kernel.all_messages if each["msg_type"] == "comm_msg"]
    sent = [content["data"].get("content") for content in contents if content["comm_id"] == comm_id]
    return [answer for answer in sent if answer]
