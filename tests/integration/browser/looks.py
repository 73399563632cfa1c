"""What a person does with JupyterLab itself, and how light a part of it is."""

import re
from contextlib import suppress

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError

from micromegas_jupyter.demo.provider.scripted_person import sign_in

# Every rule of axe. To find a selector for each node would take longer than all rules: a violation names its HTML.
AXE_OPTIONS = {"resultTypes": ["violations", "passes"], "selectors": False}
# Relative luminance of a page that is dark, and of one that is light.
DARKEST, LIGHTEST = 0.3, 0.9
SAVE_TRIES, SAVE_MILLISECONDS = 9, 10_000
# The tab shows a change in a later frame. If scripts have the application, wait for this save, not an earlier one.
LAST_SAVED = "() => window.jupyterapp?.shell.currentWidget?.context?.contentsModel?.last_modified"
IS_SAVED = """earlier => {
    const context = window.jupyterapp?.shell.currentWidget?.context;
    const isSaved = !context || (!context.model.dirty && context.contentsModel?.last_modified !== earlier);
    return isSaved && !document.querySelector('.jp-mod-dirty');
}"""
KERNEL_MILLISECONDS = 45_000
IDLE = "text=/Python 3.*Idle/"


def wait_for_kernel(page, idle=IDLE):
    """Wait until a notebook that was just opened has a kernel; load its page again once, as a person would.

    Kernels that start at the same time may choose the same ports. Jupyter then starts one of them again, but its page
    may go on waiting for the first.
    """
    try:
        page.locator(idle).first.wait_for(timeout=KERNEL_MILLISECONDS)
    except PlaywrightTimeoutError:
        page.reload()
        page.locator(idle).first.wait_for()


def wait_until_closed(page):
    """Wait for a tab to close, as the provider's does after a sign-in."""
    if not page.is_closed():
        page.wait_for_event("close")


# JupyterLab fills an empty main area with a launcher, which would hide what opens next: this one goes last.
_OPEN_ALONE = """async path => {
    const { commands, serviceManager, shell } = jupyterapp;
    const others = [...shell.widgets("main")];
    const launcher = await commands.execute("launcher:create");
    for (const each of others) {
        const session = each.context?.sessionContext?.session?.id;
        each.dispose();
        if (session) serviceManager.sessions.shutdown(session).catch(() => {});
    }
    if (!path) return;
    await commands.execute("docmanager:open", { path });
    launcher.dispose();
}"""


def open_alone(page, path):
    """Open a notebook in a page of JupyterLab that has loaded, after closing all others there and their kernels."""
    page.evaluate(_OPEN_ALONE, path)
    show_tab(page, path.rpartition("/")[2])


def show_tab(page, name):
    """Bring a notebook in front of what JupyterLab restores or launches beside it, and wait for its cells."""
    page.get_by_role("tab", name=name).first.click()
    page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Notebook .jp-Cell").first.wait_for()


def close_all(page):
    """Close all notebooks of a page of JupyterLab, and shut their kernels down."""
    page.evaluate(_OPEN_ALONE, None)


def run_all(page):
    """Run all cells of a notebook by its menu."""
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()


def choose_theme(page, name):
    """Choose one of JupyterLab's themes by its menu and wait until it has come."""
    page.get_by_role("menuitem", name="Settings", exact=True).click()
    page.locator(".lm-Menu-itemLabel", has_text=re.compile("^Theme$")).hover()
    page.locator(".lm-Menu-itemLabel", has_text=re.compile(f"^{name}$")).click()
    page.wait_for_function(f"() => document.body.dataset.jpThemeName === {name!r}")
    page.locator("#jupyterlab-splash").wait_for(state="detached")


def luminance(locator):
    """Return how light the background behind an element is, from 0 to 1."""
    return locator.evaluate(
        """element => {
            let color = "rgba(0, 0, 0, 0)";
            for (let each = element; each && /, 0\\)$/.test(color); each = each.parentElement)
                color = getComputedStyle(each).backgroundColor;
            const [red, green, blue] = color.match(/[\\d.]+/g).map(Number);
            return (0.2126 * red + 0.7152 * green + 0.0722 * blue) / 255;
        }"""
    )


def check_accessible(page, selector, *, texts):
    """Check a part of JupyterLab that is in sight with axe, which must have measured the contrast of so many texts."""
    # JupyterLab's body has no height of its own, and what is in it counts as out of sight.
    style = page.add_style_tag(content="body { height: 100vh; }")
    found = Axe().run(page, context=selector, options=AXE_OPTIONS).response
    style.evaluate("style => style.remove()")
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found["violations"]] == []
    (contrast,) = [each for each in found["passes"] if each["id"] == "color-contrast"]
    assert len(contrast["nodes"]) >= texts


def sign_in_by_code(page):
    """Have Alice enter the code that the sign-in card shows; returns the card and the code."""
    widget = page.get_by_role("group", name="Micromegas sign-in").first
    widget.locator("code").wait_for()
    code = widget.locator("code").inner_text()
    sign_in(f"{widget.get_by_role('link').get_attribute('href')}?user_code={code}")
    return widget, code


def overwrite_changed_files(page):
    """Answer JupyterLab's question about a changed file whenever it covers what a test clicks: the page is right."""
    overwrite = page.get_by_role("button", name="Overwrite")
    page.add_locator_handler(overwrite, lambda button: button.click())


def save(page):
    """Save the notebook by keyboard and wait until it is; again when something changes it meanwhile."""
    overwrite = page.get_by_role("button", name="Overwrite")
    for _ in range(SAVE_TRIES):
        earlier = page.evaluate(LAST_SAVED)
        page.keyboard.press("Control+s")
        # A slow server has saved one of two changes only, and JupyterLab takes the file for somebody else's.
        if overwrite.is_visible():
            overwrite.click()
        with suppress(PlaywrightTimeoutError):
            page.wait_for_function(IS_SAVED, arg=earlier, timeout=SAVE_MILLISECONDS)
            return
    raise AssertionError(f"the notebook was not saved in {SAVE_TRIES} tries")
