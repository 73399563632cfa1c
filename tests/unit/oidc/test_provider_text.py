from __future__ import annotations

import pytest

from micromegas_jupyter.core.secrets import Secret
from micromegas_jupyter.oidc.discovery import clean_provider_text, describe_provider_error


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("The user said no.", "The user said no."),
        ("two\nlines\r\n\tand \x1b[31mcolour\x07", "two lines and [31mcolour"),
        ("<script>alert(1)</script>", "script alert(1) /script"),
        ("code " + "a" * 40 + " was used", "code … was used"),
        ("left\u202eright", "left right"),
        ("word " * 100, ("word " * 40).rstrip() + " …"),
    ],
)
def test_only_harmless_text_is_shown(text: str, shown: str) -> None:
    assert clean_provider_text(text) == shown


def test_a_secret_that_the_provider_repeats_is_not_shown() -> None:
    assert clean_provider_text("bad code s3same here", secrets=[Secret("s3same")]) == "bad code … here"


@pytest.mark.parametrize("written", ["p w+d/%", "p+w%2Bd%2F%25", "p%20w%2Bd%2F%25"])
def test_a_secret_that_the_provider_repeats_in_another_writing_is_not_shown(written: str) -> None:
    assert clean_provider_text(f"bad secret {written} here", secrets=[Secret("p w+d/%")]) == "bad secret … here"


@pytest.mark.parametrize("code", ["s3same", "invalid_client.s3same", "s3same_x"])
def test_a_secret_that_stands_in_an_error_code_is_not_shown(code: str) -> None:
    assert describe_provider_error(code, None, secrets=[Secret("s3same")]) == "an unreadable error code"


@pytest.mark.parametrize(
    ("code", "description", "shown"),
    [
        ("access_denied", None, "access_denied"),
        ("access_denied", "The user\nsaid no", "access_denied: The user said no"),
        ("<b>", "why", "an unreadable error code: why"),
        (17, {"a": 1}, "an unreadable error code"),
        ("a" * 65, None, "an unreadable error code"),
    ],
)
def test_an_error_is_described_by_code_and_cleaned_description(code: object, description: object, shown: str) -> None:
    assert describe_provider_error(code, description) == shown
