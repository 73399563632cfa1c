"""The marks of rendered charts, read by position and size, have the values that SQL returns; none hides another."""

import itertools
import json
import subprocess
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.notebook.charts.chart import Chart
from tests.integration.other_provider.installing import find_node, install_once

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1800)]

HERE = Path(__file__).parent / "vega"
ROWS, IN_CI = 1500, 60
AGGREGATES = (None, "count", "sum", "mean", "min", "max", "p50,p99")
SQL = {"sum": "sum({y})", "mean": "avg({y})", "min": "min({y})", "max": "max({y})"}


def requests():
    """Return rows with nulls, zeros, and negative numbers."""
    random = np.random.default_rng(5)

    def with_nulls(values, kind=None):
        return pa.array(values, kind, mask=random.random(ROWS) < 0.03)

    return pa.table(
        {
            "time": with_nulls(1_793_491_200 + random.integers(0, 3600, ROWS), pa.timestamp("s", "UTC")),
            "service": with_nulls(np.array(["api", "db", "web"])[random.integers(0, 3, ROWS)]),
            "level": with_nulls(random.integers(1, 6, ROWS), pa.int32()),
            "ms": with_nulls(np.exp(random.normal(2, 1.4, ROWS))),
            "delta": with_nulls(np.round(random.normal(0, 30, ROWS)), pa.float64()).cast(pa.int64()),
        }
    )


def all_options():
    """Return the options of many charts; some of them cannot be drawn."""
    for kind, x, y, color in itertools.product(
        ("line", "area", "bar", "hist", "heat", "point"),
        ("time", "service", "level", "ms", "delta"),
        (None, "ms", "delta", "level"),
        (None, "service", "level"),
    ):
        for agg, log, bins in itertools.product(AGGREGATES, (None, "x", "y", "xy"), (None, 7)):
            is_code = y == "level" and agg is None  # which would be counted, and be the color
            # Lines without the slots whose values are not positive do not show how wide slots are.
            has_gaps = y == "delta" and kind in {"line", "area"} and "y" in (log or "")
            if not has_gaps and x not in {y, color} and (y is None or y != color) and not is_code:
                yield {"kind": kind, "x": x, "y": y, "color": color, "agg": agg, "log": log, "bins": bins}


def drawn_charts(table, *, wanted):
    """Return specifications by options, as JSON: some or all. The tables have only the columns that are named."""
    options, found = list(all_options()), {}
    np.random.default_rng(8).shuffle(options)
    for each in options:
        if len(found) == wanted:
            break
        names = [each[name] for name in ("x", "y", "color") if each[name]]
        try:
            found[json.dumps(each)] = Chart(table.select(list(dict.fromkeys(names))), **each).spec
        except UsageError:
            continue
    return found


def rendered(folder, module, specs):
    """Return the panels of each chart."""
    node, _ = find_node()
    lines = "\n".join(json.dumps({"id": name, "spec": spec}) for name, spec in specs.items())
    done = subprocess.run(
        [node, "marks.mjs", module], cwd=folder, input=lines, capture_output=True, text=True, check=True
    )
    return {found["id"]: found for found in map(json.loads, done.stdout.splitlines())}


class Expected:
    """What SQL returns for a chart's slots."""

    def __init__(self, table):
        self._database = duckdb.connect()
        self._database.register("rows", table)
        self._table = table

    def value_of(self, column):
        """Return a column as a chart's axis has it."""
        return "epoch_ms(time)::double" if column == "time" else f"{column}::double"

    def total(self, condition):
        """Return how many rows match."""
        return self._database.execute(f"SELECT count(*) FROM rows WHERE {condition}").fetchone()[0]

    def groups(self, *, slots, series, aggregate):
        """Return the aggregate by slot and series; slots are a name, a column, and edges, or None for texts."""
        tables, keys = [], []
        for name, column, edges in slots:
            if edges is None:
                keys.append(f"coalesce({column}::text, 'null')")
                continue
            frame = pa.table({"place": range(len(edges)), "low": [a for a, _ in edges], "high": [b for _, b in edges]})
            self._database.register(f"slots_{name}", frame)
            value = self.value_of(column)
            tables.append(f"JOIN slots_{name} AS {name} ON {value} >= {name}.low AND {value} < {name}.high")
            keys.append(f"{name}.place")
        keys.append(f"coalesce({series}::text, 'null')" if series else "''")
        sql = f"SELECT {', '.join(keys)}, {aggregate} FROM rows {' '.join(tables)} GROUP BY ALL"
        return {tuple(row[:-1]): row[-1] for row in self._database.execute(sql).fetchall() if row[-1] is not None}


