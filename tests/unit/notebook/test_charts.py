"""Charts of results: what is drawn of which columns, the specification, and the picture."""

import csv
import io
import json
import re
import sys
from base64 import b64decode
from datetime import timedelta
from decimal import Decimal

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import vl_convert

from micromegas_jupyter.errors import MissingPackage, UsageError
from micromegas_jupyter.notebook.charts.chart import Chart
from micromegas_jupyter.notebook.plotting import KINDS
from micromegas_jupyter.notebook.plotting.draw import VEGA_LITE_VERSION, draw_image
from micromegas_jupyter.notebook.query_result import QueryResult
from tests.fakes.bar_charts import BAR_CHARTS, bar_chart, bar_totals, expected_totals

T0 = 1_700_000_000  # 2023-11-14 22:13:20 UTC


def times(count, *, step=60, start=T0, zone="UTC"):
    return pa.array(start + np.arange(count) * step).cast(pa.timestamp("s", zone)).cast(pa.timestamp("ns", zone))


def table_of(count=6, **columns):
    return pa.table({"time": times(count), **columns})


def panels(chart):
    return chart.spec["vconcat"]


def encoding(chart, panel=0):
    return panels(chart)[panel]["encoding"]


def rows(chart, panel=0):
    return list(csv.DictReader(io.StringIO(panels(chart)[panel]["data"]["values"])))


def title(chart):
    return chart.spec["title"]["text"]


def svg_of(chart):
    return draw_image(chart.spec, "svg").decode()


def labels(chart):
    """Return the texts of the picture."""
    return [re.sub(r"<[^>]+>", "", text) for text in re.findall(r"<text[^>]*>(.*?)</text>", svg_of(chart))]


HOSTS = {"host": ["b10", "b9"] * 3}
NUMBERS = {"a": [1.5, 2, 3, 4, 5, 6], "b": [60, 50, 40, 30, 20, 10]}


def test_a_chart_of_a_frame_or_a_result_is_that_of_its_table():
    table = table_of(**NUMBERS)

    for other in (table.to_pandas(), QueryResult(table)):
        assert rows(Chart(other)) == rows(Chart(table))
    with pytest.raises(UsageError, match="cannot be read as a table"):
        Chart(pd.DataFrame({"mixed": [1, "two"]}))


@pytest.mark.parametrize(
    ("table", "drawn"),
    [
        (table_of(load=NUMBERS["a"]), "line chart: load over time"),
        (table_of(**NUMBERS, **HOSTS), "line chart: a, b over time by host"),
        (table_of(**HOSTS), "hist chart: rows over time by host"),
        (pa.table({"host": list("abcdef"), **NUMBERS}), "bar chart: a, b by host"),
        (pa.table(NUMBERS), "point chart: b against a"),
        (pa.table({"a": NUMBERS["a"]}), "hist chart: a"),
        (pa.table(HOSTS), "bar chart: rows by host"),
        (pa.table({"host": ["a", "a", "b", "b"], "level": ["x", "y"] * 2, "n": [1, 2, 3, 4]}), "n by host and level"),
    ],
)  # fmt: skip
def test_the_columns_types_decide_what_is_drawn(table, drawn):
    assert drawn in repr(Chart(table)).splitlines()[0]


