"""The sign-in card in JupyterLab: how every state looks and reads, and what its buttons do to a real sign-in."""

import json
import os
import re
import signal
from pathlib import Path

import pytest
from playwright.sync_api import expect

from micromegas_jupyter.demo.provider.scripted_person import sign_in
from tests.integration.browser.looks import check_accessible, choose_theme, run_all, save, sign_in_by_code
from tests.integration.browser.widget_states import STATES

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

REPOSITORY = Path(__file__).parents[3]
CARD = ".micromegas-card"
TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]{5,}\.")
QUIET_TICKS = 2
THEMES = ("JupyterLab Light", "JupyterLab Dark")
SIGN_IN = "%micromegas_login --flow browser"


def card_of(page):
    return page.get_by_role("group", name="Micromegas sign-in").first


def _sign_in(page):
    card = card_of(page)
    link = card.get_by_role("link", name=re.compile("^Sign in"))
    link.wait_for()
    sign_in(link.get_attribute("href"))
    card.get_by_text("Alice Martin").wait_for()
    card.get_by_text(re.compile(r"connected as alice@example.com, \d+ ms")).wait_for()
    return card


def _tokens(tmp_path):
    return json.loads((tmp_path / "config" / "tokens.json").read_text(encoding="utf-8"))["token"]


def test_every_state_can_be_read_in_both_themes(open_notebook):
    load = f"""import sys; sys.path.insert(0, {str(REPOSITORY)!r})
from tests.integration.browser.widget_states import show"""
    page, _ = open_notebook("states", load, *(f"card = show({name!r})" for name in STATES))
    page.set_viewport_size({"width": 1000, "height": 5000})
    expect(page.locator(CARD)).to_have_count(len(STATES))
    page.wait_for_function("() => document.querySelector('.jp-WindowedPanel-outer').clientHeight > 4500")
    page.wait_for_function("() => (document.querySelector('.jp-WindowedPanel-outer').scrollTop = 0) === 0")
    expect(page.locator(CARD).first).to_be_in_viewport()

    for more in page.locator(f"{CARD} summary").all():
        more.click()
    for theme in THEMES:
        choose_theme(page, theme)
        check_accessible(page, CARD, texts=4 * len(STATES) + 1)

    page.emulate_media(forced_colors="active")
    relative = page.locator(f"{CARD} a[href*='micromegas/start/abc.def']")
    base = "location.origin + JSON.parse(document.getElementById('jupyter-config-data').textContent).baseUrl"
    assert relative.get_attribute("href") == f"{page.evaluate(base)}micromegas/start/abc.def"
    marks = page.locator(f"{CARD} .mark")
    names = "marks => marks.map(each => getComputedStyle(each).animationName)"
    assert set(marks.evaluate_all(names)) == {"none"}
    page.emulate_media(reduced_motion="no-preference")
    assert set(marks.evaluate_all(names)) == {"none", "micromegas-breathe"}


def test_run_all_shows_whoever_looks_at_the_last_cell_where_to_sign_in(open_notebook):
    """One click of the card at the top of the notebook leads to the provider's page; the cells continue."""
    long = "# A cell as long as the window.\n" * 60
    page, path = open_notebook("run-all", long, "%sql SELECT 1 AS one", long, "print('the', 'end')")
    notice = page.locator(".micromegas-pinned")
    page.locator(f".jp-OutputArea {CARD}").wait_for()

    page.locator(".jp-Cell").last.scroll_into_view_if_needed()

    expect(notice).to_contain_text("Sign in to Micromegas demo to continue")
    expect(notice).to_be_in_viewport(ratio=1)
    for theme in THEMES:
        choose_theme(page, theme)
        check_accessible(page, ".micromegas-pinned", texts=3)
    save(page)
    during = path.read_text(encoding="utf-8")
    with page.context.expect_page() as opened:
        notice.get_by_role("link", name=re.compile("^Sign in")).click()
    provider_page = opened.value
    expect(notice).to_contain_text("Waiting for you to sign in in the other tab.")
    provider_page.get_by_role("button", name=re.compile("Alice")).click()
    provider_page.get_by_role("button", name="Allow").click()
    page.get_by_text("the end", exact=True).wait_for()

    expect(notice).to_have_count(0)
    expect(page.locator(CARD)).to_have_count(0)  # the line of the query has taken its place
    page.get_by_text(re.compile(r"✓ 1 row in")).wait_for()
    save(page)
    for saved in (during, path.read_text(encoding="utf-8")):
        assert not TOKEN.search(saved)
        assert "code_challenge" not in saved


