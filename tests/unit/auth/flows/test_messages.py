"""Messages between server and kernel, the names in their addresses, and the cookies of a browser."""

import json

import pytest

from micromegas_jupyter.auth.flows.base import LoginOutcome
from micromegas_jupyter.auth.flows.jupyter import (
    MAX_QUERY_CHARACTERS,
    Accepted,
    CookieScope,
    Ended,
    Started,
    StillWorking,
    Unknown,
    binding_value,
    build_message,
    build_name,
    callback_address,
    cookie_names_in,
    is_callback_address,
    is_kernel_id,
    is_web_address,
    kernel_id_in,
    parse_outcome_value,
    parse_reply,
    parse_request,
    public_base,
    state_in,
)
from micromegas_jupyter.core.secrets import Secret

KERNEL_ID = "4f72b256-c23a-4a31-bdf9-f9fbbb6ed380"
RANDOM = "wNuMG1XJNcsT3-CfvHwJHU1yHQRRXZtUR2cruyvtP2A"
NAME = f"{KERNEL_ID}.{RANDOM}"
DIGEST = "0123456789abcdef" * 4
START = {"version": 1, "action": "start", "name": NAME, "redirect_uri": "https://lab.example.com/micromegas/callback"}
PLAIN = CookieScope(is_secure=False, base_url="/x/")
SECURE = CookieScope(is_secure=True, base_url="/")


@pytest.mark.parametrize(
    "reply",
    [
        Started(authorization_url=Secret("https://id.example.com/authorize?state=s"), state_digest=DIGEST),
        Accepted(),
        Unknown(),
        StillWorking(),
        Ended.of(LoginOutcome(is_signed_in=True, who="Alice")),
        Ended(what="No.", remedy="Again."),
    ],
)
def test_a_reply_arrives_as_it_was_sent(reply):
    assert parse_reply(json.loads(json.dumps(build_message(reply)))) == reply


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        "start",
        {},
        {**START, "version": 2},
        {**START, "version": True},
        {**START, "action": "begin"},
        {**START, "action": ["start"]},
        {**START, "name": "elsewhere"},
        {**START, "name": 7},
        {**START, "redirect_uri": ""},
        {**START, "redirect_uri": "h" * 3000},
        {"version": 1, "action": "answer"},
        {"version": 1, "action": "answer", "query": ""},
        {"version": 1, "action": "answer", "query": "x" * (MAX_QUERY_CHARACTERS + 1)},
        {"version": 1, "action": "ending", "state_digest": "A" * 64},
        {"version": 1, "action": "ending", "state_digest": "a" * 63},
    ],
)
def test_anything_else_is_not_a_request(content):
    assert parse_request(content) is None


@pytest.mark.parametrize(
    "content",
    [
        None,
        {"action": "accepted"},
        {"version": 2, "action": "accepted"},
        {"version": 1, "action": "done"},
        {"version": 1, "action": "started", "authorization_url": "https://id.example.com"},
        {"version": 1, "action": "started", "authorization_url": 1, "state_digest": DIGEST},
    ],
)
def test_anything_else_is_not_a_reply(content):
    assert parse_reply(content) is None


def test_an_outcome_is_believed_only_where_it_is_plain_and_is_cut_when_sent():
    ended = {"version": 1, "action": "ended", "is_signed_in": False}

    assert Ended.of(LoginOutcome(is_signed_in=False, what="x" * 9000)) == Ended(what="x" * 2000)
    assert parse_reply(ended) == Ended()
    for change in ({"is_signed_in": "yes"}, {"who": 7}, {"what": "x" * 9000}):
        assert parse_reply({**ended, **change}) is None


# Names


def test_a_name_leads_to_its_kernel():
    assert kernel_id_in(build_name(KERNEL_ID, RANDOM)) == KERNEL_ID
    assert is_kernel_id("spark_python_yarn-1")
    assert not is_kernel_id("a/b")


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        f"{KERNEL_ID}.",
        f".{RANDOM}",
        f"{KERNEL_ID}{RANDOM}",
        f"{KERNEL_ID}.{RANDOM[:-1]}",
        f"{KERNEL_ID}.{RANDOM}A",
        f"{KERNEL_ID}.{RANDOM}\n",
        f"../{KERNEL_ID}.{RANDOM}",
        f"{KERNEL_ID}/../x.{RANDOM}",
        f"{'a' * 65}.{RANDOM}",
        f"kérnel.{RANDOM}",
        f"{KERNEL_ID}.{RANDOM[:-1]}٣",
        f"{KERNEL_ID}.x.{RANDOM}",
        "\ud800",
    ],
)
def test_any_other_name_leads_nowhere(text):
    assert kernel_id_in(text) is None


@pytest.mark.parametrize(
    ("kernel_id", "random"), [("a b", RANDOM), ("", RANDOM), (KERNEL_ID, "short"), ("a.b", RANDOM)]
)
def test_no_name_is_built_of_other_parts(kernel_id, random):
    with pytest.raises(ValueError, match="not the parts of a name"):
        build_name(kernel_id, random)


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
        ("lab.example.com", None),
        ("//lab.example.com/", None),
        ("ftp://lab.example.com/", None),
        ("javascript:alert(1)", None),
        ("https://", None),
        ("https:///x/", None),
        ("https://alice@lab.example.com/", None),
        ("https://lab.example.com\\@evil.example/", None),
        ("https://lab.example.com/?next=/", None),
        ("https://lab.example.com/#x", None),
        ("https://lab.example.com/ x", None),
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


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (callback_address("https://lab.example.com/x/"), True),
        ("https://lab.example.com/callback", False),
        ("https://lab.example.com/xmicromegas/callback", False),
        ("https://lab.example.com/micromegas/callback?x=1", False),
        ("https://a@lab.example.com/micromegas/callback", False),
        ("javascript:/micromegas/callback", False),
    ],
)
def test_only_a_servers_callback_is_a_redirect_uri(url, expected):
    assert is_callback_address(url) is expected


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "//id.example.com",
        "https://",
        "https://id.example.com\\x",
        "data:text/html,x",
        "https://id .example",
    ],
)
def test_a_browser_is_sent_to_web_addresses_only(url):
    assert is_web_address("https://id.example.com/authorize?a=b")
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


def test_two_cookies_of_one_name_are_counted_in_and_over_headers():
    names = cookie_names_in(["a=1; b=2; a=3", " a=4;;c", ""])

    assert (names["a"], names["b"], names["c"]) == (3, 1, 1)


def test_only_the_bindings_of_this_server_are_found():
    mine = PLAIN.binding_name(DIGEST)
    endings = ["", "(", "0123456789ABCDEF", "0123456789abcde", "0123456789abcdef0", "01 3456789abcdef"]
    others = ["micromegas-done", "username-x", SECURE.binding_name(DIGEST), *(f"micromegas-login-{e}" for e in endings)]

    assert PLAIN.bindings_in([mine, *others]) == [mine]


def test_what_the_last_page_is_about_is_read_back():
    assert parse_outcome_value(f"kernel-1 {DIGEST}") == ("kernel-1", DIGEST)
    for value in ("", "kernel-1", f"a/b {DIGEST}", "a b c"):
        assert parse_outcome_value(value) is None
