"""What a person sees of a sign-in in a page that was loaded again, after the kernel's end, and in a narrow pane."""

import re
import threading

import pytest

from micromegas_jupyter.demo.provider.scripted_person import sign_in
from tests.integration.browser.looks import save
from tests.integration.reloading import wait_for_widget

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(300)]

NARROW_PIXELS = 320
SAVE_TRIES = 40
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


def _save(page, path):
    save(page)
    return path.read_text(encoding="utf-8")


def _save_when(page, path, is_right):
    """Save until the file is as it should be: what a kernel's end changes comes to the page when it comes."""
    pause = threading.Event()
    for _ in range(SAVE_TRIES):
        saved = _save(page, path)
        if is_right(saved):
            return
        pause.wait(0.25)
    raise AssertionError(f"after {SAVE_TRIES} tries the file holds: {saved[:2000]}")


def _load_again(page):
    page.reload()
    page.locator(".jp-Notebook .jp-Cell").first.wait_for()


def test_a_page_that_is_loaded_again_while_a_query_waits_still_has_the_link(open_notebook):
    page, path = open_notebook("reload-link", "%micromegas_login --flow browser", "%sql SELECT 1 AS one")
    page.get_by_text("waiting for you to sign in").wait_for()
    _save(page, path)

    _load_again(page)
    link = page.locator(".jp-OutputArea a", has_text=re.compile("^http://127.0.0.1:"))
    with page.context.expect_page() as opened:
        link.click()
    provider_page = opened.value
    provider_page.get_by_role("button", name=re.compile("Alice")).click()
    provider_page.get_by_role("button", name="Allow").click()
    provider_page.get_by_text("You are signed in").wait_for()

    wait_for_widget(page, page.get_by_role("region", name="Micromegas sign-in").get_by_text("Alice Martin"))


def test_a_page_that_is_loaded_again_while_a_query_waits_saves_no_picture_of_the_code(open_notebook):
    page, path = open_notebook("reload-code", "%micromegas_login --flow device", "%sql SELECT 1 AS one")
    widget = page.get_by_role("region", name="Micromegas sign-in")
    widget.locator("code").wait_for()
    page.get_by_text("waiting for you to type").wait_for()
    code = widget.locator("code").inner_text()
    _save(page, path)

    _load_again(page)
    page.get_by_text(f"waiting for you to type {code} at http").wait_for()
    sign_in(f"{page.locator('.jp-OutputArea a').get_attribute('href')}?user_code={code}")
    wait_for_widget(page, widget.get_by_text("Alice Martin"))

    assert "<svg" not in _save(page, path)


def test_a_notebook_whose_kernel_was_shut_down_shows_the_text_when_it_is_opened_again(open_notebook):
    page, path = open_notebook("shut-down", "%micromegas_login --flow device")
    widget = page.get_by_role("region", name="Micromegas sign-in")
    widget.locator("code").wait_for()
    place = widget.get_by_role("link").get_attribute("href")
    sign_in(f"{place}?user_code={widget.locator('code').inner_text()}")
    widget.get_by_text("Alice Martin").wait_for()

    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.locator(".lm-Menu-itemLabel", has_text=re.compile("^Shut Down Kernel$")).click()
    page.get_by_text("Signed in as Alice Martin").wait_for()
    _save_when(page, path, lambda saved: "Signed in as Alice Martin" in saved and WIDGET_VIEW not in saved)
    _load_again(page)

    page.get_by_text("Signed in as Alice Martin").wait_for()
    assert page.get_by_text("Error displaying widget").count() == 0


def test_in_a_narrow_pane_the_picture_goes_below_the_text_and_nothing_is_cut_off(open_notebook):
    page, _ = open_notebook("narrow", "%micromegas_login --flow device")
    widget = page.get_by_role("region", name="Micromegas sign-in")
    widget.locator("code").wait_for()
    picture, link, sentence = widget.get_by_role("img"), widget.get_by_role("link"), widget.get_by_role("status")
    wide = {name: part.bounding_box() for name, part in (("picture", picture), ("link", link), ("text", sentence))}

    page.keyboard.press("Control+b")
    page.set_viewport_size({"width": NARROW_PIXELS, "height": 1000})
    page.wait_for_function("() => document.querySelector('.micromegas-identity').clientWidth < 260")

    assert wide["picture"]["x"] > wide["text"]["x"] + wide["text"]["width"]
    assert wide["text"]["x"] + wide["text"]["width"] < wide["link"]["x"] < wide["picture"]["x"]
    frame = widget.bounding_box()
    assert picture.bounding_box()["y"] > link.bounding_box()["y"] + link.bounding_box()["height"]
    assert sentence.bounding_box()["width"] > frame["width"] / 2
    for part in (picture, link, sentence):
        box = part.bounding_box()
        assert box["x"] >= frame["x"]
        assert box["x"] + box["width"] <= frame["x"] + frame["width"]
