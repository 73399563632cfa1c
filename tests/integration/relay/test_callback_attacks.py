"""What is tried against the callback of a sign-in by redirect: each is refused, none uses the sign-in up."""

import socket
from contextlib import ExitStack
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from tests.integration.relay.servers import TIMEOUT_SECONDS, SignIn

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(2)>"
IDLE_CONNECTIONS = 60


def callback_of(sign_in, **parameters):
    return f"{sign_in.redirect_uri}?{urlencode(parameters)}"


def state_of_another_random(state):
    return state[:-43] + "A" * 43


def test_a_wrong_or_missing_state_is_refused(sign_in):
    sign_in.start()
    state = sign_in.state
    queries = [{"code": "c"}, {"code": "c", "State": state}]
    wrong = ("", state_of_another_random(state), state.upper(), f"{state} ", "../../etc/passwd")

    for query in (*queries, *({"code": "c", "state": each} for each in wrong)):
        refused = sign_in.get(callback_of(sign_in, **query))
        assert refused.status_code == 400
        assert "does not belong to a sign-in that was started in this browser" in refused.text
    assert sign_in.still_works()


def test_a_replayed_answer_is_refused_like_an_unknown_one(sign_in):
    callback = sign_in.answer()
    unknown = sign_in.get(callback_of(sign_in, code="c", state=state_of_another_random(sign_in.state)))
    cookies = sign_in.browser.cookies.copy()
    sign_in.come_back(callback)

    replayed = sign_in.get(callback)
    sign_in.browser.cookies = cookies  # as if the browser had kept the one that was taken away
    replayed_with_cookie = sign_in.get(callback)

    assert [answer.status_code for answer in (unknown, replayed, replayed_with_cookie)] == [400, 400, 400]
    assert unknown.text == replayed.text == replayed_with_cookie.text


def test_another_persons_browser_is_refused_with_its_own_cookies_and_with_stolen_ones(sign_in):
    callback = sign_in.answer()
    mallory = sign_in.kernel.server.browser()

    without = mallory.get(callback, allow_redirects=False, timeout=TIMEOUT_SECONDS)
    for cookie in sign_in.browser.cookies:
        if cookie.name.startswith("micromegas-login-"):
            mallory.cookies.set_cookie(cookie)
    with_stolen = mallory.get(callback, allow_redirects=False, timeout=TIMEOUT_SECONDS)

    assert (without.status_code, with_stolen.status_code) == (400, 400)
    assert "Signed in as Alice Martin." in sign_in.come_back(callback)


def test_a_browser_without_any_cookie_is_refused_and_not_sent_to_the_log_in_page(sign_in):
    callback = sign_in.answer()
    cookies = sign_in.browser.cookies.copy()
    sign_in.browser.cookies.clear()

    refused = sign_in.get(callback)

    # The log-in page's address would hold the code.
    assert (refused.status_code, refused.headers.get("Location")) == (403, None)
    sign_in.browser.cookies = cookies
    assert "Signed in as Alice Martin." in sign_in.come_back(callback)


def test_a_jupyter_cookie_that_is_kept_back_arrives_with_a_second_load_of_the_same_page(sign_in):
    callback = sign_in.answer()
    cookies = sign_in.browser.cookies.copy()
    for cookie in cookies:
        if not cookie.name.startswith("micromegas-login-"):
            sign_in.browser.cookies.clear(cookie.domain, cookie.path, cookie.name)

    first = sign_in.get(callback, headers={"Sec-Fetch-Site": "cross-site"})
    never_again = sign_in.get(callback, headers={"Sec-Fetch-Site": "same-origin"})

    assert '<meta http-equiv="refresh" content="0">' in first.text
    assert never_again.status_code == 403
    sign_in.browser.cookies = cookies
    assert "Signed in as Alice Martin." in sign_in.come_back(callback)


def test_login_csrf_nobody_is_signed_in_as_somebody_else(server, sign_in):
    sign_in.start()
    with server.kernel() as mallorys_kernel:
        mallorys_kernel.run(f"%env MICROMEGAS_CONFIG_DIR={server.folder / 'mallory'}")
        mallory = SignIn(mallorys_kernel)
        # Mallory stops before the callback and gets the other person to open it.
        planted = mallory.answer(person="bob")

        refused = sign_in.get(planted)

        assert refused.status_code == 400
        assert mallory.still_works()
    assert "bob" not in sign_in.kernel.whoami()
    assert sign_in.still_works()


def test_a_code_of_another_sign_in_is_worth_nothing_with_ones_own_state(server, sign_in):
    sign_in.start()
    with server.kernel() as mallorys_kernel:
        mallorys_kernel.run(f"%env MICROMEGAS_CONFIG_DIR={server.folder / 'injected'}")
        stolen = parse_qs(urlsplit(SignIn(mallorys_kernel).answer(person="bob")).query)["code"][0]

    page = sign_in.come_back(callback_of(sign_in, code=stolen, state=sign_in.state, iss=issuer_of(sign_in)))

    assert "You are not signed in" in page
    assert "Not signed in" in sign_in.kernel.whoami() or "not signed in" in sign_in.kernel.whoami()