def aggregate_sql(name, y):
    if name == "count":
        return f"nullif(count({y or '*'}), 0)"
    return SQL[name].format(y=y) if name in SQL else f"quantile_cont({y}, {int(name[1:]) / 100})"


def problems_of(options, panel, expected):
    """Return what is wrong with a panel."""
    marks, kind = panel["marks"], options["kind"]
    found = []
    if not marks:
        return ["no marks"]
    if any(mark["isOutside"] for mark in marks):
        found.append("outside of the panel")
    if any(mark["isEmpty"] for mark in marks if mark["datum"].get("y") != 0):
        found.append("without size")
    if panel["overlaps"]:
        found.append(f"{panel['overlaps']} overlaps")
    is_raw = kind in {"line", "area", "point"} and options["agg"] is None and (options["y"] or kind == "point")
    check = check_rows if kind == "point" or is_raw else check_heat if kind == "heat" else check_slots
    return found + check({**options, "log": options["log"] or ""}, panel, expected)


def is_near(one, other):
    return abs(one - other) <= 1e-6 * max(abs(one), abs(other)) + 1e-6


def check_rows(options, panel, expected):
    """Points and raw lines are rows, drawn where they belong; points stand for all of them."""
    marks = panel["marks"]
    is_stacked = panel["type"] == "area" and options["color"]
    off = [
        mark
        for mark in marks
        if not (is_near(mark["x"][0], mark["datum"]["x"]) and (is_stacked or is_near(mark["y"][0], mark["datum"]["y"])))
    ]
    return [f"{len(off)} marks elsewhere"] * bool(off)


def check_heat(options, panel, expected):
    x, y = options["x"], options["y"]
    slots, places = [], {}
    for name, column in (("x", x), ("y", y)):
        is_text = isinstance(panel["marks"][0]["datum"][name], str)
        edges = (
            None if is_text else sorted({(mark["datum"][name], mark["datum"][f"{name}2"]) for mark in panel["marks"]})
        )
        slots.append((f"slot_{name}", column, edges))
        places[name] = {edge: place for place, edge in enumerate(edges or [])}
    wanted = expected.groups(slots=slots, series=None, aggregate="count(*)")
    drawn = {}
    for mark in panel["marks"]:
        datum, key = mark["datum"], []
        for name in ("x", "y"):
            if places[name]:
                key.append(places[name][datum[name], datum[f"{name}2"]])
                if not all(map(is_near, mark[name], (datum[name], datum[f"{name}2"]))):
                    return ["a rectangle is elsewhere"]
            else:
                key.append(datum[name])
        drawn[(*key, "")] = datum["rows"]
    return [] if drawn == wanted else [f"counts differ: {len(set(drawn.items()) ^ set(wanted.items()))}"]


