"""Messages between server and kernel, the names in their addresses, cookies, pages, and the QR code."""

import base64
import hashlib
import re
import time
from html import escape
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import segno
from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine
from tornado.web import Application, RequestHandler, create_signed_value

from micromegas_jupyter.auth.flows.base import SECURITY_HEADERS, LoginOutcome, notice_page, qr_lines, terminal_qr
from micromegas_jupyter.auth.flows.jupyter import (
    MAX_QUERY_CHARACTERS,
    CookieScope,
    Ended,
    LoginPageHandler,
    binding_value,
    build_name,
    callback_address,
    cookie_names_in,
    is_callback_address,
    is_web_address,
    kernel_id_in,
    parse_outcome_value,
    parse_reply,
    parse_request,
    public_base,
    state_in,
)

KERNEL_ID = "4f72b256-c23a-4a31-bdf9-f9fbbb6ed380"
RANDOM = "wNuMG1XJNcsT3-CfvHwJHU1yHQRRXZtUR2cruyvtP2A"
NAME = f"{KERNEL_ID}.{RANDOM}"
DIGEST = "0123456789abcdef" * 4
START = {"version": 1, "action": "start", "name": NAME, "redirect_uri": "https://lab.example.com/micromegas/callback"}
PLAIN = CookieScope(is_secure=False, base_url="/x/")
SECURE = CookieScope(is_secure=True, base_url="/")


@pytest.mark.parametrize(
    "content",
    [
        None,
        "start",
        *({**START, "version": version} for version in (2, True)),
        *({**START, "action": action} for action in ("begin", ["start"])),
        {**START, "name": "elsewhere"},
        {**START, "redirect_uri": "h" * 3000},
        *({"version": 1, "action": "answer", "query": "x" * length} for length in (0, MAX_QUERY_CHARACTERS + 1)),
        *({"version": 1, "action": "ending", "state_digest": digest} for digest in ("A" * 64, "a" * 63)),
    ],
)
def test_anything_else_is_not_a_request(content):
    assert parse_request(content) is None


def test_a_reply_is_believed_only_where_it_is_plain_and_cut_when_sent():
    ended = {"version": 1, "action": "ended", "is_signed_in": False}
    started = {"version": 1, "action": "started", "authorization_url": "https://id.example.com"}

    assert Ended.of(LoginOutcome(is_signed_in=False, what="x" * 9000)) == Ended(what="x" * 2000)
    assert parse_reply(ended) == Ended()
    for change in ({"version": 2}, {"action": "done"}, {"is_signed_in": "yes"}, {"who": 7}, {"what": "x" * 9000}):
        assert parse_reply({**ended, **change}) is None
    for content in (None, {"action": "accepted"}, started, {**started, "authorization_url": 1, "state_digest": DIGEST}):
        assert parse_reply(content) is None


# Names


@pytest.mark.parametrize(
    ("text", "kernel_id"),
    [
        (build_name(KERNEL_ID, RANDOM), KERNEL_ID),
        (f"spark_python_yarn-1.{RANDOM}", "spark_python_yarn-1"),
        ("", None),
        (f".{RANDOM}", None),
        (f"{KERNEL_ID}{RANDOM}", None),
        (f"{KERNEL_ID}.{RANDOM[:-1]}", None),
        (f"{KERNEL_ID}.{RANDOM}A", None),
        (f"{KERNEL_ID}.{RANDOM}\n", None),
        (f"../{KERNEL_ID}.{RANDOM}", None),
        (f"{'a' * 65}.{RANDOM}", None),
        (f"kérnel.{RANDOM}", None),
        (f"{KERNEL_ID}.{RANDOM[:-1]}٣", None),
        (f"{KERNEL_ID}.x.{RANDOM}", None),
        ("\ud800", None),
    ],
)
def test_a_name_leads_to_its_kernel_and_any_other_nowhere(text, kernel_id):
    assert kernel_id_in(text) == kernel_id


