"""The log view in JupyterLab: keys, a hostile sender, both themes, a follow beside other cells, the saved notebook."""

import json
import time

import psutil
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
TRACE = "0af7651916cd43dd8448eb211c80319c"
GRID = f"%sql SELECT '{TRACE}' AS trace_id"
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
        page, path = open_notebook("log-view", "%micromegas_login --flow device", SETUP, FOLLOW, SEND, GRID)
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

        # A filter is removed, and a drag across the chart shows an earlier range.
        view.get_by_role("button", name="Remove the filter").click()
        expect(view.get_by_role("status")).to_have_text("2 lines")
        chart = view.get_by_role("slider").bounding_box()
        page.mouse.move(chart["x"] + 2, chart["y"] + 10)
        page.mouse.down()
        page.mouse.move(chart["x"] + chart["width"] / 2, chart["y"] + 10, steps=3)
        page.mouse.up()
        expect(view.get_by_role("status")).to_have_text("0 lines")

        page.locator(".micromegas-grid tbody td").filter(has_text=TRACE).click(button="right")
        page.get_by_role("menuitem", name="Open its trace").click()
        expect(page.locator(".jp-Notebook .cm-content").filter(has_text=f"%micromegas_trace {TRACE}")).to_be_visible()

        # The controls: the script runs as markup, and `d d` outside of the view deletes a cell.
        assert page.evaluate("window.ran") is None
        page.evaluate("text => { document.body.appendChild(document.createElement('p')).innerHTML = text }", SCRIPT)
        page.wait_for_function("window.ran === 1")
        page.locator(".jp-Notebook .cm-content").filter(has_text=added).click()
        press(page, "Escape", "d", "d")
        page.wait_for_function(
            "count => jupyterapp.shell.currentWidget.content.model.cells.length === count", arg=len(before) + 1
        )

        save(page)
        outputs = [out for cell in json.loads(path.read_text())["cells"] for out in cell.get("outputs", ())]
        tables = ["".join(each["data"]["text/html"]) for each in outputs if "text/html" in each.get("data", {})]
        (saved,) = [each for each in tables if ">message</th>" in each]
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


WRITE = """import os, subprocess, sys
writer = subprocess.Popen([sys.executable, "-c", '''
import os, sys, time, urllib.parse, requests
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
url = os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] + "/v1/logs"
name, value = urllib.parse.unquote(os.environ["OTEL_EXPORTER_OTLP_HEADERS"]).split("=", 1)
began, number = time.time(), 0
with requests.Session() as session, open(sys.argv[1], "w", buffering=1) as committed:
    session.headers.update({name: value, "Content-Type": "application/x-protobuf"})
    while (now := time.time()) < began + SECONDS:
        request = ExportLogsServiceRequest()
        sent = request.resource_logs.add()
        sent.resource.attributes.add(key="service.name").value.string_value = "load"
        lines = sent.scope_logs.add().log_records
        for _ in range(250 if now < began + SECONDS / 2 else 1250):
            number += 1
            line = lines.add(time_unix_nano=time.time_ns(), severity_number=9)
            line.body.string_value = f"order {number} took {number % 97} ms"
        session.post(url, request.SerializeToString(), timeout=60).raise_for_status()
        print(number, time.time(), file=committed)
        time.sleep(max(now + 0.25 - time.time(), 0))
''', "COMMITTED"])
print("kernel", os.getpid())"""
WATCH = r"""view => {
    window.seen = [];
    const read = () => {
        const last = view.querySelector("[role=option]:last-child")?.textContent;
        const number = last?.match(/order (\d+)/)?.[1];
        if (number && number !== window.seen.at(-1)?.[0]) window.seen.push([number, Date.now() / 1000]);
    };
    new MutationObserver(read).observe(view, { childList: true, subtree: true });
}"""
LONG_SECONDS, MAX_GROWTH_BYTES = 600, 20_000_000


@pytest.mark.long
@pytest.mark.timeout(1_500)
def test_a_long_follow_shows_lines_within_a_second_and_needs_no_more_memory(lab, tmp_path):
    """A separate process writes 1,000 lines a second for the first half of the time and 5,000 for the second one."""
    committed = tmp_path / "committed"
    write = WRITE.replace("SECONDS", str(LONG_SECONDS)).replace("COMMITTED", str(committed))
    with notebook_opener(lab, tmp_path / "config") as open_notebook:
        follow = "%micromegas_logs --begin 1m --service load --follow"
        page, _ = open_notebook("long-follow", "%micromegas_login --flow device", follow, write)
        sign_in_by_code(page)
        view = page.locator(VIEW)
        view.get_by_role("listbox").get_by_role("option").first.wait_for()
        view.evaluate(WATCH)
        printed = page.locator(".jp-OutputArea-output").filter(has_text="kernel").last
        kernel = psutil.Process(int(printed.inner_text().split()[1]))
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable")

        began, sizes = time.monotonic(), []
        while time.monotonic() < began + LONG_SECONDS:
            page.wait_for_timeout(LONG_SECONDS * 1000 / 60)
            session.send("HeapProfiler.collectGarbage")
            metrics = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
            sizes.append((time.monotonic() - began, kernel.memory_info().rss, metrics["JSHeapUsedSize"]))
        total = int(committed.read_text().split()[-2])
        expect(view.get_by_role("status")).to_contain_text(f"{total:,} lines")
        seen = [(int(number), at) for number, at in page.evaluate("window.seen")]

    delays, shown = [], iter(seen)
    number, visible_at = next(shown)
    first_seen_at = visible_at
    for stored, at in (line.split() for line in committed.read_text().splitlines()):
        while number < int(stored):
            number, visible_at = next(shown)
        if float(at) > first_seen_at:
            delays.append(visible_at - float(at))
    delays.sort()
    p95 = delays[len(delays) * 95 // 100]
    before = next(each for each in sizes if each[0] >= LONG_SECONDS / 10)
    kernel_growth, page_growth = (sizes[-1][each] - before[each] for each in (1, 2))
    print(
        f"{total:,} lines, commit to visible median {delays[len(delays) // 2]:.2f} s, p95 {p95:.2f} s, "
        f"kernel {kernel_growth / 1e6:+.1f} MB, page {page_growth / 1e6:+.1f} MB"
    )
    assert p95 < 1
    assert max(kernel_growth, page_growth) < MAX_GROWTH_BYTES
