"""A trace and a flame graph in JupyterLab: views, keys, details, a hostile sender, both themes, the saved notebook."""

import json
import re

import pytest
from playwright.sync_api import expect

from tests.integration.browser.conftest import notebook_opener
from tests.integration.browser.looks import DARKEST, check_accessible, choose_theme, luminance, save, sign_in_by_code

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

SCRIPT = "<img src=x onerror=window.ran=1>"
SEND = f"""from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
provider = TracerProvider(resource=Resource({{"service.name": {SCRIPT!r}}}))
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
tracer = provider.get_tracer("test")
with tracer.start_as_current_span("order") as order:
    link = trace.Link(trace.SpanContext(7, 8, is_remote=True))
    with tracer.start_as_current_span({SCRIPT!r}, attributes={{{SCRIPT!r}: {SCRIPT!r}}}, links=[link]) as child:
        child.add_event({SCRIPT!r}, {{"card": {SCRIPT!r}}})
        child.set_status(trace.StatusCode.ERROR, {SCRIPT!r})
provider.shutdown()
trace_id = format(order.get_span_context().trace_id, "032x")"""
SHOW = "get_ipython().run_line_magic('micromegas_trace', trace_id)"
FLAME = f'%micromegas_flame --service "{SCRIPT}" --begin 1h --against 1h..'
CORNER_IS_DARK = """isDark => [...document.querySelectorAll('.micromegas-trace canvas')]
    .filter(each => each.clientWidth)
    .every(each => each.getContext('2d').getImageData(1, each.height - 2, 1, 1).data[0] < 128 === isDark)"""
MAX_SAVED_BYTES = 30_000
PAGE_OF_VIEW = ".micromegas-trace"


def cells(page):
    return page.evaluate(
        "() => [...jupyterapp.shell.currentWidget.content.model.cells].map(each => each.sharedModel.getSource())"
    )


def press(page, *keys):
    for key in keys:
        page.keyboard.press(key)


@pytest.fixture(scope="module")
def notebook(lab, tmp_path_factory):
    """A notebook of a signed-in user with a trace and a flame graph: its page and its file."""
    with notebook_opener(lab, tmp_path_factory.mktemp("config")) as open_notebook:
        page, path = open_notebook("trace-view", "%micromegas_login --flow device", SEND, SHOW, FLAME)
        page.evaluate("window.ran = undefined")
        sign_in_by_code(page)
        expect(page.locator(PAGE_OF_VIEW).nth(1)).to_contain_text("per trace")
        yield page, path


def test_everything_is_done_by_keyboard(notebook):
    page, _ = notebook
    shown = page.locator(PAGE_OF_VIEW).first
    details, status = shown.get_by_role("group", name="Selected span"), shown.locator(".micromegas-trace-live")
    expect(details).to_contain_text("order")

    # Errors, the critical path, and details, by keyboard; `d d` moves and deletes no cell.
    before = cells(page)
    shown.get_by_role("application").focus()
    press(page, "w", "d", "d", "d", "d", "0", "e")
    expect(status).to_contain_text("✗ error · critical path")
    for text in ("card", f"ERROR: {SCRIPT}", "Events", "Links"):
        expect(details).to_contain_text(text)
    press(page, "ArrowUp")
    expect(status).to_contain_text("order")
    press(page, "ArrowLeft", "ArrowRight", "ArrowDown")
    expect(status).to_contain_text(SCRIPT)
    press(page, "/")
    page.keyboard.type("ONERROR")
    press(page, "Enter")
    expect(shown).to_contain_text("2 found")  # the service has that name, too
    assert cells(page) == before


def test_a_flame_graph_is_used_by_keyboard(notebook):
    page, _ = notebook
    shown, before = page.locator(PAGE_OF_VIEW).nth(1), cells(page)
    status = shown.locator(".micromegas-trace-live")
    shown.scroll_into_view_if_needed()
    shown.get_by_role("application").focus()
    press(page, "w", "d", "d", "0", "e")
    expect(status).to_contain_text("1 errors")
    press(page, "ArrowUp")
    expect(status).to_contain_text("order")
    press(page, "/")
    page.keyboard.type("Order")
    press(page, "Enter")
    expect(shown).to_contain_text("1 found")
    assert cells(page) == before


def test_views_are_accessible_in_both_themes_and_names_stay_text(notebook, tmp_path):
    page, _ = notebook
    shown, before = page.locator(PAGE_OF_VIEW).first, cells(page)
    details = shown.get_by_role("group", name="Selected span")
    for theme, is_dark in (("JupyterLab Dark", True), ("JupyterLab Light", False)):
        choose_theme(page, theme)
        page.wait_for_function(CORNER_IS_DARK, arg=is_dark)
        for position, title in ((1, "Flame graph"), (1, "Table"), (0, "Waterfall"), (0, "Flame graph"), (0, "Table")):
            view = page.locator(PAGE_OF_VIEW).nth(position)
            button = view.get_by_role("button", name=title)
            button.focus()
            press(page, "Enter")
            expect(button).to_have_attribute("aria-pressed", "true")
            view.scroll_into_view_if_needed()
            page.screenshot(path=str(tmp_path / f"{theme} {position} {title}.png"))
            view.evaluate("(view, id) => (view.id = id)", f"view-{position}")
            check_accessible(page, f"#view-{position}", texts=5 if position else 10)
        assert (luminance(details) < DARKEST) == is_dark
    row = shown.get_by_role("table").get_by_role("button", name="order")
    row.focus()
    press(page, "Enter")
    expect(row).to_have_attribute("aria-pressed", "true")
    expect(details).not_to_contain_text("card")

    # A link inserts a cell.
    shown.get_by_role("table").get_by_role("button", name=SCRIPT).click()
    details.get_by_role("button", name=re.compile("^Trace 0000")).click()
    expect(page.locator(".jp-Notebook .cm-content").filter(has_text=f"%micromegas_trace {7:032x}")).to_be_visible()
    assert len(cells(page)) == len(before) + 1

    # The controls: the script runs as markup, and `d d` outside of the view deletes the cell.
    assert page.evaluate("window.ran") is None
    page.evaluate("script => { document.body.appendChild(document.createElement('p')).innerHTML = script }", SCRIPT)
    page.wait_for_function("window.ran === 1")
    press(page, "Escape", "d", "d")
    page.wait_for_function(
        "count => jupyterapp.shell.currentWidget.content.model.cells.length === count", arg=len(before)
    )


def test_a_saved_trace_is_small_and_readable_without_a_kernel_and_untrusted(lab, notebook):
    page, path = notebook
    save(page)
    outputs = [out for cell in json.loads(path.read_text())["cells"] for out in cell.get("outputs", ())]
    saved = ["".join(each["data"]["text/html"]) for each in outputs if "text/html" in each.get("data", {})][-2:]
    assert all(len(each.encode()) < MAX_SAVED_BYTES and "<table>" in each for each in saved)

    # A copy isn't trusted, and its kernel knows no widget.
    copy = path.with_name("trace-view-copy.ipynb")
    copy.write_text(path.read_text())
    page.evaluate("window.ran = undefined")
    page = lab.show(copy)
    table = page.locator(".jp-RenderedHTMLCommon").get_by_role("table").first
    expect(table).to_contain_text("order")
    bar = table.locator("td div div").first
    assert bar.bounding_box()["width"] > 100
    assert bar.evaluate("each => getComputedStyle(each).backgroundColor") != "rgba(0, 0, 0, 0)"
    assert page.evaluate("window.ran") is None
    expect(page.locator(PAGE_OF_VIEW)).to_have_count(0)
