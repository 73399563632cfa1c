"""The marks of rendered charts, read by position and size, have the values that SQL returns; none hides another."""

import gzip
import itertools
import json
import shutil
import subprocess
from collections import Counter
from functools import partial
from pathlib import Path
from typing import NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
import pytest
import vl_convert

from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.notebook.plotting import KINDS
from micromegas_jupyter.notebook.plotting.choice import Options, choose
from micromegas_jupyter.notebook.plotting.draw import VEGA_LITE_VERSION, draw
from micromegas_jupyter.notebook.plotting.slots import Slots
from tests.integration.other_provider.installing import find_node

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1800)]

HERE = Path(__file__).parent
FRONTEND = Path(__file__).parents[3] / "micromegas_jupyter" / "notebook" / "frontend"
ROWS, IN_CI, WIDTH, START = 1500, 60, 820, 1_793_491_200
AGGREGATES = (None, "count", "sum", "mean", "min", "max", "p50,p99")
SQL = {"sum": "sum({y})", "mean": "avg({y})", "min": "min({y})", "max": "max({y})"}


def requests():
    """Return rows with nulls, zeros, and negative numbers."""
    random = np.random.default_rng(5)

    def with_nulls(values, kind=None):
        return pa.array(values, kind, mask=random.random(ROWS) < 0.03)

    return pa.table(
        {
            "time": with_nulls(START + random.integers(0, 3600, ROWS), pa.timestamp("s", "UTC")),
            "service": with_nulls(np.array(["api", "db", "web"])[random.integers(0, 3, ROWS)]),
            "level": with_nulls(random.integers(1, 6, ROWS), pa.int32()),
            "ms": with_nulls(np.exp(random.normal(2, 1.4, ROWS))),
            "delta": with_nulls(np.round(random.normal(0, 30, ROWS)), pa.float64()).cast(pa.int64()),
        }
    )


def all_options():
    """Return the options of many charts; some of them cannot be drawn."""
    for kind, x, y, color in itertools.product(
        KINDS,
        ("time", "service", "level", "ms", "delta"),
        (None, "ms", "delta", "level"),
        (None, "service", "level"),
    ):
        for agg, log, bins in itertools.product(AGGREGATES, (None, "x", "y", "xy"), (None, 7)):
            is_code = y == "level" and agg is None  # which would be counted, and be the color
            if x not in {y, color} and (y is None or y != color) and not is_code:
                yield {"kind": kind, "x": x, "y": y, "color": color, "agg": agg, "log": log, "bins": bins}


class Drawn(NamedTuple):
    """A specification, and the slots of its x axis: None if each row is drawn."""

    spec: dict
    edges: list | None


def drawn_charts(table, *, wanted):
    """Return charts by options, as JSON: as many of each kind, or all. The tables have only the columns in use."""
    options, found = list(all_options()), {}
    np.random.default_rng(8).shuffle(options)
    counts = Counter()
    for each in options:
        if counts[each["kind"]] == (wanted or len(options)) // len(KINDS):
            continue
        names = [each[name] for name in ("x", "y", "color") if each[name]]
        try:
            choice = choose(table.select(list(dict.fromkeys(names))), Options(**each))
            spec, _, axes = draw(choice, WIDTH)
        except UsageError:
            continue
        slots = axes[0]["x"][1]
        ends = (slots.edges - 1000 * START * (each["x"] == "time")).tolist() if isinstance(slots, Slots) else None
        edges = ends and list(itertools.pairwise(ends))
        counts[each["kind"]] += 1
        found[json.dumps(each)] = Drawn(spec, edges)
    return found


def rendered(folder, specs):
    """Return the panels of each chart, drawn by the Vega that the package ships."""
    node, _ = find_node()
    library = folder / "vega.mjs"
    library.write_bytes(gzip.decompress((FRONTEND / "static" / "vega.js.gz").read_bytes()))
    lines = "\n".join(json.dumps({"id": name, "spec": spec}) for name, spec in specs.items())
    command = [node, "chart_marks.mjs", str(library), str(FRONTEND / "src" / "grid" / "csv.ts")]
    done = subprocess.run(command, cwd=folder, input=lines, capture_output=True, text=True, check=True)
    return {found["id"]: found for found in map(json.loads, done.stdout.splitlines())}