@pytest.mark.parametrize(
    ("query", "state"),
    [
        ("code=c&state=s", "s"),
        ("state=a%2Fb&code=c", "a/b"),
        ("state=", ""),
        ("code=c", None),
        ("", None),
        ("state=s&state=s", None),
        ("state=s" + "&x=" * 50, None),
    ],
)
def test_a_state_counts_where_it_stands_once(query, state):
    assert state_in(query) == state


# Addresses


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("https://lab.example.com", "https://lab.example.com/"),
        ("https://lab.example.com/user/alice/", "https://lab.example.com/user/alice/"),
        ("http://127.0.0.1:8888/x", "http://127.0.0.1:8888/x/"),
        ("http://[::1]:8888/", "http://[::1]:8888/"),
        ("", None),
        ("//lab.example.com/", None),
        ("javascript:alert(1)", None),
        ("https://", None),
        ("https://alice@lab.example.com/", None),
        ("https://lab.example.com\\@evil.example/", None),
        ("https://lab.example.com/?next=/", None),
        ("https://lab.example.com\r\nX: y/", None),
        ("https://läb.example.com/", None),
        ("https://lab.example.com:port/", None),
        ("https://[::1", None),
        ("https://lab.example.com, evil.example/", None),
        ("https://" + "a" * 3000, None),
    ],
)
def test_an_address_of_a_server_gets_its_slash_and_any_other_is_none(url, base):
    assert public_base(url) == base


def test_a_redirect_uri_is_a_servers_callback_and_a_browser_is_sent_to_web_addresses_only():
    own = callback_address("https://lab.example.com/x/")
    others = (
        own + "?x=1",
        "https://a@lab.example.com/micromegas/callback",
        "https://lab.example.com/xmicromegas/callback",
    )

    assert is_callback_address(own)
    assert is_web_address("https://id.example.com/authorize?a=b")
    assert not any(map(is_callback_address, (*others, "javascript:/micromegas/callback")))
    for url in (
        "javascript:alert(1)",
        "//id.example.com",
        "https://",
        "https://id.example.com\\x",
        "https://id .example",
    ):
        assert not is_web_address(url)


# Cookies


def test_over_tls_at_the_root_no_neighbour_can_set_a_cookie_and_elsewhere_its_path_is_narrow():
    below = CookieScope(is_secure=True, base_url="/user/alice/")

    assert SECURE.binding_name(DIGEST) == "__Host-micromegas-login-0123456789abcdef"
    assert (SECURE.outcome_name, SECURE.path) == ("__Host-micromegas-done", "/")
    assert below.binding_name(DIGEST) == "micromegas-login-0123456789abcdef"
    assert below.path == "/user/alice/micromegas/"
    assert PLAIN.binding_name(DIGEST) != PLAIN.binding_name("f" * 64)
    assert binding_value("alice", DIGEST) != binding_value("bob", DIGEST)


def test_cookies_of_one_name_are_counted_over_headers_and_what_the_last_page_is_about_is_read_back():
    names = cookie_names_in(["a=1; b=2; a=3", " a=4;;c", ""])

    assert (names["a"], names["b"], names["c"]) == (3, 1, 1)
    assert parse_outcome_value(f"kernel-1 {DIGEST}") == ("kernel-1", DIGEST)
    for value in ("", "kernel-1", f"a/b {DIGEST}", "a b c"):
        assert parse_outcome_value(value) is None


@pytest.mark.parametrize(
    ("age_seconds", "secret", "count", "value"),
    [(0, "own", 1, "alice"), (0, "own", 0, ""), (0, "own", 2, ""), (0, "another", 1, ""), (601, "own", 1, "")],
)
def test_a_signed_cookie_counts_if_it_was_sent_once_and_is_new_and_ours(age_seconds, secret, count, value):
    signed = create_signed_value(secret, "bound", "alice", clock=lambda: time.time() - age_seconds).decode()
    headers = HTTPHeaders({"Host": "lab", "Cookie": "; ".join([f"bound={signed}"] * count)})
    start = RequestStartLine("GET", "/", "HTTP/1.1")
    request = HTTPServerRequest(start_line=start, headers=headers, connection=Mock())
    page = type("Page", (LoginPageHandler, RequestHandler), {})(Application(cookie_secret="own"), request)

    assert page.read_cookie("bound", 600) == value


