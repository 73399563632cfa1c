"""Signing in by redirect, as a browser without a window does it, at real Jupyter servers of each kind."""

from urllib.parse import parse_qs, urljoin, urlsplit

import pytest

from tests.integration.relay.servers import LOAD, SignIn, jupyter_server, kernel_environment

pytestmark = pytest.mark.integration


def test_a_person_signs_in_and_the_notebook_goes_on(kernel, sign_in):
    started = sign_in.start()
    callback = sign_in.answer()
    handed_over = sign_in.get(callback)
    last = sign_in.get(urljoin(callback, handed_over.headers["Location"]))
    waited = kernel.run("%sql SELECT 1")

    assert urlsplit(sign_in.start_url).path.startswith(f"/team/x/micromegas/start/{kernel.kernel_id}.")
    assert (started.status_code, handed_over.status_code) == (302, 303)
    assert handed_over.headers["Location"] == "/team/x/micromegas/done"
    assert "Signed in as Alice Martin." in last.text
    # Signed in, it gets as far as the server, which does not run here.
    assert waited.of("error")[0]["ename"] == "ServerUnavailable"
    kernel.wait_until_saved("Signed in as Alice Martin")


def test_nothing_of_the_request_is_in_the_notebook(kernel, sign_in):
    callback = sign_in.answer()
    saved_before = kernel.saved()
    sign_in.come_back(callback)
    kernel.wait_until(lambda: "micromegas/start/" not in kernel.saved())
    kernel.later_messages(1.0)

    query = parse_qs(urlsplit(sign_in.authorization_url).query)
    secrets = [
        query["state"][0],
        query["nonce"][0],
        query["code_challenge"][0],
        parse_qs(urlsplit(callback).query)["code"][0],
    ]
    assert [secret for secret in secrets if secret in saved_before + kernel.saved()] == []
    assert "micromegas/start/" not in kernel.saved()


def test_the_sign_in_completes_while_a_cell_runs(kernel, sign_in):
    done = []

    def come_back_while_running(message):
        if message["msg_type"] == "stream" and not done:
            done.append(sign_in.come_back(sign_in.answer()))

    cell = kernel.run(
        "session = get_ipython()._micromegas_extension.session\n"
        "login = session.attempt.login\n"
        "print('running', flush=True)\n"
        "assert login.result(60).identity().name == 'Alice Martin'",
        while_running=come_back_while_running,
    )

    assert cell.reply["status"] == "ok", cell
    assert "Signed in as Alice Martin." in done[0]


def test_a_second_sign_in_takes_the_place_of_the_first(kernel, sign_in):
    first_callback = sign_in.answer()

    second = SignIn(kernel)
    late_start, late_answer = sign_in.get(sign_in.start_url), sign_in.get(first_callback)

    assert (late_start.status_code, late_answer.status_code) == (404, 400)
    assert second.still_works()


def test_a_refusal_of_the_person_is_told_on_the_page_and_in_the_notebook(kernel, sign_in):
    page = sign_in.come_back(sign_in.answer(allow=False))
    kernel.wait_until_saved("The sign-in was denied (access_denied")

    assert "You are not signed in" in page
    assert "The sign-in was denied (access_denied" in page
    assert "The sign-in was denied (access_denied" in kernel.saved()


@pytest.mark.slow
def test_a_kernel_that_was_restarted_or_has_gone_is_told_from_a_slow_one_at_once(server):
    with server.kernel() as kernel:
        waiting = SignIn(kernel)
        callback = waiting.answer()
        server.restart(kernel)
        kernel.run("1 + 1")
        start, answer = waiting.get(waiting.start_url), waiting.get(callback)
        kernel.run(LOAD)
        waiting = SignIn(kernel)
    gone = waiting.get(waiting.start_url)

    assert (start.status_code, answer.status_code, gone.status_code) == (409, 409, 409)
    assert "it was restarted" in start.text
    assert "run %micromegas_login again" in answer.text
    assert "is no longer running" in gone.text


def test_two_notebooks_sign_in_at_once_in_one_browser(server, sign_in):
    with server.kernel() as other_kernel:
        # A configuration folder of its own, so that it does not find the other one's sign-in.
        other_kernel.run(f"%env MICROMEGAS_CONFIG_DIR={server.folder / 'other'}")
        other = SignIn(other_kernel)
        other.browser = sign_in.browser
        callbacks = [sign_in.answer(), other.answer()]

        pages = [other.come_back(callbacks[1]), sign_in.come_back(callbacks[0])]

    assert all("Signed in as Alice Martin." in page for page in pages)


def test_somebody_who_is_not_signed_in_to_jupyter_comes_back_to_the_start_after_that(provider, sign_in):
    server = sign_in.kernel.server
    sign_in.browser.cookies.clear()

    to_login = sign_in.start()
    sign_in.browser.cookies.update(server.browser().cookies)
    back = sign_in.get(urljoin(server.url, parse_qs(urlsplit(to_login.headers["Location"]).query)["next"][0]))

    assert to_login.status_code == 302
    assert urlsplit(to_login.headers["Location"]).path == "/team/x/login"
    assert back.status_code == 302
    assert back.headers["Location"].startswith(provider.issuer)


@pytest.mark.slow
@pytest.mark.parametrize("door", ["password", pytest.param("open", marks=pytest.mark.long)])
def test_a_server_of_another_kind_works_as_well(door, provider, tmp_path):
    environ = kernel_environment(tmp_path, issuer=provider.issuer, client_id=provider.client_id)

    with jupyter_server(tmp_path, environ=environ, door=door) as server, server.kernel() as kernel:
        signed_in = SignIn(kernel).still_works()
        somebody_else = SignIn(kernel)
        somebody_else.start()
        somebody_else.browser.cookies.clear()
        refused = somebody_else.get(f"{somebody_else.redirect_uri}?code=c&state={somebody_else.state}")

    assert signed_in
    assert refused.status_code == (403 if door == "password" else 400)


@pytest.mark.slow
def test_the_configured_address_is_what_notebook_provider_and_cookies_go_by(provider, tmp_path):
    public = "https://lab.example.com/"
    environ = kernel_environment(tmp_path, issuer=provider.issuer, client_id=provider.client_id)
    options = (f"--MicromegasRelay.public_url={public}",)

    with jupyter_server(tmp_path, *options, environ=environ) as server, server.kernel() as kernel:
        sign_in = SignIn(kernel)
        shown = sign_in.start_url
        # What the proxy does.
        sign_in.start_url = shown.replace(public, server.url)
        started = sign_in.start(headers={"X-Forwarded-Proto": "http"})

    assert shown.startswith(f"{public}micromegas/start/")
    assert sign_in.redirect_uri == f"{public}micromegas/callback"
    cookie = started.headers["Set-Cookie"]
    assert cookie.startswith("__Host-micromegas-login-")
    assert {"Secure", "HttpOnly", "Path=/", "SameSite=Lax"} <= {part.strip() for part in cookie.split(";")}
