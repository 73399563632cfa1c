"""Tests of `access.key_policy`."""

from __future__ import annotations

import pytest

from micromegas_jupyter.access.jwks import KeyPolicy


def test_keys_are_renewed_ahead_after_four_fifths_of_the_interval():
    assert KeyPolicy(refresh_interval_seconds=100).refresh_ahead_seconds == 80


@pytest.mark.parametrize(("failures", "seconds"), [(1, 0), (2, 1), (3, 2), (4, 5), (5, 10), (6, 30), (1000, 30)])
def test_without_keys_the_pauses_grow_to_the_cool_down(failures, seconds):
    assert KeyPolicy().pause_seconds(failures=failures, has_keys=False) == seconds


@pytest.mark.parametrize("failures", [1, 2, 1000])
def test_with_keys_every_pause_is_the_cool_down(failures):
    assert KeyPolicy(cool_down_seconds=45).pause_seconds(failures=failures, has_keys=True) == 45
