"""A provider of another make that a test may rotate and stop."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.other_provider.installing import OtherProviderMissing, install_once
from tests.integration.other_provider.running import OtherProvider

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def own_provider(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OtherProvider]:
    """One for this test alone, whose tokens live for three hours."""
    cache = getattr(pytestconfig, "cache", None)
    folder = Path(cache.mkdir("other_provider")) if cache else tmp_path_factory.mktemp("other_provider")
    try:
        provider = OtherProvider(install_once(folder), token_lifetime_seconds=3 * 3600)
        provider.start()
    except OtherProviderMissing as missing:
        pytest.fail(str(missing), pytrace=False)
    yield provider
    provider.stop()
