"""The rows of a query in JupyterLab: sorted, filtered and paged, in both themes, and without a kernel."""

import re

import pytest

from tests.integration.browser.conftest import notebook_opener
from tests.integration.browser.looks import DARKEST, check_accessible, choose_theme, luminance, save, sign_in_by_code
from tests.integration.reloading import wait_for_widget

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

SQL = """%%sql
SELECT to_timestamp_nanos(1700000000000000000 + value * 1000000000) AS time,
       (value * 7919) % 1009 - 500 AS score, 'host-' || (value % 3) AS host,
       CASE WHEN value % 10 = 0 THEN NULL ELSE '<b>' || value || '</b>' END AS msg
FROM generate_series(0, 1841)
"""
PLOT = """%%sql --plot
SELECT arrow_cast(1700000000000000000 + value * 1000000000, 'Timestamp(Nanosecond, Some("UTC"))') AS time,
       'host-' || (value % 3) AS host, 'ms' AS unit, 100 + 50 * sin(value / 900.0 + value % 3) AS latency
FROM generate_series(0, 19999)
"""


CELLS = 5

# Kernel messages go over WebSockets, as text or, in the newer protocol, as bytes.
WATCH_SOCKETS = """() => {
    const send = WebSocket.prototype.send;
    window.sentTexts = [];
    WebSocket.prototype.send = function (data) {
        window.sentTexts.push(typeof data === "string" ? data : new TextDecoder().decode(data));
        return send.call(this, data);
    };
}"""


@pytest.fixture(scope="module")
def notebook(browser, demo, tmp_path_factory):
    """A notebook in which a query has been answered: its page and its file."""
    with notebook_opener(browser, demo, tmp_path_factory.mktemp("config")) as open_notebook:
        page, path = open_notebook("result", "%micromegas_login --flow device", SQL, PLOT)
        sign_in_by_code(page)
        page.get_by_role("group", name="Query result").nth(1).wait_for()
        page.locator("text=/Python 3.*Idle/").first.wait_for()
        save(page)
        yield page, path


@pytest.fixture
def shown(notebook):
    """The page and the result as it is at first."""
    page, _ = notebook
    page.reload()
    result = page.get_by_role("group", name="Query result").first
    result.wait_for()
    return page, result


def _column(result, number):
    return result.locator(f"tbody td:nth-child({number})").all_inner_texts()


def test_a_person_sorts_filters_and_turns_pages_without_asking_the_kernel(shown, tmp_path):
    page, result = shown
    # The widget above asks the kernel for its state when the page is loaded.
    wait_for_widget(page, page.get_by_role("region", name="Micromegas sign-in").get_by_text("Alice Martin"))
    page.evaluate(WATCH_SOCKETS)
    header = {name: result.get_by_role("columnheader", name=name) for name in ("time", "score", "msg")}
    assert header["time"].inner_text().split("\n") == ["time", "timestamp[ns, no time zone]"]
    assert header["msg"].get_attribute("title") == "185 null of 1,842 rows"
    note = "first 1,000 of 1,842 rows; sorting and filters see only these 1,000"
    assert result.get_by_text(note, exact=True).is_visible()
    assert page.locator(".jp-Cell").nth(3).locator("table").count() == 1
    assert result.locator("b").count() == 0

    header["score"].get_by_role("button").click()
    assert header["score"].get_attribute("aria-sort") == "ascending"
    assert [int(text) for text in _column(result, 2)] == sorted(int(text) for text in _column(result, 2))
    assert _column(result, 2)[0] == "-500"
    header["msg"].get_by_role("button").click()
    header["msg"].get_by_role("button").click()
    assert header["score"].get_attribute("aria-sort") == "none"
    assert header["msg"].get_attribute("aria-sort") == "descending"
    assert _column(result, 4)[0] == "<b>999</b>"
    result.get_by_role("button", name="Last page").click()
    assert _column(result, 4) == ["null"] * 20
    assert result.get_by_text("rows 981–1,000 of 1,000").is_visible()
    header["msg"].get_by_role("button").click()
    assert header["msg"].get_attribute("aria-sort") == "none"

    result.get_by_label("Filter", exact=True).fill("HOST-2")
    assert result.get_by_text("333 of the first 1,000 rows match").is_visible()
    result.get_by_role("button", name="By column").click()
    result.get_by_label("Filter msg").fill("99")
    assert _column(result, 4) == ["<b>299</b>", "<b>599</b>", "<b>899</b>", "<b>992</b>", "<b>995</b>", "<b>998</b>"]
    page.screenshot(path=str(tmp_path / "filtered.png"))
    result.get_by_role("button", name="By column").click()
    assert result.get_by_text("333 of the first 1,000 rows match").is_visible()
    result.get_by_label("Rows a page").select_option("200")
    assert len(_column(result, 1)) == 200

    assert [text for text in page.evaluate("window.sentTexts") if re.search("comm_|execute_", text)] == []


