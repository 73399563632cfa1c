"""Bar charts of 5,130 requests, what SQL counts and sums for them, and what a reader sees in their scene graphs."""

import duckdb
import numpy as np
import pyarrow as pa

from micromegas_jupyter.notebook.charts.chart import Chart

ROWS = 5130
BAR_CHARTS = {
    "histogram by service": {"kind": "hist", "x": "ms", "color": "service"},
    "histogram of status by service": {"kind": "hist", "x": "status", "color": "service"},
    "time by service": {"kind": "bar", "x": "time", "y": "ms", "color": "service"},
    "time by status": {"kind": "bar", "x": "time", "y": "status"},
    "number by service": {"kind": "bar", "x": "ms", "color": "service"},
    "service": {"kind": "bar", "x": "service", "y": "ms"},
    "service by level": {"kind": "bar", "x": "service", "y": "level"},
    "chosen by the columns": {},
}
"""Options of charts, by name."""


def requests():
    """Return rows whose three services have 1,710 requests each."""
    random = np.random.default_rng(3)
    return pa.table(
        {
            "time": pa.array(1_793_491_200 + np.sort(random.integers(0, 3600, ROWS))).cast(pa.timestamp("s", "UTC")),
            "service": np.array(["api", "db", "web"])[np.arange(ROWS) % 3],
            "status": random.choice([200, 404, 500], ROWS),
            "level": pa.array(random.integers(1, 6, ROWS), pa.int32()),
            "ms": np.exp(random.normal(2, 1.4, ROWS)),
        }
    )


def bar_chart(name):
    """Return one of the charts."""
    table = requests()
    return Chart(table if BAR_CHARTS[name] else table.select(["service", "status", "level"]), **BAR_CHARTS[name])


def expected_totals(name):
    """Return what SQL counts or sums for the one panel of a chart."""
    wanted = "sum(ms)" if BAR_CHARTS[name].get("y") == "ms" else "count(*)"
    return [float(value) for value in duckdb.from_arrow(requests()).aggregate(wanted).fetchone()]


def bar_totals(scene):
    """Return for each panel with bars their total length, and that of what is not drawn over, in units of the axis."""
    return [_totals(panel) for panel in _groups(scene) if any(map(_has_bars, panel["items"]))]


def _groups(group):
    for item in group["items"]:
        if "items" in item:
            if "marktype" not in item:
                yield item
            yield from _groups(item)


def _has_bars(mark):
    return mark.get("marktype") == "rect" and mark.get("role") == "mark" and bool(mark["items"])


def _totals(panel):
    (bars,) = (mark["items"] for mark in panel["items"] if _has_bars(mark))
    # Vertical bars stand on the bottom of the panel; between horizontal ones and its edges is some room.
    is_horizontal = all(bar.get("y", 0) + bar["height"] < panel["height"] - 0.1 for bar in bars)
    start, length, place = ("x", "width", "y") if is_horizontal else ("y", "height", "x")
    per_pixel = _units_per_pixel(panel, "bottom" if is_horizontal else "left", start)
    ends = {}
    for bar in bars:
        low = bar.get(start, 0)
        ends.setdefault(round(bar.get(place, 0), 3), []).append((low, low + bar[length]))
    total = sum(high - low for spans in ends.values() for low, high in spans)
    return total * per_pixel, sum(map(_covered, ends.values())) * per_pixel


def _covered(spans):
    """Return the length of the union of spans."""
    covered, end = 0, float("-inf")
    for low, high in sorted(spans):
        covered += max(high - max(low, end), 0)
        end = max(end, high)
    return covered


def _units_per_pixel(panel, orient, start):
    axes = [group for group in _groups(panel) if group.get("orient") == orient]
    labels = [item for axis in axes for mark in axis["items"] if mark["role"] == "axis-label" for item in mark["items"]]
    (low, low_at), *_, (high, high_at) = ((_number(label["text"]), label[start]) for label in labels)
    return abs((high - low) / (high_at - low_at))


def _number(text):
    number = text.replace(",", "").replace("−", "-")
    return float(number.removesuffix(" k")) * (1000 if number.endswith(" k") else 1)