def test_one_click_of_a_button_opens_the_providers_page_and_a_link_where_pop_ups_are_blocked(open_notebook):
    page, path = open_notebook("one-click", SIGN_IN)
    card = card_of(page)
    card.get_by_role("button", name="Cancel").click()
    card.get_by_text(re.compile("^Not signed in")).wait_for()

    with page.context.expect_page() as opened:
        card.get_by_role("button", name="Sign in").click()
    opened.value.get_by_role("button", name=re.compile("Alice")).wait_for()

    assert opened.value.evaluate("window.opener") is None
    expect(card).to_contain_text("Waiting for you to sign in in the other tab.")
    card.get_by_role("button", name="Cancel").click()
    # Only the next time: other tests use this page.
    page.evaluate("const open = window.open; window.open = () => ((window.open = open), null)")
    card.get_by_role("button", name="Sign in").click()
    link = card.get_by_role("link", name=re.compile("^Sign in"))
    link.wait_for()
    address = link.get_attribute("href")
    save(page)
    state = json.dumps(json.loads(path.read_text(encoding="utf-8"))["metadata"])
    assert address not in state


def test_a_person_signs_in_renews_and_signs_out_with_the_keyboard_alone(open_notebook, tmp_path):
    page, path = open_notebook("buttons", SIGN_IN)
    card = _sign_in(page)
    before = _tokens(tmp_path)

    card.locator("summary", has_text="admin · 2 groups").focus()
    page.keyboard.press("Enter")
    assert card.get_by_text("demo-alice").is_visible()
    assert card.get_by_text("lake-admins").is_visible()
    card.get_by_role("button", name="Refresh").focus()
    page.keyboard.press("Enter")
    card.get_by_text("Token renewed, and the server checked.").wait_for()
    after = _tokens(tmp_path)
    assert after["id_token"] != before["id_token"]
    assert after["refresh_token"] != before["refresh_token"]
    assert card.get_by_text("lake-admins").is_visible()
    expect(card.get_by_role("button", name="Refresh")).to_be_focused()

    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    expect(card).to_contain_text("This also signs out your other notebooks and terminals")
    expect(card.get_by_role("button", name="Sign out everywhere")).to_be_focused()
    page.keyboard.press("Enter")
    card.get_by_text(re.compile("Signed out of 127.0.0.1:.*refresh token revoked")).wait_for()
    assert not (tmp_path / "config" / "tokens.json").exists()
    expect(card.get_by_role("button", name="Sign in")).to_be_focused()
    with page.context.expect_page() as opened:
        page.keyboard.press("Enter")
    opened.value.close()
    expect(card.get_by_role("link", name=re.compile("^Sign in"))).to_be_focused()
    card.get_by_role("button", name="Show a code").click()
    _, code = sign_in_by_code(page)
    card.get_by_text("Alice Martin").wait_for()
    save(page)
    saved = path.read_text(encoding="utf-8")
    assert not TOKEN.search(saved)
    assert code not in saved


def test_counting_down_says_nothing_to_the_kernel_and_a_page_that_is_loaded_again_goes_on(open_notebook):
    page, _ = open_notebook("idle", SIGN_IN)
    card = _sign_in(page)
    save(page)
    frames = []

    def listen(socket):
        for kind in ("framesent", "framereceived"):
            socket.on(kind, lambda frame: frames.append(frame if isinstance(frame, bytes) else frame.encode()))

    page.on("websocket", listen)

    page.reload()
    card.get_by_text(re.compile(r"connected as alice@example.com, \d+ ms")).wait_for()
    page.locator("text=/Python 3.*Idle/").first.wait_for()
    assert any(b"comm_" in frame for frame in frames)
    clock = card.get_by_text("expires in")

    def counts_down_quietly():
        frames.clear()
        seen = [clock.inner_text()]
        while len(seen) <= QUIET_TICKS and not any(b"comm_" in frame for frame in frames):
            expect(clock).not_to_have_text(seen[-1])
            seen.append(clock.inner_text())
        return not any(b"comm_" in frame for frame in frames)

    # A page that has just been loaded still closes what the one before it had open, one after the other.
    assert any(counts_down_quietly() for _ in range(20))
    page.remove_listener("websocket", listen)
    assert card.get_by_role("button", name="Sign out").is_visible()


def test_a_card_whose_kernel_has_crashed_or_restarted_says_so_until_its_cell_runs_again(open_notebook):
    page, _ = open_notebook("crash", SIGN_IN, "import os; print('kernel', os.getpid())")
    card = _sign_in(page)
    kernel = int(page.get_by_text(re.compile(r"^kernel \d+")).inner_text().split()[1])
    lost = card.get_by_text("No longer connected to the kernel.")

    os.kill(kernel, signal.SIGKILL)
    lost.wait_for()
    assert page.get_by_text("Alice Martin").count() == 0
    expect(card.get_by_role("button")).to_have_text(["Insert the cell"])

    page.locator(".jp-Dialog .jp-mod-accept").click()  # JupyterLab says, too, that the kernel died
    page.locator("text=/Python 3.*Idle/").first.wait_for()
    run_all(page)
    card.get_by_text("Alice Martin").wait_for()
    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.locator(".lm-Menu-itemLabel", has_text=re.compile("^Restart Kernel…$")).click()
    page.get_by_role("button", name="Confirm Kernel Restart").click()
    lost.wait_for()
