"""Providers on sockets that several modules call."""

import pytest

from tests.fakes.scripted_provider import ScriptedProvider
from tests.fakes.tls_provider import TlsProvider


@pytest.fixture
def provider():
    with ScriptedProvider() as running:
        yield running


@pytest.fixture
def tls_provider(tmp_path):
    with TlsProvider(tmp_path) as running:
        yield running
