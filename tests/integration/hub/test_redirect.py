"""The one redirect of the whole Hub: a person signs in through it, and nobody can use it to act as somebody else."""

import json

import pytest
import requests

from tests.fakes.raw_client import claims_of
from tests.integration.hub.sign_in import TIMEOUT_SECONDS, KernelSignIn

# The first test of the folder starts the Hub.
pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

SOMEBODY_ELSES = "started in another user&#x27;s notebook. No access was granted."


@pytest.fixture(scope="module")
def browsers(signed_in):
    found = {login: signed_in.browser() for login in signed_in.people}
    for login, browser in found.items():
        browser.sign_in(login)
    return found


def audit_lines(hub, event):
    lines = [json.loads(line) for line in hub.log.splitlines() if line.startswith('{"event"')]
    return [line for line in lines if line["event"] == event]


def test_a_kernel_learns_the_one_redirect_address(signed_in):
    provider, callback = signed_in.provider, f"{signed_in.service_url}callback"

    for login in ("alice", "bob"):
        offered = KernelSignIn(signed_in, login).offered
        assert offered == {"redirect_uri": callback, "issuer": provider.issuer, "client_id": provider.client_id}


def test_a_person_signs_in_and_the_code_leaves_the_address_bar(signed_in, browsers):
    sign_in = KernelSignIn(signed_in, "alice")

    page = browsers["alice"].visit(sign_in.begin(), person="alice")
    query = sign_in.answer(wait_seconds=20).json()["query"]

    assert browsers["alice"].visited[-1] == f"{signed_in.service_url}done"
    assert "Back to where you started" in page.text
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert (page.headers["Referrer-Policy"], page.headers["Cache-Control"]) == ("no-referrer", "no-store")
    assert claims_of(sign_in.exchange(query)["id_token"])["sub"] == "alice"
    assert sign_in.answer().status_code == 404
    assert query.split("code=")[1].split("&")[0] not in signed_in.log
    assert sign_in.state not in signed_in.log


def test_somebody_elses_start_address_hands_nothing_over(signed_in, browsers):
    sign_in = KernelSignIn(signed_in, "bob")

    page = browsers["alice"].visit(sign_in.begin(), person="alice")

    assert (page.status_code, SOMEBODY_ELSES in page.text) == (403, True)
    assert sign_in.answer().status_code == 204
    line = audit_lines(signed_in, "sign_in_refused")[-1]
    names = [signed_in.people[login].name for login in ("bob", "alice")]
    assert [line[name] for name in ("owner", "visitor", "reason")] == [*names, "other_person_at_start"]


def test_bobs_browser_cannot_bring_back_what_alices_was_given(signed_in, browsers):
    sign_in = KernelSignIn(signed_in, "bob")
    start = browsers["bob"].open(sign_in.begin())

    # Alice is signed in at the provider, which brings her browser back with a code of hers and Bob's state.
    page = browsers["alice"].visit(sign_in.url, person="alice")

    assert start.status_code == 302
    assert f"{signed_in.service_url}callback?code=" in browsers["alice"].visited[-1]
    assert (page.status_code, SOMEBODY_ELSES in page.text) == (403, True)
    assert sign_in.answer().status_code == 204
    assert audit_lines(signed_in, "sign_in_refused")[-1]["reason"] == "other_person_at_callback"
    # That address would end Bob's sign-in as Alice; no log and no page shows it to him.
    assert "code=" not in page.text
    assert "code=" not in signed_in.log.replace("code=[secret]", "")


def test_a_redirect_to_one_persons_server_is_refused_by_the_provider_and_not_offered_by_that_server(
    signed_in, browsers
):
    sign_in = KernelSignIn(signed_in, "bob")
    callback = f"{signed_in.url}user/{signed_in.people['bob'].name}/micromegas/callback"

    page = browsers["alice"].visit(sign_in.url_with(redirect_uri=callback), person="alice")
    own = browsers["bob"].visit(callback, person="bob")

    assert (page.status_code, browsers["alice"].visited[-1].startswith(signed_in.provider.issuer)) == (400, True)
    assert own.status_code == 404
    assert "KERNEL_MICROMEGAS_REDIRECT" not in signed_in.server_process("bob").environ()
    assert "per-user redirects let users take each other's tokens" in signed_in.log


