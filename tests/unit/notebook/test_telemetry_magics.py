"""`%micromegas_trace` and `%micromegas_logs`."""

import pyarrow as pa
import pytest

from micromegas_jupyter.errors import UsageError
from tests.unit.client.test_traces import CHECKOUT, TRACE

LINES = pa.table({"time": ["now"], "level": [3], "exe": ["shop"], "target": ["net"], "msg": ["slow"]})


def test_a_trace_is_shown_with_its_critical_path(shell, world):
    world.script = CHECKOUT.to_batches()

    trace = shell.run_line_magic("micromegas_trace", f"0x{TRACE.upper()} --begin 1h")

    (asked,) = world.asked
    assert f"X'{TRACE}'" in asked["sql"]
    assert asked["begin"] is not None
    assert trace.spans.num_rows == CHECKOUT.num_rows
    assert "charge" in trace._repr_html_()


@pytest.mark.parametrize("line", ["checkout", "", f"{TRACE} --begin yesterday", f"{TRACE} --end 1h"])
def test_what_is_no_trace_is_rejected_without_a_call(shell, world, line):
    with pytest.raises(UsageError):
        shell.run_line_magic("micromegas_trace", line)

    assert world.asked == []


def test_log_lines_are_a_result(shell, world):
    world.script = LINES.to_batches()

    (row,) = shell.run_line_magic("micromegas_logs", "--level warn --search 'time out' --service shop --last 5")

    (asked,) = world.asked
    assert row["msg"] == "slow"
    assert asked["sql"].endswith("ORDER BY time DESC LIMIT 5")
    assert asked["params"] == {"level": 3, "msg": "time out", "exe": "shop"}
    assert (asked["end"] - asked["begin"]).total_seconds() == 15 * 60


@pytest.mark.parametrize("line", ["--level loud", "--last 0", "--connection a --profile b", "--follow --end 1h"])
def test_wrong_options_are_rejected_without_a_call(shell, world, line):
    with pytest.raises(UsageError):
        shell.run_line_magic("micromegas_logs", line)

    assert world.asked == []
