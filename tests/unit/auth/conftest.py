"""A provider without sockets whose time is the fake clock's, and the parts that use it."""

import pytest

from tests.fakes.scripted_provider import DirectCalls, ScriptedProvider


@pytest.fixture
def idp(clock):
    return ScriptedProvider(clock=clock)


@pytest.fixture
def calls(idp):
    return DirectCalls(idp)