def test_the_keyboard_does_it_all_and_jupyterlab_takes_no_key_that_is_typed(shown):
    page, result = shown
    result.get_by_label("Filter", exact=True).focus()
    page.keyboard.type("host-1 dd")
    assert result.get_by_text("0 of the first 1,000 rows match").is_visible()
    page.keyboard.press("Control+a")
    page.keyboard.press("Delete")
    for _ in range(3):
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "score"
    page.keyboard.press("Enter")
    page.keyboard.press("Space")

    assert page.evaluate("document.activeElement.closest('th').getAttribute('aria-sort')") == "descending"
    assert _column(result, 2)[0] == "508"
    result.get_by_role("button", name="Next page").focus()
    page.keyboard.press("Enter")
    assert result.get_by_text("rows 21–40 of 1,000").is_visible()
    assert page.locator(".jp-Notebook .jp-Cell").count() == CELLS


def test_a_result_suits_both_themes_and_everybody(shown):
    page, result = shown
    result.get_by_role("button", name="By column").click()
    result.locator("th button").nth(1).click()

    for theme, is_dark in (("JupyterLab Dark", True), ("JupyterLab Light", False)):
        choose_theme(page, theme)
        result.get_by_role("group", name="Pages").scroll_into_view_if_needed()
        assert (luminance(result.get_by_label("Filter", exact=True)) < DARKEST) is is_dark
        check_accessible(page, ".micromegas-result", texts=5)


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


def test_a_chart_shows_values_zooms_and_isolates_in_both_themes(shown, tmp_path):
    page, _ = shown
    canvas = page.locator(".vega-embed canvas")
    canvas.wait_for()
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    _, drawn = canvas.evaluate(PIXELS)

    page.mouse.move(box["x"] + 300, box["y"] + 120)
    page.mouse.move(box["x"] + 304, box["y"] + 122)
    tooltip = page.locator("#vg-tooltip-element.visible")
    tooltip.wait_for()
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

    for theme, is_dark in (("JupyterLab Dark", True), ("JupyterLab Light", False)):
        choose_theme(page, theme)
        page.reload()
        canvas.wait_for()
        canvas.scroll_into_view_if_needed()
        canvas.screenshot(path=str(tmp_path / f"chart {theme}.png"))
        assert (canvas.evaluate(PIXELS)[0] > 0.5) is is_dark


def test_a_notebook_that_is_opened_again_shows_the_rows_without_a_kernel(shown, notebook, tmp_path):
    page, result = shown
    path = notebook[1]
    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.locator(".lm-Menu-itemLabel", has_text=re.compile("^Shut Down Kernel$")).click()
    page.locator("text=/No Kernel/").first.wait_for()

    page.reload()
    result.wait_for()
    result.get_by_role("button", name="Next page").click()
    assert result.get_by_text("rows 21–40 of 1,000").is_visible()

    # Another person's notebook is not trusted: no script of it runs.
    foreign = path.with_name("foreign.ipynb")
    foreign.write_text(path.read_text(encoding="utf-8").replace("'host-'", "'other-'"), encoding="utf-8")
    page.goto(page.url.split("?")[0].replace("result", "foreign"))
    page.get_by_text("first 20 of 1,842 rows").wait_for()
    page.screenshot(path=str(tmp_path / "foreign.png"))
    assert page.locator(".jp-Cell").nth(3).locator("tbody tr").count() == 20
    assert result.count() == 0
    page.locator(".vega-embed canvas").wait_for()
