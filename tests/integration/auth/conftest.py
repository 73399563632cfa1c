"""A provider on loopback, for the tests that run none of their own kind."""

import pytest

from tests.fakes.scripted_provider import ScriptedProvider


@pytest.fixture
def idp():
    with ScriptedProvider() as running:
        yield running
