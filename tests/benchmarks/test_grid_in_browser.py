"""What a person waits for in a grid of a million rows, in JupyterLab and Notebook 7; printed, never judged."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.integration.browser.conftest import browser, chromium, context, demo, lab, notebook_opener

__all__ = ["browser", "chromium", "context", "demo", "lab"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

REPOSITORY = Path(__file__).parents[2]
MAKE = f"""import sys, time; sys.path.insert(0, {str(REPOSITORY)!r})
from tests.fakes.result_rows import many_rows
from micromegas_jupyter.notebook.query_result import QueryResult
rows = many_rows()
print("made")"""
SHOW = """print("rows at", 1000 * time.time())
QueryResult(rows)"""
SORTS = ("level", "msg", "price", "time", "process_id")
FILTERS = {"level": "= INFO", "msg": "took 5", "value": "> 90000", "price": "1..100000", "time": "> 2026-12-01"}

# A frame is drawn after each callback of requestAnimationFrame.
TOOLS = """() => {
  const frame = () => new Promise(requestAnimationFrame);
  const grid = () => [...document.querySelectorAll(".micromegas-grid")].at(-1);
  const texts = () => [...(grid()?.querySelectorAll("tbody td[aria-colindex='3']") ?? [])].map((each) => each.textContent);
  const isThere = () => texts().length > 0 && !texts().includes("…");
  const until = async (holds) => { while (!holds()) await frame(); await frame(); };
  const header = (name) => [...grid().querySelectorAll("thead th")].find((each) => each.innerText.startsWith(name));
  window.grids = {
    painted: async () => { await until(isThere); return Date.now(); },
    sorted: async (name) => {
      const began = performance.now(), before = grid().querySelector("tbody").innerText;
      header(name).querySelector(".micromegas-grid-name").click();
      await until(() => grid().querySelector("tbody").innerText !== before && isThere());
      return performance.now() - began;
    },
    filtered: async (name, typed) => {
      const began = performance.now(), status = grid().querySelector("[role=status]"), before = status.textContent;
      const input = header(name).querySelector("input");
      input.value = typed;
      input.dispatchEvent(new Event("input", { bubbles: true }));
      await until(() => status.textContent !== before && isThere());
      return performance.now() - began;
    },
    blank: async (positions) => {
      const scroller = grid().querySelector(".micromegas-grid-scroller");
      let longest = 0;
      for (const position of positions) {
        scroller.scrollTop = position * (scroller.scrollHeight - scroller.clientHeight);
        let began;
        for (let frames = 0; frames < 3 || began !== undefined; frames++) {
          await frame();
          const isBlank = !isThere();
          if (began !== undefined && !isBlank) longest = Math.max(longest, performance.now() - began);
          began = isBlank ? (began ?? performance.now()) : undefined;
        }
      }
      return longest;
    },
  };
}"""  # noqa: E501 - a program
SMOOTH, JUMPS = [step / 40_000 for step in range(200)], [(7 * step % 31) / 31 for step in range(31)]


@pytest.mark.parametrize("app", ["lab", "notebook"])
def test_a_grid_of_a_million_rows_in_a_page(lab, tmp_path, say, app):
    found = {}
    with notebook_opener(lab, tmp_path, app=app) as open_notebook:
        page, _ = open_notebook(f"measured-{app}", MAKE, SHOW)
        page.locator(".micromegas-grid tbody td").first.wait_for()
        page.evaluate(TOOLS)
        painted = []
        for _ in range(3):
            page.evaluate("document.querySelectorAll('.micromegas-grid').forEach((each) => each.remove())")
            page.evaluate("() => void grids.painted().then((at) => (window.at = at))")
            page.locator(".jp-Notebook .cm-content").filter(has_text="rows at").click()
            page.keyboard.press("Control+Enter")
            page.wait_for_function("window.at")
            at = page.get_by_text(re.compile(r"^rows at \d+")).inner_text().split()[2]
            painted.append(page.evaluate("window.at") - float(at))
            page.evaluate("window.at = undefined")
        found["first paint"] = min(painted)
        expect(page.locator(".micromegas-grid").last).to_contain_text("of 1,000,000")
        found["blank while scrolled"] = page.evaluate("(positions) => grids.blank(positions)", SMOOTH)
        found["blank in jumps"] = page.evaluate("(positions) => grids.blank(positions)", JUMPS)
        for name in SORTS:
            found[f"sort {name}"] = page.evaluate("(name) => grids.sorted(name)", name)
        for name, typed in FILTERS.items():
            found[f"filter {name} {typed}"] = page.evaluate(
                "([name, typed]) => grids.filtered(name, typed)", [name, typed]
            )
            page.evaluate("(name) => grids.filtered(name, '')", name)

    say(f"{app}: " + ", ".join(f"{name} {milliseconds:.0f} ms" for name, milliseconds in found.items()))
