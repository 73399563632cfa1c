"""Values that cross packages: what they are, and what they do not show."""

import pickle

import pytest

from micromegas_jupyter.core.system import HiddenBytes, HiddenText, Secret


def test_a_secret_shows_nothing_and_gives_its_text() -> None:
    secret = Secret("sesame")

    assert (f"{secret} {secret!r}", secret.reveal()) == ("Secret(***) Secret(***)", "sesame")


def test_a_secret_cannot_be_pickled() -> None:
    with pytest.raises(TypeError):
        pickle.dumps(Secret("sesame"))


def test_hidden_text_is_its_text_and_does_not_show_among_variables() -> None:
    text = HiddenText("sesame")

    assert (text, f"open {text}", repr(text)) == ("sesame", "open sesame", "HiddenText(***)")


def test_hidden_bytes_are_their_bytes_and_do_not_show_among_variables() -> None:
    data = HiddenBytes(b"sesame")

    assert (data, repr(data), str(data)) == (b"sesame", "HiddenBytes(***)", "HiddenBytes(***)")