def test_rows_that_texts_do_not_tell_apart_are_points_with_their_color():
    table = pa.table({"cached": [True, False] * 50, "size": np.arange(100.0), "took": np.arange(100.0) ** 2})

    chart = Chart(table)

    assert title(chart) == "took against size by cached"
    assert encoding(chart)["color"]["scale"]["domain"] == ["false", "true"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("names", [{}, {"color": "host"}, {"y": "b,a", "x": "time"}])
def test_every_kind_is_a_valid_specification_with_stable_names(kind, names):
    table = table_of(**NUMBERS, **HOSTS)

    names = {name: column for name, column in names.items() if (kind, name) != ("heat", "color")}

    chart = Chart(table, kind=kind, **names)

    assert chart.to_altair()  # which checks it against Vega-Lite's schema
    assert vl_convert.vegalite_to_vega(json.dumps(chart.spec), vl_version=VEGA_LITE_VERSION)["marks"]
    assert chart.spec == Chart(table, kind=kind, **names).spec
    assert {name["name"] for name in chart.spec["params"]} <= {"legend"}


def test_each_measure_has_a_panel_of_its_own_scale_and_counts_begin_at_zero():
    chart = Chart(table_of(requests=[980, 985, 990, 1000, 1010, 1020], load=[90.5, 90.6, 90.7, 90.8, 90.9, 91.0]))

    assert [encoding(chart, panel)["y"]["title"] for panel in (0, 1)] == ["requests", "load"]
    assert [encoding(chart, panel)["y"]["scale"]["zero"] for panel in (0, 1)] == [True, False]


def test_measures_of_different_units_do_not_share_an_axis():
    chart = Chart(table_of(name=["cpu", "ram"] * 3, unit=["%", "bytes"] * 3, value=NUMBERS["a"]))

    assert [encoding(chart, panel)["y"]["title"] for panel in (0, 1)] == ["value (%)", "value (bytes)"]
    assert {row["series"] for row in rows(chart, 1)} == {"ram"}
    assert title(chart) == "value over time by name"


def test_identifiers_are_no_measures_and_what_is_left_out_is_said():
    columns = {"process_id": [2**62] * 6, "port": [1, 2] * 3, "tickId": [1, 2] * 3, "load": NUMBERS["a"]}
    chart = Chart(table_of(**columns))
    many = Chart(table_of(**{f"n{number}": NUMBERS["a"] for number in range(10)}))

    assert title(chart) == "load over time"
    assert chart.spec["title"]["subtitle"] == ["Not drawn: process_id, port, tickId (identifiers; y draws them)."]
    assert encoding(Chart(table_of(**columns), y="port"))["y"]["title"] == "port"
    assert "8 of 10 columns of numbers are drawn" in many.spec["title"]["subtitle"][0]


@pytest.mark.parametrize("case", BAR_CHARTS)
def test_drawn_bars_add_up_to_what_sql_counts_and_sums(case):
    scene = vl_convert.vegalite_to_scenegraph(bar_chart(case).spec, vl_version=VEGA_LITE_VERSION)["scenegraph"]

    assert bar_totals(scene) == [
        (pytest.approx(expected), pytest.approx(expected)) for expected in expected_totals(case)
    ]


@pytest.mark.parametrize("name", ["level", "status", "code", "http_status", "exitCode", "process_id", "port"])
@pytest.mark.parametrize("kind", [pa.int32(), pa.float64()])
def test_codes_and_identifiers_are_never_added_up(name, kind):
    numbers = pa.array([200, 404, None, 200, 500, 200], pa.int32()).cast(kind)
    table = pa.table({"time": times(6), "host": ["a", "b"] * 3, name: numbers})

    for options in ({"x": "host"}, {"x": "time"}, {}):
        for chart in (Chart(table, kind="bar", **options), Chart(table, kind="bar", y=name, **options)):
            assert "sum of" not in json.dumps(chart.spec)
            assert sum(float(row["y"]) for row in rows(chart)) == 6
    areas = Chart(
        pa.table({"time": pa.array(times(6)).take([0, 0, 1, 1, 2, 2]), "h": ["a", "b"] * 3, name: numbers}),
        kind="area",
        y=name,
    )
    assert encoding(areas)["y"]["stack"] is None


def test_roles_in_the_schema_take_precedence_over_names():
    roles = {"time": "time", "status": "measure", "n": "identifier", "worst": "severity", "total": None}
    arrays = [times(6), *[pa.array([200, 404, 500, 200, 500, 200])] * 4]
    fields = [
        pa.field(name, array.type, metadata={"micromegas.role": role} if role else {"other": "metadata"})
        for (name, role), array in zip(roles.items(), arrays, strict=True)
    ]
    table = pa.table(arrays, schema=pa.schema(fields))
    bare = table.replace_schema_metadata(None).cast(pa.schema([field.remove_metadata() for field in fields]))

    assert [encoding(Chart(table), number)["y"]["title"] for number in range(len(panels(Chart(table))))] == ["status"]
    assert "sum of" not in json.dumps(Chart(table, kind="bar", x="worst", y="total").spec)
    assert "sum of" in json.dumps(Chart(bare, kind="bar", x="worst", y="total").spec)
    assert len(panels(Chart(bare))) == 3


def test_a_code_is_a_category_until_it_is_named_as_an_axis():
    table = pa.table({"time": times(6), "level": [3, 4, 3, 3, 10, 4], "took": NUMBERS["a"]})

    assert title(Chart(table)) == "took over time by level"
    assert title(Chart(table.select(["level", "took"]))) == "took by level"
    assert encoding(Chart(table.select(["level"])))["y"]["sort"] == ["3", "4", "10"]
    assert title(Chart(table, kind="line", y="level")) == "level over time"
    assert title(Chart(table, kind="point", x="level", y="took")) == "took against level"
    assert title(Chart(table.select(["time", "level"]), kind="line")) == "level over time"
    assert [row["y"] for row in rows(Chart(table, kind="hist", x="level"))] == ["3", "2", "1"]
    assert title(Chart(pa.table({"time": times(4), "level": [0.5, 0.25, 0.75, 1]}))) == "level over time"
    assert Chart(table, kind="bar", x="time", y="level").spec["title"]["subtitle"] == [
        "Not summed: level (codes and identifiers are counted)."
    ]


def test_percentiles_are_those_of_percentile_cont_in_the_slots_of_date_bin():
    table = pa.table({"time": times(600, step=7), "took": np.random.default_rng(2).gamma(2, 40, 600)})

    chart = Chart(table, kind="line", agg="p50,p95,count", bins=10)

    query = """SELECT epoch_ms(time_bucket(INTERVAL '15 minutes', time)) AS x, quantile_cont(took, 0.5) AS p50,
        quantile_cont(took, 0.95) AS p95, count(took) AS count FROM rows GROUP BY x"""
    found = duckdb.from_arrow(table).query("rows", query).fetchall()
    wanted = {
        (x, name): value for x, *values in found for name, value in zip(("p50", "p95", "count"), values, strict=True)
    }
    drawn = {(int(row["x"]), row["series"]): float(row["y"]) for row in rows(chart)}
    assert drawn == {key: pytest.approx(value) for key, value in wanted.items()}


def test_only_counts_and_sums_are_stacked_and_never_along_a_logarithmic_axis():
    table = table_of(host=["a", "b"] * 3, took=[1.0, 20, 300, 4, 0, 6])

    for agg, log, stack in (("sum", None, "zero"), ("count", None, "zero"), ("mean", None, None), ("sum", "y", None)):
        chart = Chart(table, kind="bar", x="time", y="took", color="host", agg=agg, log=log)
        assert encoding(chart)["y"]["stack"] == stack
        assert ("y2" in encoding(chart)) == (log == "y")
    assert chart.spec["title"]["subtitle"] == ["Not drawn: 1 of took (zero or negative, on a logarithmic axis)."]


def test_a_heat_map_counts_each_row_once_in_few_rectangles():
    table = pa.table({"time": times(9_000), "took": np.random.default_rng(2).gamma(2, 40, 9_000)})

    chart = Chart(table, kind="heat", log="y")

    assert sum(int(row["rows"]) for row in rows(chart)) == 9_000
    assert len({row["x"] for row in rows(chart)}) <= 41
    assert len({row["y"] for row in rows(chart)}) <= 25


ODD_NAMES = [
    "constructor", "__proto__", "toString", "a.b", "a[0]", "a['b']", 'a["b"]', "a\\b", "datum.x", "series", "",
]  # fmt: skip


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_column_or_value_of_any_name_is_drawn(name):
    hosts = [name, "constructor" if name != "constructor" else "toString", "c"] * 2
    charts = [
        Chart(pa.table([times(6), NUMBERS["a"]], names=["time", name]), kind="bar"),
        Chart(pa.table([times(6), [2.5] * 6, hosts], names=["time", "n", name]), kind="bar", x="time", color=name),
        Chart(pa.table([hosts, [2.5] * 6], names=[name, "n"]), kind="bar"),
    ]

    for chart, total in zip(charts, (21.5, 15, 15), strict=True):
        scene = vl_convert.vegalite_to_scenegraph(chart.spec, vl_version=VEGA_LITE_VERSION)["scenegraph"]
        assert bar_totals(scene) == [(pytest.approx(total), pytest.approx(total))]
        assert not any('"' in each for each in texts_of(chart.spec, "title"))


def texts_of(spec, name):
    """Return the texts of a property everywhere in a specification."""
    if isinstance(spec, list):
        return [text for each in spec for text in texts_of(each, name)]
    if not isinstance(spec, dict):
        return []
    own = [spec[name]] if isinstance(spec.get(name), str) else []
    return own + [text for each in spec.values() for text in texts_of(each, name)]


def test_the_largest_of_many_series_are_drawn_and_the_chart_says_so():
    hosts = [f"host-{number}" for number in range(20)] * 3
    table = pa.table({"time": times(60), "host": hosts, "n": [1 + number % 20 for number in range(60)]})

    line, bars = Chart(table), Chart(table, kind="bar", color="host")

    assert encoding(line)["color"]["scale"]["domain"] == [f"host-{number}" for number in range(8, 20)]
    assert line.spec["title"]["subtitle"] == [
        "Drawn: the 12 of 20 values of host with the largest total of n. The others are not drawn."
    ]
    assert encoding(bars)["color"]["scale"]["domain"][-1] == "other"
    assert sum(float(row["y"]) for row in rows(bars)) == sum(table["n"].to_pylist())


@pytest.mark.parametrize(
    ("zone", "shown"),
    [("UTC", "time (UTC)"), (None, "time (no time zone)"), ("Europe/Berlin", "time (UTC)"), ("../etc/x", "time (UTC)")],
)
def test_times_are_in_utc_whoever_looks_and_the_axis_says_so(zone, shown):
    chart = Chart(pa.table({"time": times(6, zone=zone), "load": NUMBERS["a"]}))

    assert encoding(chart)["x"]["title"] == shown
    assert encoding(chart)["x"]["scale"] == {"type": "utc"}
    assert int(rows(chart)[0]["x"]) == T0 * 1_000
    assert "22:14" in labels(chart)


def test_nulls_and_what_is_no_number_leave_gaps_and_a_few_points_have_dots():
    chart = Chart(table_of(load=[1.0, None, 3.0, float("inf"), 5.0, 6.0]))

    assert [row["y"] for row in rows(chart)] == ["1", "nan", "3", "nan", "5", "6"]
    assert panels(chart)[0]["layer"][1]["mark"]["type"] == "point"
    assert Chart(pa.table({"time": pa.array([T0, None], pa.timestamp("s")), "n": [1, 2]})).spec


@pytest.mark.parametrize(
    ("column", "shown", "values"),
    [
        (pa.array([Decimal("1.50"), None]), "y", ["1.5"]),
        (pa.array([2**64 - 1, 2**63], pa.uint64()), "y", ["1.84467441e+19", "9.22337204e+18"]),
        (pa.array([timedelta(milliseconds=2), timedelta(milliseconds=5)]), "y (s)", ["0.002", "0.005"]),
        (pa.array([3, 4]).dictionary_encode(), "y", ["3", "4"]),
        (pa.array([1.5, 2], pa.float16()), "y", ["1.5", "2"]),
    ],
)
def test_numbers_of_any_type_are_drawn(column, shown, values):
    chart = Chart(pa.table({"time": times(2), "y": column}))

    assert encoding(chart)["y"]["title"] == shown
    assert [row["y"] for row in rows(chart)][: len(values)] == values


def test_booleans_and_nulls_are_categories():
    assert encoding(Chart(table_of(ok=[True, False, None] * 2)))["color"]["scale"]["domain"] == [
        "false",
        "null",
        "true",
    ]


def test_bars_add_up_from_zero_in_the_order_of_the_rows_or_of_their_sums():
    ordered = Chart(pa.table({"day": ["Mon", "Tue", "Wed"], "n": [1, 2, 3]}), kind="bar")
    summed = Chart(pa.table({"host": ["a", "b", "a", "c"], "n": [1, 5, 1, 3]}), kind="bar")

    assert encoding(ordered)["y"]["sort"] == ["Mon", "Tue", "Wed"]
    assert encoding(ordered)["x"]["title"] == "n"
    assert encoding(summed)["y"]["sort"] == ["b", "c", "a"]
    assert encoding(summed)["x"]["title"] == "sum of n"
    assert encoding(summed)["x"]["scale"] == {"zero": True}
    assert {row["x"]: row["y"] for row in rows(summed)} == {"a": "2", "b": "5", "c": "3"}


@pytest.mark.parametrize("step", [60, 420, 3_600, 86_400])
def test_bars_over_time_are_as_wide_as_the_times_are_apart(step):
    bars = rows(Chart(pa.table({"time": times(50, step=step), "n": range(50)}), kind="bar"))
    many = rows(Chart(pa.table({"time": times(5_000, step=step), "n": [1] * 5_000}), kind="bar"))

    assert [float(bar["y"]) for bar in bars] == list(range(50))
    assert {float(bar["x2"]) - float(bar["x"]) for bar in bars} == {step * 1_000}
    assert len(many) <= 101
    assert sum(float(bar["y"]) for bar in many) == 5_000


def test_a_histogram_has_round_ranges_and_counts_each_row_once():
    values = np.random.default_rng(1).gamma(2, 40, 10_000)

    chart = Chart(pa.table({"took": values}))

    assert (panels(chart)[0]["layer"][0]["mark"]["orient"], encoding(chart)["y"]["scale"]) == (
        "vertical",
        {"zero": True},
    )
    assert sum(int(row["y"]) for row in rows(chart)) == len(values)
    assert {float(row["x"]) % 20 for row in rows(chart)} == {0.0}
    assert [tip["title"] for tip in encoding(chart)["tooltip"]] == ["took", "to", "rows"]


@pytest.mark.parametrize(
    ("number", "text"),
    [(5e18, "5e+18"), (5e9, "5 G"), (50_000, "50 k"), (5_000, "5,000"), (0.004, "0.004"), (0.00005, "5e-5")],
)
def test_labels_are_short_and_cannot_be_misread(number, text):
    found = labels(Chart(table_of(y=[0, number / 5, number, 0, 0, 0])))

    assert text in found
    assert not any(re.search(r"\d[EPmµn]$", label) for label in found)


def test_names_and_values_are_text_in_the_data_and_in_the_picture():
    odd = 'a.b["c"]\\\n<b>\x1b[2J'
    table = pa.table(
        {"time": times(4), odd: [1, 2, 3, 4], "__proto__": ['x,"\n</script>', None] * 2, "rows": [1.5] * 4}
    )

    chart = Chart(table)

    svg = svg_of(chart)
    assert "\x1b" not in json.dumps(chart.spec) + svg
    assert {row["series"] for row in rows(chart)} == {'x,"⧵n</script>', "null"}
    assert "</script>" not in svg


def test_texts_that_are_cut_stay_apart():
    table = pa.table({"name": ["x" * 60 + "1", "x" * 60 + "2", None], "n": [1, 2, 3]})

    assert len({row["x"] for row in rows(Chart(table))}) == 3


def test_a_million_points_keep_their_peaks_in_little_room():
    values = np.sin(np.arange(1_000_000) / 5e4)
    values[[123_456, 765_432]] = 40, -40
    hosts = pa.array(["a", "b", "c", "d"]).take(pa.array(np.arange(1_000_000) % 4))
    table = pa.table({"time": times(1_000_000, step=1), "load": values, "host": hosts.dictionary_encode()})

    chart = Chart(table)

    drawn = [float(row["y"]) for row in rows(chart)]
    assert (min(drawn), max(drawn), len(drawn) <= 4_000) == (-40, 40, True)
    assert "1,000,000 rows" in repr(chart)


@pytest.mark.parametrize("kind", ["line", "point"])
def test_without_a_page_there_are_a_small_image_and_the_table(kind):
    random = np.random.default_rng(1)
    table = pa.table({name: random.normal(0, 1, 200_000) for name in ("a", "b", "c & d")})

    chart = Chart(table, kind=kind, x="a")
    bundle, _ = chart._repr_mimebundle_()

    image, alt, data = re.match(r'(<img .*alt="([^"]*)".*base64,(.*?)">)', bundle["text/html"]).groups()
    assert len(data) <= 100_000
    assert b64decode(data).startswith(b"\x89PNG")
    assert alt == f"{kind} chart: b, c &amp; d against a"
    assert bundle["text/html"].removeprefix(image).startswith("<div")
    assert bundle["text/plain"].startswith(f"{chart!r}\n\n")
    assert "first 20 of 200,000 rows" in bundle["text/plain"]
    if kind == "point":
        assert sum(float(row["rows"]) for row in rows(chart)) == 200_000
        assert "One point for each spot" in chart.spec["title"]["subtitle"][0]


def test_pictures_hold_no_points_that_only_a_pointer_shows():
    assert svg_of(Chart(table_of(load=NUMBERS["a"]))).count("<path") < 60


def test_without_the_extra_there_is_the_chart_and_the_text_and_what_needs_it_says_so(monkeypatch, tmp_path):
    for module in ("altair", "vl_convert"):
        monkeypatch.setitem(sys.modules, module, None)  # as `import` documents it: not installed
    chart = Chart(table_of(load=NUMBERS["a"]))

    bundle, _ = chart._repr_mimebundle_()
    assert set(bundle) == {"text/html", "text/plain"}
    assert "<img" not in bundle["text/html"]
    for use in (chart.to_altair, lambda: chart.save(tmp_path / "chart.png")):
        with pytest.raises(MissingPackage) as raised:
            use()
        assert raised.value.remedy == "Run: pip install 'micromegas_jupyter[charts]'"


def test_a_chart_is_saved_by_its_suffix_and_goes_into_altair(tmp_path):
    chart = Chart(table_of(**NUMBERS, **HOSTS))
    for suffix in ("json", "svg", "png"):
        chart.save(tmp_path / f"chart.{suffix}")

    assert json.loads((tmp_path / "chart.json").read_text()) == chart.spec
    assert (tmp_path / "chart.svg").read_text().startswith("<svg")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")
    assert chart.to_altair().properties(title="mine").to_dict()["title"] == "mine"
    with pytest.raises(UsageError, match=r"\.json, \.svg, or \.png"):
        chart.save(tmp_path / "chart.gif")


@pytest.mark.parametrize(
    ("table", "options", "what"),
    [
        (pa.table({}), {}, "no rows"),
        (pa.table({"l": [[1]]}), {}, r"There is nothing to plot \(l bigint\[\]\)"),
        (pa.table({"pid": [1, 2]}), {}, "nothing to plot"),
        (table_of(n=pa.nulls(6, pa.int64())), {}, "n is NULL in every row"),
        (pa.table({"time": pa.nulls(2, pa.timestamp("s")), "n": [1, 2]}), {}, "time has no times"),
        (pa.table(HOSTS), {"kind": "line"}, "nothing to plot"),
        (table_of(**HOSTS), {"kind": "point"}, r"needs another numeric column \(time timestamp"),
        (table_of(**HOSTS, **NUMBERS), {"x": "host", "kind": "point"}, "only be plotted as bars"),
        (table_of(**HOSTS), {"y": "host"}, r"needs numbers.* \(host text\)"),
        (table_of(**NUMBERS), {"color": "time"}, "colors need strings or numbers"),
        (table_of(load=NUMBERS["a"]), {"y": "laod"}, 'no column "laod"'),
        (table_of(load=NUMBERS["a"]), {"kind": "pie"}, '"pie" is not a chart type'),
        (table_of(load=NUMBERS["a"]), {"agg": "p95,p101"}, '"p101" is not an aggregate'),
        (table_of(load=NUMBERS["a"]), {"agg": "mean", "kind": "hist"}, "Charts of the kind hist count rows"),
        (table_of(load=NUMBERS["a"]), {"agg": [f"p{number}" for number in range(13)]}, "at most 12 aggregates"),
        (table_of(**HOSTS), {"agg": "p50"}, r"p50 needs a numeric column \(time timestamp"),
        (table_of(level=[1, 2] * 3), {"agg": "sum", "y": "level"}, r"can't be summed meaningfully \(level bigint\)"),
        (table_of(load=NUMBERS["a"]), {"bins": 0}, "number of bins is out of range"),
        (pa.table(HOSTS), {"bins": 5}, r"Only times and numbers can be binned \(host text\)"),
        (table_of(load=NUMBERS["a"]), {"log": "z"}, '"z" is not an axis'),
        (table_of(load=NUMBERS["a"]), {"log": "x"}, r"Only a numeric axis can be logarithmic \(time"),
        (table_of(load=[-1, 0] * 3), {"log": "y"}, "no value of load is above zero"),
        (table_of(load=NUMBERS["a"]), {"kind": "heat", "color": "load"}, "colors of a heat map are row counts"),
        (pa.table(HOSTS), {"kind": "heat"}, r"needs another column for its y axis \(host text\)"),
        (pa.table({"time": times(2), "l": [[1], [2]]}), {"y": ["l"]}, "This type cannot be plotted"),
    ],
)
def test_what_cannot_be_drawn_says_why(table, options, what):
    with pytest.raises(UsageError, match=what) as raised:
        Chart(table, **options)

    assert raised.value.remedy


@pytest.mark.parametrize(("values", "ends"), [(np.linspace(5, 275, 40), (0, 280)), (np.arange(3), (-0.5, 2.5))])
def test_a_histograms_axis_ends_with_its_bins(values, ends):
    chart = Chart(pa.table({"ms": values}), kind="hist")
    svg = svg_of(chart)

    edges = [float(row[name]) for row in rows(chart) for name in ("x", "x2")]
    assert (min(edges), max(edges)) == ends
    first_bar = re.search(r'mark-rect role-mark.*?<path[^>]* d="M([\d.]+),', svg)
    assert float(first_bar[1]) == 0