def test_only_the_bindings_of_this_server_are_found():
    mine = PLAIN.binding_name(DIGEST)
    endings = ["", "(", "0123456789ABCDEF", "0123456789abcde", "0123456789abcdef0", "01 3456789abcdef"]
    others = ["micromegas-done", "username-x", SECURE.binding_name(DIGEST), *(f"micromegas-login-{e}" for e in endings)]

    assert PLAIN.bindings_in([mine, *others]) == [mine]


HOSTILE = "<script>alert(1)</script> \"' & </title>"
ADDRESS = "https://id.example.com/device?user_code=WDJB-MJHT"
COLOURED_LINE = re.compile(r"\x1b\[97;40m([ █▀▄]+)\x1b\[0m")


@pytest.mark.parametrize(
    ("page", "role"),
    [
        (LoginOutcome(is_signed_in=True, who=HOSTILE).page(), "status"),
        (LoginOutcome(is_signed_in=False, what=HOSTILE, remedy=HOSTILE).page(), "alert"),
        (notice_page(status=400, what=HOSTILE), "alert"),
    ],
)
def test_all_text_is_escaped_and_nothing_is_loaded(page, role):
    html = page.body.decode()

    assert escape(HOSTILE) in html
    assert HOSTILE not in html
    assert "http" not in html
    html = html.replace("<script>close()</script>", "")  # of the outcome's page
    names = {"html", "head", "meta", "title", "style", "body", "main", "span", "h1", "p"}
    assert set(re.findall(r"<([a-z0-9]+)", html)) <= names
    assert f'role="{role}"' in html


def test_pages_are_neither_kept_nor_framed_and_the_policy_allows_their_own_style_and_script_only():
    found = re.search(
        r"<style>(.*?)</style>.*<script>(.*?)</script>", LoginOutcome(is_signed_in=True).page().body.decode()
    )
    assert found is not None
    assert found[2] == "close()"
    style, script = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in found.groups())

    assert {
        "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{style}'; script-src 'sha256-{script}'; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
    } == SECURITY_HEADERS


def test_the_qr_code_is_light_on_dark_whatever_the_terminals_colours_are():
    light = set()
    for row, line in enumerate(terminal_qr(ADDRESS, columns=80)):
        found = COLOURED_LINE.fullmatch(line)
        assert found is not None
        for column, character in enumerate(found[1]):
            light |= {(column, 2 * row)} if character in "█▀" else set()
            light |= {(column, 2 * row + 1)} if character in "█▄" else set()

    symbol = segno.make_qr(ADDRESS, error="l")
    rows = list(symbol.matrix_iter(border=2))
    assert {(x, y) for x, y in light if y < len(rows)} == {
        (x, y) for y, row in enumerate(rows) for x, module in enumerate(row) if not module
    }


def test_a_qr_code_that_is_missing_too_long_or_too_wide_is_left_out():
    line = COLOURED_LINE.fullmatch(terminal_qr(ADDRESS, columns=400)[0])
    assert line is not None

    assert terminal_qr(ADDRESS, columns=len(line[1])) != []
    assert terminal_qr(ADDRESS, columns=len(line[1]) - 1) == []
    assert terminal_qr("", columns=400) == []
    assert terminal_qr("https://id.example.com/" + "x" * 500, columns=400) == []


def test_a_terminal_without_colours_or_block_characters_shows_no_qr_code():
    stream = SimpleNamespace(isatty=lambda: True, encoding="UTF8")

    assert qr_lines(ADDRESS, stream=stream, environ={"TERM": "xterm"})
    for environ in ({"TERM": "xterm", "NO_COLOR": "1"}, {"TERM": "dumb"}, {}):
        assert not qr_lines(ADDRESS, stream=stream, environ=environ)
    for stream.encoding in ("latin-1", None):
        assert not qr_lines(ADDRESS, stream=stream, environ={"TERM": "xterm"})
