from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.config.client import Bearer
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.hub.configuring import address_wish, bearer_wish, margin_wish, switch_wish, text_wish

if TYPE_CHECKING:
    from collections.abc import Callable


def key_of_refusal(call: Callable[[], object]) -> str | None:
    with pytest.raises(ConfigurationError) as refused:
        call()
    return refused.value.key


@pytest.mark.parametrize("value", [1, True, ["lake"], b"lake", " ", "lake\n", "la\x00ke"])
def test_what_is_no_line_of_text_is_refused_by_its_name(value: object) -> None:
    assert key_of_refusal(lambda: text_wish(value, key="exchange_audience")) == "exchange_audience"


def test_a_text_may_be_left_out() -> None:
    assert text_wish(None, key="exchange_scope") is None
    assert text_wish("", key="exchange_scope") is None
    assert text_wish("read write", key="exchange_scope") == "read write"


@pytest.mark.parametrize("value", ["False", "no", "", None, 0, 1])
def test_a_text_switches_nothing_on(value: object) -> None:
    assert key_of_refusal(lambda: switch_wish(value, key="switch")) == "switch"


def test_a_switch_is_on_or_off() -> None:
    assert switch_wish(True, key="switch") is True
    assert switch_wish(False, key="switch") is False


@pytest.mark.parametrize("value", [None, "", "ID_TOKEN", "refresh_token", 1, ["id_token"]])
def test_another_token_than_the_two_is_refused(value: object) -> None:
    assert key_of_refusal(lambda: bearer_wish(value)) == "bearer"
    assert bearer_wish("access_token") is Bearer.ACCESS_TOKEN


@pytest.mark.parametrize("value", [None, "60", True, 60.0, 1, 3601, float("nan")])
def test_a_margin_is_a_whole_number_within_bounds(value: object) -> None:
    assert key_of_refusal(lambda: margin_wish(value)) == "margin_seconds"
    assert (margin_wish(2), margin_wish(3600)) == (2, 3600)


@pytest.mark.parametrize(
    "value", [None, "", "hub", "ftp://hub", "http://hub:99999", "http://hub:0", b"http://hub", 8190]
)
def test_an_address_that_nobody_can_call_is_refused_by_its_name(value: object) -> None:
    assert key_of_refusal(lambda: address_wish(value, key="kernel_url")) == "kernel_url"
    assert address_wish("http://hub:8190", key="kernel_url") == "http://hub:8190/"