def test_the_sign_in_of_somebody_else_is_not_there_for_a_kernel(signed_in):
    mine, theirs = KernelSignIn(signed_in, "alice"), KernelSignIn(signed_in, "bob")
    mine.begin()
    theirs.begin()
    mine.name, theirs.name = theirs.name, mine.name

    answers = [mine.answer(), theirs.answer()]

    assert [(answer.status_code, answer.json()["error"]) for answer in answers] == [(404, "unknown_sign_in")] * 2


def test_another_browser_of_the_same_person_does_not_end_a_sign_in(signed_in, browsers):
    sign_in = KernelSignIn(signed_in, "alice")
    assert browsers["alice"].open(sign_in.begin()).status_code == 302
    other = signed_in.browser()
    assert other.visit(KernelSignIn(signed_in, "alice").begin(), person="alice").status_code == 200

    page = other.visit(sign_in.url, person="alice")

    assert (page.status_code, "started in this browser" in page.text) == (400, True)
    assert sign_in.answer().status_code == 204


def test_a_browser_that_the_service_does_not_know_hands_nothing_over(signed_in, browsers):
    sign_in = KernelSignIn(signed_in, "alice")
    assert browsers["alice"].open(sign_in.begin()).status_code == 302

    page = signed_in.browser().visit(sign_in.url, person="alice")

    assert (page.status_code, "no longer signed in to the Hub" in page.text) == (403, True)
    assert sign_in.answer().status_code == 204


def test_a_state_is_begun_once_and_ends_once(signed_in, browsers):
    sign_in = KernelSignIn(signed_in, "alice")
    start = sign_in.begin()
    again = sign_in.call("POST", "sign-ins", json={"authorization_url": sign_in.url})
    browsers["alice"].visit(start, person="alice")
    callback = next(url for url in reversed(browsers["alice"].visited) if "callback?code=" in url)

    replayed = browsers["alice"].open(callback)

    assert again.status_code == 400
    assert replayed.status_code == 400
    assert browsers["alice"].open(start).status_code == 404


def test_pages_answer_get_only(signed_in):
    for method, path in (("POST", "callback"), ("HEAD", "start/" + "a" * 43), ("DELETE", "done")):
        url = f"{signed_in.service_url}{path}"
        assert requests.request(method, url, timeout=TIMEOUT_SECONDS, allow_redirects=False).status_code == 405


def test_a_frame_or_a_script_is_refused(signed_in, browsers):
    sign_in = KernelSignIn(signed_in, "alice")
    start = sign_in.begin()

    answers = [
        browsers["alice"].session.get(start, headers={"Sec-Fetch-Dest": kind}, timeout=TIMEOUT_SECONDS)
        for kind in ("iframe", "image", "empty")
    ]

    assert [answer.status_code for answer in answers] == [403] * 3


def test_after_the_hub_changed_people_in_a_browser_the_old_sign_in_does_not_end(signed_in):
    browser = signed_in.browser()
    browser.sign_in("alice")
    sign_in = KernelSignIn(signed_in, "alice")
    assert browser.visit(sign_in.begin(), person="alice").status_code == 200
    sign_in = KernelSignIn(signed_in, "alice")
    assert browser.open(sign_in.begin()).status_code == 302
    browser.sign_out()
    browser.session.cookies.clear(domain="127.0.0.1", path="/")

    # Somebody else signs in with the same browser, at the provider and the service, too.
    assert browser.visit(KernelSignIn(signed_in, "bob").begin(), person="bob").status_code == 200
    page = browser.visit(sign_in.url, person="bob")

    assert (page.status_code, SOMEBODY_ELSES in page.text) == (403, True)
    assert sign_in.answer().status_code == 204
