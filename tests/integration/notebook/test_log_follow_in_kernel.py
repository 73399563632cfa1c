"""A follow in a real kernel ends with its output, with its cell, and with the kernel."""

import pytest

from tests.integration.lakehouse.test_logs_command import send, start
from tests.integration.notebook.kernels import attended_kernel

pytestmark = pytest.mark.integration

FOLLOW = "%micromegas_logs --begin 1h --follow"
THREADS = """import threading
print([each.name for each in threading.enumerate()].count("micromegas-log-follow"))"""


@pytest.fixture
def kernel(tmp_path):
    stack = start(tmp_path / "lake")
    send(stack.uri, (4, "shop", "order 1"))
    variables = {"MICROMEGAS_ANALYTICS_URI": stack.uri, "MICROMEGAS_CONFIG_DIR": str(tmp_path)}
    with attended_kernel(variables) as kernel:
        kernel.run("%load_ext micromegas_jupyter")
        yield kernel
    stack.__exit__(None, None, None)


def test_a_follow_ends_with_its_output_its_cell_and_the_kernel(kernel):
    def show():
        """Run the cell that follows, as a page does; returns the widget's comm."""
        opened = kernel.run(FOLLOW, metadata={"cellId": "logs"}).of("comm_open")
        comm_id = opened[-1]["comm_id"]
        before = len(kernel.all_messages)
        kernel.send_to_widget(comm_id, {"id": 0, "op": "watch", "page": "page"})
        kernel.wait_until(lambda: "order 1" in str(kernel.all_messages[before:]))
        return comm_id

    def wait_until_it_ended(**metadata):
        kernel.wait_until(lambda: kernel.run(THREADS, metadata=metadata).printed == "0\n")

    removed = show()
    assert kernel.run(THREADS).printed == "1\n"
    kernel.send_to_widget(removed, {"id": 0, "op": "leave", "page": "page"})
    wait_until_it_ended()

    # The page of a widget that its kernel has closed can't send that it leaves.
    show()
    kernel.run("pass", metadata={"cellId": "logs"})
    wait_until_it_ended()

    show()
    wait_until_it_ended(deletedCells=["logs"])

    show()
    kernel.shut_down()
