import pytest

from micromegas_jupyter.redirect.handlers import (
    CookiePlace,
    binding_name,
    binding_value,
    bindings_in,
    ending_name,
    ending_value,
    names_in,
    parse_ending_value,
)

DIGEST = "0123456789abcdef" * 4
PLAIN = CookiePlace(is_secure=False, base_url="/x/")
SECURE = CookiePlace(is_secure=True, base_url="/")


def test_over_tls_at_the_root_no_neighbour_can_set_them() -> None:
    assert binding_name(SECURE, DIGEST) == "__Host-micromegas-login-0123456789abcdef"
    assert ending_name(SECURE) == "__Host-micromegas-done"
    assert SECURE.path == "/"


def test_below_a_base_url_they_are_sent_to_the_sign_in_addresses_only() -> None:
    place = CookiePlace(is_secure=True, base_url="/user/alice/")

    assert binding_name(place, DIGEST) == "micromegas-login-0123456789abcdef"
    assert place.path == "/user/alice/micromegas/"


def test_each_sign_in_has_a_cookie_of_its_own() -> None:
    assert binding_name(PLAIN, DIGEST) != binding_name(PLAIN, "f" * 64)
    assert binding_value("alice", DIGEST) != binding_value("bob", DIGEST)


def test_two_cookies_of_one_name_are_counted_in_and_over_headers() -> None:
    names = names_in(["a=1; b=2; a=3", " a=4;;c", ""])

    assert (names["a"], names["b"], names["c"]) == (3, 1, 1)


def test_the_bindings_of_a_browser_are_found() -> None:
    names = [binding_name(PLAIN, DIGEST), "micromegas-done", "username-x", binding_name(SECURE, DIGEST)]

    assert bindings_in(PLAIN, names) == [names[0]]


@pytest.mark.parametrize(
    "rest", ["", "(", "0123456789ABCDEF", "0123456789abcde", "0123456789abcdef0", "01 3456789abcdef"]
)
def test_a_name_that_only_begins_like_a_binding_is_none(rest: str) -> None:
    assert bindings_in(PLAIN, [f"micromegas-login-{rest}"]) == []


def test_what_the_last_page_is_about_is_read_back() -> None:
    assert parse_ending_value(ending_value("kernel-1", DIGEST)) == ("kernel-1", DIGEST)
    for value in ("", "kernel-1", "a/b " + DIGEST, "a b c"):
        assert parse_ending_value(value) is None
