"""What a grid of a million rows costs the kernel: time of each answer and memory; printed, never judged."""

import json
import subprocess
import sys

import pyarrow as pa
import pytest

from tests.fakes.result_rows import many_rows

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(sys.platform != "linux", reason="reads a process's memory as Linux tells it"),
]

# A kernel of its own: what a process has used once it seldom gives back.
CHILD = """
import json, resource, sys, time
import pandas, psutil, pyarrow as pa
from micromegas_jupyter.notebook.results.grid import ResultGrid, static_table
from micromegas_jupyter.notebook.results.view import RowQuery, RowsView

def rss():
    return psutil.Process().memory_info().rss

def milliseconds(work):
    began = time.perf_counter()
    work()
    return round(1000 * (time.perf_counter() - began))

before = rss()
with pa.OSFile(sys.argv[1]) as file:
    table = pa.ipc.open_stream(file).read_all()
view = RowsView(table)
found = {"table_mb": round(table.nbytes / 1e6)}
found["first_ms"] = milliseconds(lambda: (ResultGrid(view, result_rows=table.num_rows), static_table(view, table.num_rows)))
found["rest"] = round((rss() - before) / table.nbytes, 2)
found["statistics_ms"] = milliseconds(lambda: [view.spread(column) for column in range(table.num_columns)])
found["block_ms"] = milliseconds(lambda: view.texts(RowQuery(), first=500_000, count=200, columns=200))
sortable = [index for index, column in enumerate(view.columns(200)) if column["sortable"]]
orders = {table.schema.names[index]: RowQuery(sort=((index, True),)) for index in sortable}
found["sort_ms"] = {name: milliseconds(lambda: view.texts(order, first=0, count=200, columns=200)) for name, order in orders.items()}
filters = {"level": "= INFO", "msg": "took 5", "value": "> 90000", "price": "1..1000", "time": "> 2026-12-01", "json": "99"}
found["filter_ms"] = {
    name: milliseconds(lambda: view.count(RowQuery(filters=((table.schema.get_field_index(name), typed),)))) for name, typed in filters.items()
}
pa.default_memory_pool().release_unused()  # as the grid does behind each answer
found["rest_after_all"] = round((rss() - before) / table.nbytes, 2)
found["peak"] = round((1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / table.nbytes, 2)
print(json.dumps(found))
"""  # noqa: E501 - a program


def test_a_grid_of_a_million_rows(tmp_path, say):
    table = many_rows()
    path = tmp_path / "rows.arrows"
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table.unify_dictionaries())

    done = subprocess.run([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, check=True)

    for name, value in json.loads(done.stdout).items():
        say(f"grid of a million rows, {name}: {value}")
