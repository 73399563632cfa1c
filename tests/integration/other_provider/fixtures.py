"""The session-wide fixture of the other provider; `tests/integration/conftest.py` offers it to the tests."""

from pathlib import Path

import pytest

from tests.integration.other_provider.installing import OtherProviderMissing, install_once
from tests.integration.other_provider.running import OtherProvider


@pytest.fixture(scope="session")
def other_provider(pytestconfig, tmp_path_factory):
    """A certified provider of another make; where it cannot be set up, the tests that want it fail and say why."""
    cache = getattr(pytestconfig, "cache", None)
    folder = Path(cache.mkdir("other_provider")) if cache else tmp_path_factory.mktemp("other_provider")
    try:
        provider = OtherProvider(install_once(folder))
        provider.start()
    except OtherProviderMissing as missing:
        pytest.fail(str(missing), pytrace=False)
    yield provider
    provider.stop()
