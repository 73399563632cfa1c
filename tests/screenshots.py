"""Screenshots for the docs, and the animation, which `python -m tests.screenshots` records.

Tests take the screenshots after they have checked what these show.
"""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

IMAGES = Path(__file__).parents[1] / "docs" / "images"
#: The animation of README.md.
ANIMATION = "demo.webp"
MAX_ANIMATION_BYTES = 2_000_000
MAX_ANIMATION_SECONDS = 15
#: Each other image in docs/images, and the test that takes it.
MAKERS = {
    name: f"tests/integration/{test}"
    for test, names in {
        "binder/test_sign_in.py::test_the_quickstart_signs_in_and_queries": ("binder-light", "binder-dark"),
        "browser/test_result_grid.py::test_what_a_filter_leaves_is_sorted": ("grid-light",),
        "hub/test_lab.py::test_nothing_has_to_be_clicked_and_the_card_says_who_signed_in": (
            "jupyterhub-light",
            "jupyterhub-dark",
        ),
    }.items()
    for name in names
}


@pytest.fixture
def save_screenshot(request):
    """Save a page, or a part of one, as a picture of the test in `MAKERS`; the test has to save each of its own.

    They are taken with `--save-screenshots` only.
    """
    own = {name for name, test in MAKERS.items() if request.node.nodeid.split("[")[0] == test}
    saves = request.config.getoption("--save-screenshots")
    saved = set()

    def save(shown, name):
        assert name in own
        if saves:
            shown.screenshot(path=str(IMAGES / f"{name}.png"), animations="disabled")
        saved.add(name)

    yield save
    assert own <= saved or request.session.testsfailed, f"not taken: {sorted(own - saved)}"


FILTERED = "SELECT time, path, status, duration_ms\nFROM requests ORDER BY time DESC"
CHARTED = (
    "SELECT date_bin(interval '5 seconds', time) AS time, path, avg(duration_ms) AS duration_ms\n"
    "FROM requests WHERE service = 'identity provider' GROUP BY 1, 2 ORDER BY 1"
)
CELLS = ("%load_ext micromegas_jupyter\n%micromegas_login", "", "")
SIZE = {"width": 960, "height": 600}
POINTER = """() => {
    const pointer = document.createElement("div");
    const path = '<path d="M1 1v19l5-4 3 7 4-2-3-6h6z" fill="#000" stroke="#fff"/>';
    pointer.innerHTML = `<svg width="20" height="26">${path}</svg>`;
    pointer.style.cssText = "position:fixed;z-index:99999;pointer-events:none;left:600px;top:420px";
    document.documentElement.append(pointer);
    addEventListener("mousemove", moved => {
        pointer.style.left = `${moved.clientX}px`;
        pointer.style.top = `${moved.clientY}px`;
    }, true);
}"""


class Recorder:
    """Frames of pages, each with the time for which it is shown."""

    def __init__(self):
        self._frames = []
        self._at = {}

    def show(self, page, milliseconds):
        from PIL import Image

        image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
        self._frames.append((image, milliseconds))

    def point(self, page, target, *, steps=5):
        """Move the pointer to an element."""
        box = target.bounding_box()
        start_x, start_y = self._at.get(page, (600, 420))
        x, y = box["x"] + min(box["width"] / 2, 80), box["y"] + box["height"] / 2
        for step in range(1, steps + 1):
            page.mouse.move(start_x + (x - start_x) * step / steps, start_y + (y - start_y) * step / steps)
            self.show(page, 60)
        self._at[page] = x, y

    def type(self, page, text, *, letters):
        for start in range(0, len(text), letters):
            page.keyboard.insert_text(text[start : start + letters])
            self.show(page, 60)

    def save(self, path):
        images, durations = zip(*self._frames, strict=True)
        encoded = io.BytesIO()
        options = {"duration": list(durations), "loop": 0, "quality": 75, "method": 3}
        images[0].save(encoded, format="webp", save_all=True, append_images=images[1:], **options)
        size, seconds = len(encoded.getvalue()), sum(durations) / 1000
        print(f"{path}: {len(images)} frames, {seconds:.1f} s, {size:,} bytes")
        assert size <= MAX_ANIMATION_BYTES
        assert seconds <= MAX_ANIMATION_SECONDS
        path.write_bytes(encoded.getvalue())


