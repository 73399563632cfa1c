"""The log view in JupyterLab: keys, a hostile sender, both themes, a follow beside other cells, the saved notebook."""

import json

import pytest
from playwright.sync_api import expect

from tests.integration.browser.conftest import notebook_opener
from tests.integration.browser.looks import DARKEST, check_accessible, choose_theme, luminance, save, sign_in_by_code

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

SCRIPT = "<img src=x onerror=window.ran=1>"
SETUP = f"""import logging
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
provider = LoggerProvider(resource=Resource({{"service.name": {SCRIPT!r}}}))
provider.add_log_record_processor(SimpleLogRecordProcessor(OTLPLogExporter()))
sender = logging.getLogger("sender")
sender.addHandler(LoggingHandler(logger_provider=provider))
with TracerProvider().get_tracer("test").start_as_current_span("order") as span:
    sender.error({SCRIPT!r}, extra={{{SCRIPT!r}: {SCRIPT!r}}})
trace_id = format(span.get_span_context().trace_id, "032x")
print(trace_id)"""
FOLLOW = '%micromegas_logs --begin 1h --service "<img" --follow'
SEND = "sender.warning('sent by another cell')"
MAX_SAVED_BYTES = 30_000
VIEW = ".micromegas-logs"


def cells(page):
    return page.evaluate(
        "() => [...jupyterapp.shell.currentWidget.content.model.cells].map(each => each.sharedModel.getSource())"
    )


def press(page, *keys):
    for key in keys:
        page.keyboard.press(key)


def test_a_log_is_followed_and_used_by_keyboard_in_both_themes_and_saved_as_text(  # noqa: PLR0915 - one session
    lab, tmp_path_factory
):
    with notebook_opener(lab, tmp_path_factory.mktemp("config")) as open_notebook:
        page, path = open_notebook("log-view", "%micromegas_login --flow device", SETUP, FOLLOW, SEND)
        page.evaluate("window.ran = undefined")
        sign_in_by_code(page)

        # The follow runs while the next cell sends a line.
        view = page.locator(VIEW)
        lines, details = view.get_by_role("listbox"), view.get_by_role("group", name="Details")
        expect(lines).to_contain_text("sent by another cell")
        expect(view.get_by_role("status")).to_have_text("2 lines")

        # `d d` deletes no cell.
        before = cells(page)
        lines.focus()
        press(page, "Home", "d", "d")
        expect(details).to_contain_text(SCRIPT)
        trace = details.get_by_role("button", name="Its trace")
        trace.focus()
        press(page, "d", "d", "Enter")
        page.wait_for_function(
            "count => jupyterapp.shell.currentWidget.content.model.cells.length === count", arg=len(before) + 1
        )
        (added,) = [each for each in cells(page) if each.startswith("%micromegas_trace ")]
        expect(page.get_by_text(added.split()[1]).first).to_be_visible()

        for theme, is_dark in (("JupyterLab Dark", True), ("JupyterLab Light", False)):
            choose_theme(page, theme)
            view.scroll_into_view_if_needed()
            lines.focus()
            press(page, "Home")
            expect(details).to_contain_text(SCRIPT)
            check_accessible(page, VIEW, texts=10)
            view.get_by_role("button", name="Patterns").focus()
            press(page, "Enter")
            expect(details).to_contain_text("2 patterns")
            check_accessible(page, VIEW, texts=10)
            assert (luminance(lines) < DARKEST) == is_dark
            press(page, "Escape")
            expect(details).to_be_hidden()

        # A filter of a follow begins it again; its button ends it.
        lines.focus()
        press(page, "Home")
        details.get_by_role("button", name=f"Only lines with this {SCRIPT}").focus()
        press(page, "Enter")
        expect(view.get_by_role("status")).to_have_text("1 line")
        follow = view.get_by_role("button", name="Follow")
        follow.focus()
        press(page, "Enter")
        expect(follow).to_have_attribute("aria-pressed", "false")

        # The controls: the script runs as markup, and `d d` outside of the view deletes a cell.
        assert page.evaluate("window.ran") is None
        page.evaluate("text => { document.body.appendChild(document.createElement('p')).innerHTML = text }", SCRIPT)
        page.wait_for_function("window.ran === 1")
        page.locator(".jp-Notebook .cm-content").filter(has_text=added).click()
        press(page, "Escape", "d", "d")
        page.wait_for_function(
            "count => jupyterapp.shell.currentWidget.content.model.cells.length === count", arg=len(before)
        )

        save(page)
        outputs = [out for cell in json.loads(path.read_text())["cells"] for out in cell.get("outputs", ())]
        saved = ["".join(each["data"]["text/html"]) for each in outputs if "text/html" in each.get("data", {})][-1]
        assert len(saved.encode()) < MAX_SAVED_BYTES
        assert "&lt;img src=x" in saved

        # A copy isn't trusted, and its kernel knows no widget.
        copy = path.with_name("log-view-copy.ipynb")
        copy.write_text(path.read_text())
        page.evaluate("window.ran = undefined")
        page = lab.show(copy)
        expect(page.locator(".jp-RenderedHTMLCommon").get_by_role("table").first).to_contain_text(SCRIPT)
        assert page.evaluate("window.ran") is None
        expect(page.locator(VIEW)).to_have_count(0)
