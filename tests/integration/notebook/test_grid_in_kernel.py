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


def found(kernel, comm_id):
    contents = [each["content"] for each in kernel.all_messages if each["msg_type"] == "comm_msg"]
    sent = [content["data"].get("content") for content in contents if content["comm_id"] == comm_id]
    return [answer for answer in sent if answer]
