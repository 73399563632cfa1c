import pytest

from micromegas_jupyter.auth.flows.handlers import (
    CookieScope,
    binding_value,
    cookie_names_in,
    parse_outcome_value,
)

DIGEST = "0123456789abcdef" * 4
PLAIN = CookieScope(is_secure=False, base_url="/x/")
SECURE = CookieScope(is_secure=True, base_url="/")


def test_over_tls_at_the_root_no_neighbour_can_set_them() -> None:
    assert SECURE.binding_name(DIGEST) == "__Host-micromegas-login-0123456789abcdef"
    assert SECURE.outcome_name == "__Host-micromegas-done"
    assert SECURE.path == "/"


def test_below_a_base_url_they_are_sent_to_the_sign_in_addresses_only() -> None:
    scope = CookieScope(is_secure=True, base_url="/user/alice/")

    assert scope.binding_name(DIGEST) == "micromegas-login-0123456789abcdef"
    assert scope.path == "/user/alice/micromegas/"


def test_each_sign_in_has_a_cookie_of_its_own() -> None:
    assert PLAIN.binding_name(DIGEST) != PLAIN.binding_name("f" * 64)
    assert binding_value("alice", DIGEST) != binding_value("bob", DIGEST)


def test_two_cookies_of_one_name_are_counted_in_and_over_headers() -> None:
    names = cookie_names_in(["a=1; b=2; a=3", " a=4;;c", ""])

    assert (names["a"], names["b"], names["c"]) == (3, 1, 1)


def test_the_bindings_of_a_browser_are_found() -> None:
    names = [PLAIN.binding_name(DIGEST), "micromegas-done", "username-x", SECURE.binding_name(DIGEST)]

    assert PLAIN.bindings_in(names) == [names[0]]


@pytest.mark.parametrize(
    "rest", ["", "(", "0123456789ABCDEF", "0123456789abcde", "0123456789abcdef0", "01 3456789abcdef"]
)
def test_a_name_that_only_begins_like_a_binding_is_none(rest: str) -> None:
    assert PLAIN.bindings_in([f"micromegas-login-{rest}"]) == []


def test_what_the_last_page_is_about_is_read_back() -> None:
    assert parse_outcome_value(f"kernel-1 {DIGEST}") == ("kernel-1", DIGEST)
    for value in ("", "kernel-1", "a/b " + DIGEST, "a b c"):
        assert parse_outcome_value(value) is None