def issuer_of(sign_in):
    parts = urlsplit(sign_in.authorization_url)
    return f"{parts.scheme}://{parts.netloc}"


@pytest.mark.parametrize("issuer", ["https://evil.example", "", None])
def test_an_answer_of_another_provider_is_refused(sign_in, issuer):
    found = parse_qs(urlsplit(sign_in.answer()).query)
    parameters = {"code": found["code"][0], "state": sign_in.state}

    page = sign_in.come_back(callback_of(sign_in, **parameters, **({} if issuer is None else {"iss": issuer})))

    assert "You are not signed in" in page
    assert "a different identity provider" in page


@pytest.mark.parametrize("parameter", ["error", "error_description", "error_uri"])
def test_markup_in_an_error_is_text(sign_in, parameter):
    sign_in.start()
    parameters = {
        "error": "invalid_scope",
        "error_description": "No.",
        "state": sign_in.state,
        "iss": issuer_of(sign_in),
    }

    page = sign_in.come_back(callback_of(sign_in, **{**parameters, parameter: SCRIPT}))
    sign_in.kernel.later_messages(0.5)

    assert "<script" not in page
    assert "<img" not in page
    assert "You are not signed in" in page
    contents = [message["content"] for message in sign_in.kernel.all_messages]
    shown = [content["data"].get("text/html", "") for content in contents if "data" in content]
    assert [text for text in shown if "<script>" in text] == []


def test_nothing_but_a_page_of_its_own_at_this_address_with_one_short_answer_uses_a_sign_in_up(sign_in):
    callback = sign_in.answer()
    base, _, query = callback.partition("callback?")
    urls = (callback, sign_in.start_url)

    for method in ("HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        for url in urls:
            answer = sign_in.browser.request(method, url, allow_redirects=False, timeout=TIMEOUT_SECONDS)
            assert (answer.status_code, answer.headers["Allow"]) == (405, "GET")
    for path in ("callback/", "callback/x", "Callback", "callback.html", "callback;x", "oauth/callback", ""):
        assert sign_in.get(f"{base}{path}?{query}").status_code == 404
    for kind in ("iframe", "frame", "embed", "object", "image", "script", "empty", "style"):
        assert [sign_in.get(url, headers={"Sec-Fetch-Dest": kind}).status_code for url in urls] == [403, 403]
    for more, status in (
        (f"&state={sign_in.state}", 400),
        ("&a=b" * 1000, 400),
        (f"&padding={'x' * 17_000}", 414),
        (f"&padding={'x' * 60_000}", 414),
    ):
        assert sign_in.get(f"{callback}{more}").status_code == status

    assert "Signed in as Alice Martin." in sign_in.come_back(callback)


def test_every_answer_forbids_frames_caches_referrers_and_scripts(sign_in):
    callback = sign_in.answer()
    refused, handed_over = sign_in.get(callback + "&state=x"), sign_in.get(callback)
    base = callback.partition("callback?")[0]

    for answer in (refused, handed_over, sign_in.get(f"{base}done"), sign_in.get(f"{base}stray"), sign_in.start()):
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert not [name for name in answer.headers if name.lower().startswith("access-control-")]


def test_two_cookies_of_one_name_are_refused(sign_in):
    callback = sign_in.answer()
    name = next(cookie.name for cookie in sign_in.browser.cookies if cookie.name.startswith("micromegas-login-"))
    own = "; ".join(f"{cookie.name}={cookie.value}" for cookie in sign_in.browser.cookies)
    cookies, sign_in.browser.cookies = sign_in.browser.cookies.copy(), type(sign_in.browser.cookies)()

    answers = [sign_in.get(callback, headers={"Cookie": text}) for text in (f"{name}=x; {own}", f"{own}; {name}=x")]

    assert [answer.status_code for answer in answers] == [400, 400]
    sign_in.browser.cookies = cookies
    assert "Signed in as Alice Martin." in sign_in.come_back(callback)


def test_cookies_that_only_look_like_ours_do_not_stop_a_start(sign_in):
    own = "; ".join(f"{cookie.name}={cookie.value}" for cookie in sign_in.browser.cookies)
    # A neighbouring host may set cookies of any name for the whole domain.
    foreign = "; ".join(f"micromegas-login-({number}) \t,=x" for number in range(30))

    started = sign_in.start(headers={"Cookie": f"{own}; {foreign}"})

    assert started.status_code == 302
    assert sign_in.still_works()


def test_idle_connections_do_not_hold_a_sign_in_up(server, sign_in):
    parts = urlsplit(server.url)
    with ExitStack() as idle:
        for _each in range(IDLE_CONNECTIONS):
            connection = socket.create_connection((parts.hostname, parts.port), TIMEOUT_SECONDS)
            idle.enter_context(connection).sendall(b"GET /team/x/micromegas/callback?code=")

        assert sign_in.still_works()