class Expected:
    """What SQL returns for a chart's slots."""

    def __init__(self, table):
        self._database = duckdb.connect()
        self._database.register("rows", table)
        self._table = table

    def value_of(self, column):
        """Return a column as a chart's axis has it; times are counted from the start."""
        return f"(epoch_ms(time) - {START}000)::double" if column == "time" else f"{column}::double"

    def rows(self, x, y, series, log):
        """Return what points and lines of each row show."""
        ends = [self.value_of(x), self.value_of(y)]
        condition = " AND ".join(
            f"{end} > {0 if name in (log or '') else '-1e300'}" for name, end in zip("xy", ends, strict=True)
        )
        color = f"coalesce({series}::text, 'null')" if series else "''"
        return self._database.execute(f"SELECT {', '.join(ends)}, {color} FROM rows WHERE {condition}").fetchall()

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
    if options["x"] == "time":
        for mark in marks:
            mark["x"] = mark["x"] and [end - 1000 * START for end in mark["x"]]
            mark["datum"] |= {name: mark["datum"][name] - 1000 * START for name in {"x", "x2"} & mark["datum"].keys()}
    is_raw = kind in {"line", "area", "point"} and options["agg"] is None and (options["y"] or kind == "point")
    check = check_rows if kind == "point" or is_raw else check_heat if kind == "heat" else check_slots
    return found + check({**options, "log": options["log"] or ""}, panel, expected)


def is_near(one, other):
    return abs(one - other) <= 1e-6 * max(abs(one), abs(other)) + 1e-6


def value_of(mark, *, along, is_line, is_log):
    """Return the value that a mark shows along an axis, by its position and size."""
    ends = mark[along]
    if len(ends) == 1 or is_log:
        return ends[-1]
    # A rectangle has no direction, an area has one.
    return (ends[1] - ends[0]) * (-1 if not is_line and mark["datum"]["y"] < 0 else 1)


def check_rows(options, panel, expected):
    """Points and raw lines are rows, drawn where they belong."""
    x, y, color, log = (options[name] for name in ("x", "y", "color", "log"))
    drawn = [
        (mark["x"][0], value_of(mark, along="y", is_line=True, is_log="y" in log), mark["datum"].get("series") or "")
        for mark in panel["marks"]
    ]
    wanted = expected.rows(x, y, color, log)

    # Positions are rounded: neighbors along x could change places.
    def order(row):
        return row[2], float(f"{row[0]:.5g}"), row[1]

    pairs = list(zip(sorted(drawn, key=order), sorted(wanted, key=order), strict=False))
    wrong = [pair for pair in pairs if not (all(map(is_near, pair[0][:2], pair[1][:2])) and pair[0][2] == pair[1][2])]
    found = [f"{len(drawn)} of {len(wanted)} rows"] * (len(drawn) != len(wanted))
    return found + [f"{len(wrong)} rows elsewhere: {wrong[:1]}"] * bool(wrong)


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
        edges = options["edges"]
        lows = np.array([low for low, _ in edges])

        def place_of(mark):
            return int(np.searchsorted(lows, middle_of(mark["datum"], is_log=is_log_x), side="right")) - 1

    drawn, found = {}, []
    for mark in marks:
        series = mark["datum"].get("series") or ""
        along = "x" if is_text else "y"
        drawn[place_of(mark), series] = value_of(mark, along=along, is_line=is_line, is_log=is_log_y)
        if not (is_text or is_line or is_beside) and not any(map(partial(is_near_span, mark["x"]), edges)):
            found.append("a bar elsewhere than its slot")
    wanted = {}
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


def is_near_span(one, other):
    return all(map(is_near, one, other))


@pytest.mark.parametrize("wanted", [IN_CI, pytest.param(None, marks=pytest.mark.long)])
def test_every_mark_has_the_value_that_sql_returns(tmp_path, wanted):
    charts = drawn_charts(requests(), wanted=wanted)
    assert len(charts) >= (wanted or 2_000)
    shutil.copy(HERE / "chart_marks.mjs", tmp_path)

    found = rendered(tmp_path, {name: chart.spec for name, chart in charts.items()})

    assert wrong_charts(charts, found) == {}
    # An image is drawn from the same Vega specification.
    for name, chart in charts.items():
        assert vl_convert.vegalite_to_vega(chart.spec, vl_version=VEGA_LITE_VERSION) == found[name]["compiled"]


def wrong_charts(charts, found):
    """Return the problems of charts by their options."""
    expected, wrong = Expected(requests()), {}
    for name, (spec, edges) in charts.items():
        problems = [found[name]["error"]] if "error" in found[name] else []
        for panel, drawn in zip(found[name].get("panels", []), spec["vconcat"], strict=True):
            options, series = json.loads(name), drawn["encoding"]["color"].get("scale", {"domain": [""]})["domain"]
            problems += problems_of(options | {"lines": len(series), "edges": edges}, panel, expected)
        if problems or not found[name].get("panels"):
            wrong[name] = problems
    return wrong