def check_slots(options, panel, expected):
    """Bars and lines have the values of their slots, and all rows are in a slot."""
    marks, is_line = panel["marks"], options["kind"] in {"line", "area"}
    names = (
        options["agg"] or ("sum" if options["kind"] == "bar" and options["y"] in {"ms", "delta"} else "count")
    ).split(",")
    x, y, color = options["x"], options["y"], options["color"]
    if options["kind"] == "hist":
        x, y = (x if x == "time" else y or x), None
    is_text = isinstance(marks[0]["datum"]["x"], str)
    is_log_x, is_log_y = "x" in options["log"], "y" in options["log"]
    is_beside = (
        not is_line and options["lines"] > 1 and (len(names) > 1 or names[0] not in {"count", "sum"} or is_log_y)
    )
    edges = None

    def place_of(mark):
        return mark["datum"]["x"]

    if not is_text:
        edges = slot_edges([mark["datum"] for mark in marks], is_line=is_line, is_log=is_log_x)
        if is_beside and x == "time":
            step = round((marks[0]["datum"]["x2"] - marks[0]["datum"]["x"]) * options["lines"])
            edges = sorted({(each := mark["datum"]["x"] // step * step, each + step) for mark in marks})
        lows = np.array([low for low, _ in edges])

        def place_of(mark):
            return int(np.searchsorted(lows, middle_of(mark["datum"], is_log=is_log_x), side="right")) - 1

    drawn = {}
    for mark in marks:
        series = mark["datum"].get("series") or ""
        along = mark["x"] if is_text else mark["y"]
        value = along[-1] if is_line or is_log_y else along[1] - along[0]
        if panel["type"] == "area" or (not is_log_y and mark["datum"]["y"] < 0 and not is_line):
            value = mark["datum"]["y"]
        drawn[place_of(mark), series] = value
    wanted, found = {}, []
    for name in names:
        for (place, series), value in expected.groups(
            slots=[("slot_x", x, edges)], series=color, aggregate=aggregate_sql(name, y)
        ).items():
            if not is_log_y or value > 0:
                wanted[place, series if len(names) == 1 else f"{series} {name}".strip()] = value
    missing = {key for key in drawn.keys() - wanted.keys() if not is_near(drawn[key], 0)} | wanted.keys() - drawn.keys()
    found += [f"{len(missing)} marks too many or few, such as {min(map(str, missing))}"] if missing else []
    wrong = [key for key in drawn.keys() & wanted.keys() if not is_near(drawn[key], float(wanted[key]))]
    found += [f"{len(wrong)} wrong values: {drawn[wrong[0]]} instead of {wanted[wrong[0]]}"] if wrong else []
    if names == ["count"] and not is_log_y:
        condition = " AND ".join(
            [f"{x} IS NOT NULL" if not is_text else "true", f"{y or 1} IS NOT NULL"] + [f"{x} > 0"] * is_log_x
        )
        total, counted = expected.total(condition), sum(drawn.values())
        found += [f"{counted} of {total} rows"] * (not is_near(total, counted))
    return found


def middle_of(datum, *, is_log):
    low, high = (datum.get(name, datum[other]) for name, other in (("from", "x"), ("to", "x")))
    high = datum.get("to", datum.get("x2", high))
    return float(np.sqrt(low * high)) if is_log else (low + high) / 2


def slot_edges(data, *, is_line, is_log):
    """Return the slots' ends; of lines they follow from the points' distances."""
    if not is_line:
        return sorted({(datum.get("from", datum["x"]), datum.get("to", datum["x2"])) for datum in data})
    points = np.unique([datum["x"] for datum in data])
    if points[0] > 1e12:  # times, whose slots begin at their points
        step = np.diff(points).min()
        return [(point, point + step) for point in points.tolist()]
    if is_log:
        per_decade = round(1 / np.log10((points[1:] / points[:-1]).min())) if len(points) > 1 else 1
        places = [round(np.log10(point) * per_decade - 0.5) for point in points.tolist()]
        return [(10 ** (place / per_decade), 10 ** ((place + 1) / per_decade)) for place in places]
    half = np.diff(points).min() / 2
    return [(point - half, point + half) for point in points.tolist()]


@pytest.fixture(scope="module")
def folder(request):
    """The renderer with its packages."""
    cache = request.config.cache.mkdir("chart_marks")
    return install_once(cache, source=HERE, files=("package.json", "package-lock.json", "marks.mjs"))


@pytest.mark.parametrize("module", ["vega-lite", "vega-lite-of-jupyterlab"])
@pytest.mark.parametrize("wanted", [IN_CI, pytest.param(None, marks=pytest.mark.long)])
def test_every_mark_has_the_value_that_sql_returns(folder, module, wanted):
    table = requests()
    specs = drawn_charts(table, wanted=wanted)
    assert len(specs) >= (wanted or 2_000)

    expected, wrong = Expected(table), {}
    for name, found in rendered(folder, module, specs).items():
        problems = [found["error"]] if "error" in found else []
        for panel, spec in zip(found.get("panels", []), specs[name]["vconcat"], strict=True):
            series = spec["encoding"]["color"].get("scale", {"domain": [""]})["domain"]
            problems += problems_of({**json.loads(name), "lines": len(series)}, panel, expected)
        if problems or not found.get("panels"):
            wrong[name] = problems

    assert wrong == {}
