"""A chart in JupyterLab: values, zoom, legend and both themes."""

import re
from contextlib import suppress

import pyarrow as pa
import pytest
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError

from micromegas_jupyter.notebook.charts.chart import Chart
from tests.fakes.bar_charts import BAR_CHARTS, bar_chart, bar_totals, expected_totals
from tests.integration.browser.conftest import notebook_opener
from tests.integration.browser.looks import choose_theme, save, sign_in_by_code

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

HOVER_TRIES, HOVER_MILLISECONDS = 30, 3_000

ROWS = """%%sql data << --format arrow
SELECT arrow_cast(1700000000000000000 + value * 1000000000, 'Timestamp(Nanosecond, Some("UTC"))') AS time,
       'host-' || (value % 3) || ' of a far data center' AS host, 'ms' AS unit,
       100 + 50 * sin(value / 900.0 + value % 3) AS latency
FROM generate_series(0, 19999)
"""
CHART = """from micromegas_jupyter.notebook.charts.chart import Chart
Chart(data)"""


@pytest.fixture(scope="module")
def page(lab, tmp_path_factory):
    """A notebook with a chart."""
    with notebook_opener(lab, tmp_path_factory.mktemp("config")) as open_notebook:
        page, _ = open_notebook("chart", "%micromegas_login --flow device", ROWS, CHART)
        sign_in_by_code(page)
        page.locator(".vega-embed canvas").wait_for()
        page.locator("text=/Python 3.*Idle/").first.wait_for()
        save(page)
        yield page


# Of a canvas: the share of its pixels that are dark, and how many are of the color of the first series or near it.
PIXELS = """canvas => {
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    let dark = 0, colored = 0;
    for (let at = 0; at < data.length; at += 4) {
        dark += data[at] + data[at + 1] + data[at + 2] < 240;
        colored += Math.abs(data[at] - 0x2f) + Math.abs(data[at + 1] - 0x7e) + Math.abs(data[at + 2] - 0xd8) < 30;
    }
    return [(4 * dark) / data.length, colored];
}"""


# JupyterLab's own Vega and Vega-Lite, which it shares with its extensions, and the scene graphs of what they draw.
RENDER = """async specs => {
    let require;
    self.rspackChunk_jupyterlab_application_top.push([["test"], {}, found => (require = found)]);
    const load = async name => {
        const [[version, { get }]] = Object.entries(require.S.default[name]);
        return [version, (await get())()];
    };
    const [[version, lite], [, vega]] = [await load("vega-lite"), await load("vega")];
    const scenes = [];
    for (const spec of specs) {
        const view = new vega.View(vega.parse(lite.compile(spec).spec), { renderer: "none" });
        await view.runAsync();
        scenes.push(JSON.parse(view.scenegraph().toJSON()));
    }
    return [version, scenes];
}"""


def test_bars_drawn_by_jupyterlab_add_up_to_what_sql_counts_and_sums(page):
    odd = Chart(pa.table({'a["b"]': [1.5, 2, 4], "constructor": ["toString", "__proto__", "c"]}), kind="bar")
    specs = [*(bar_chart(name).spec for name in BAR_CHARTS), odd.spec]

    version, (*scenes, odd_scene) = page.evaluate(RENDER, specs)

    assert version == "5.6.1"
    for name, scene in zip(BAR_CHARTS, scenes, strict=True):
        expected = [(pytest.approx(total), pytest.approx(total)) for total in expected_totals(name)]
        assert (name, bar_totals(scene)) == (name, expected)
    assert bar_totals(odd_scene) == [(pytest.approx(7.5), pytest.approx(7.5))]


def test_a_chart_shows_values_zooms_and_isolates_in_both_themes(page):
    canvas = page.locator(".vega-embed canvas")
    canvas.wait_for()
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    _, drawn = canvas.evaluate(PIXELS)
    # With JupyterLab's file browser beside it.
    output = page.locator(".jp-OutputArea-output").filter(has=canvas)
    assert output.evaluate("each => each.scrollWidth === each.clientWidth")

    tooltip = page.locator("#vg-tooltip-element.visible")
    for _ in range(HOVER_TRIES):  # a chart that is drawn anew hears nothing of a pointer that rests
        box = canvas.bounding_box()
        page.mouse.move(box["x"] + 300, box["y"] + 120)
        page.mouse.move(box["x"] + 304, box["y"] + 122)
        with suppress(PlaywrightTimeoutError):
            tooltip.wait_for(timeout=HOVER_MILLISECONDS)
            break
    assert re.search(
        r"time \(UTC\):\s*2023-11-1\d .*latency \(ms\):\s*\d.*host:\s*host-\d", tooltip.inner_text(), re.DOTALL
    )
    before = canvas.evaluate("canvas => canvas.toDataURL()")
    page.mouse.wheel(0, -400)
    page.mouse.move(box["x"] + 2, box["y"] + 2)
    page.wait_for_function("([canvas, before]) => canvas.toDataURL() !== before", arg=[canvas.element_handle(), before])
    page.mouse.dblclick(box["x"] + 304, box["y"] + 122)
    page.mouse.click(box["x"] + box["width"] - 30, box["y"] + 75)  # the second name in the legend
    page.wait_for_function(
        f"([canvas, drawn]) => ({PIXELS})(canvas)[1] < drawn * 0.5", arg=[canvas.element_handle(), drawn]
    )

    assert canvas.evaluate(PIXELS)[0] < 0.5
    with page.expect_response(lambda answer: answer.request.method == "PUT" and "themes" in answer.url):
        choose_theme(page, "JupyterLab Dark")
    page.reload()
    canvas.wait_for()
    canvas.scroll_into_view_if_needed()
    page.wait_for_function(f"canvas => ({PIXELS})(canvas)[0] > 0.5", arg=canvas.element_handle())
    choose_theme(page, "JupyterLab Light")
