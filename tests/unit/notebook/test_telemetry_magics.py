"""`%micromegas_trace`, `%micromegas_flame`, and `%micromegas_logs`."""

import pyarrow as pa
import pytest

from micromegas_jupyter.client.traces import Trace
from micromegas_jupyter.errors import UsageError
from tests.unit.client.test_traces import CHECKOUT, TRACE

LINES = pa.table({"time": ["now"], "level": [3], "exe": ["shop"], "target": ["net"], "msg": ["slow"]})


@pytest.mark.parametrize("sought", [f"0x{TRACE.upper()}", ":in_hex", ":in_bytes", "{in_bytes}"])
def test_a_trace_is_shown_with_its_critical_path(shell, world, sought):
    world.script = CHECKOUT.to_batches()
    shell.user_ns.update(in_hex=TRACE, in_bytes=bytes.fromhex(TRACE))

    trace = shell.run_line_magic("micromegas_trace", f"{sought} --begin 1h")

    (asked,) = world.asked
    assert f"X'{TRACE}'" in asked["sql"]
    assert asked["begin"] is not None
    assert trace.spans.num_rows == CHECKOUT.num_rows
    assert "charge" in trace._repr_html_()


@pytest.mark.parametrize("line", ["checkout", "", ":gone", ":a,:b", f"{TRACE} --begin yesterday", f"{TRACE} --end 1h"])
def test_what_is_no_trace_is_rejected_without_a_call(shell, world, line):
    with pytest.raises(UsageError):
        shell.run_line_magic("micromegas_trace", line)

    assert world.asked == []


@pytest.mark.parametrize("against", ["2h..1h", "shop-canary"])
def test_traces_are_merged_and_compared(shell, world, against):
    world.script = CHECKOUT.to_batches()
    shell.user_ns["sought"] = "SERVER"

    flame = shell.run_line_magic(
        "micromegas_flame", f"--service shop --begin 1h --where 'kind = :sought' --against {against}"
    )

    now, before = world.asked
    assert "kind = :sought" in now["sql"]
    assert list(now["params"].values()) == ["SERVER", "shop"]
    assert list(before["params"].values()) == ["SERVER", "shop" if ".." in against else against]
    seconds = (now["begin"] - before["begin"]).total_seconds()
    assert seconds == (3600 if ".." in against else 0)
    assert flame.paths.num_rows == CHECKOUT.num_rows
    assert flame.is_difference


@pytest.mark.parametrize(
    "line",
    [
        "",
        "--service shop --where 'kind = :gone'",
        "--service shop --against 1h..2h",
        "--service shop --end 1h",
        "--loud",
    ],
)
def test_a_flame_graph_with_wrong_options_is_rejected_without_a_call(shell, world, line):
    with pytest.raises(UsageError):
        shell.run_line_magic("micromegas_flame", line)

    assert world.asked == []


def test_a_trace_is_displayed_as_its_table_where_there_are_no_widgets(shell):
    shown, _ = shell.display_formatter.format(Trace(TRACE, CHECKOUT))

    assert "<table>" in shown["text/html"]
    assert "checkout" in shown["text/plain"]
    assert "application/vnd.jupyter.widget-view+json" not in shown


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