@contextmanager
def running_demo(folder):
    """Run `micromegas demo --no-browser`; gives the address of a notebook with the cells of the animation."""
    import nbformat

    notebooks = folder / "micromegas-demo"
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("MICROMEGAS_", "JUPYTER"))}
    command = [sys.executable, "-m", "micromegas_jupyter.cli", "demo", "--no-browser", "--ready-json"]
    with (
        (folder / "stderr").open("w") as errors,
        subprocess.Popen(
            command, cwd=folder, env={**environ, "HOME": str(folder)}, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as demo,
    ):
        try:
            assert json.loads(demo.stdout.readline())
            cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
            metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)"}}
            nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), notebooks / "requests.ipynb")
            printed = (folder / "stderr").read_text(encoding="utf-8")
            address = next(word for word in printed.split() if "/lab/tree/" in word)
            yield address.replace("/lab/tree/quickstart.ipynb", "/doc/tree/requests.ipynb")
        finally:
            demo.send_signal(signal.SIGINT)
            demo.wait(timeout=60)


def scroll_to(page, cell):
    """Show a cell, with its result, at the top of the notebook."""
    cell.evaluate("""cell => {
        const scroller = cell.closest(".jp-WindowedPanel-outer");
        scroller.scrollTop += cell.getBoundingClientRect().top - scroller.getBoundingClientRect().top - 8;
    }""")
    page.wait_for_timeout(500)


def run_cell(page, recorder, cell, source):
    """Type a statement into a cell and run it."""
    cell.locator(".cm-content").click()
    scroll_to(page, cell)
    recorder.type(page, source, letters=9)
    page.keyboard.press("Escape")
    recorder.show(page, 500)
    page.keyboard.press("Control+Enter")


def sign_in(page, recorder, cell):
    """Click the button, and sign in as Alice in the tab that opens."""
    cell.locator(".cm-content").click()
    recorder.show(page, 700)
    page.keyboard.press("Control+Enter")
    button = cell.get_by_role("link", name=re.compile("Sign in"))
    button.wait_for()
    page.wait_for_timeout(500)
    recorder.point(page, button)
    recorder.show(page, 500)
    with page.context.expect_page() as opened:
        button.click()
    provider = opened.value
    for name in (re.compile("Alice"), re.compile("^Allow$")):
        choice = provider.get_by_role("button", name=name)
        choice.wait_for()
        provider.evaluate(POINTER)
        recorder.point(provider, choice)
        recorder.show(provider, 400)
        choice.click()
    provider.get_by_text("You are signed in").wait_for()
    provider.close()
    cell.get_by_text(re.compile(r"connected as alice@example\.com")).first.wait_for()
    recorder.show(page, 1200)


def record(page, recorder, address):
    page.goto(address)
    cells = page.locator(".jp-Notebook .jp-Cell")
    page.locator("text=/Python 3.*Idle/").first.wait_for()
    page.evaluate(POINTER)
    sign_in(page, recorder, cells.nth(0))
    page.wait_for_timeout(40_000)  # until the demo's program has stored some requests

    run_cell(page, recorder, cells.nth(1), f"%%sql\n{FILTERED}")
    cells.nth(1).locator(".micromegas-grid td").first.wait_for()
    page.wait_for_timeout(2000)
    scroll_to(page, cells.nth(1))
    recorder.show(page, 1000)
    grid_filter = cells.nth(1).get_by_label("Filter duration_ms")
    recorder.point(page, grid_filter)
    grid_filter.click()
    recorder.type(page, "> 5", letters=1)
    page.wait_for_timeout(1500)
    recorder.show(page, 1400)

    run_cell(page, recorder, cells.nth(2), f"%%sql --plot\n{CHARTED}")
    cells.nth(2).locator(".micromegas-chart canvas, .micromegas-chart svg").first.wait_for()
    page.wait_for_timeout(2000)
    scroll_to(page, cells.nth(2))
    recorder.show(page, 900)
    scroll_to(page, cells.nth(2).locator(".micromegas-grid"))
    recorder.show(page, 2500)


def main():
    from playwright.sync_api import sync_playwright

    recorder = Recorder()
    with tempfile.TemporaryDirectory() as folder, running_demo(Path(folder)) as address, sync_playwright() as launchers:
        browser = launchers.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_context(viewport=SIZE, reduced_motion="reduce").new_page()
        page.set_default_timeout(300_000)
        record(page, recorder, address)
        browser.close()
    recorder.save(IMAGES / ANIMATION)


if __name__ == "__main__":
    main()
