"""What tests with light workers need."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.workers.bench import ROOT

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "gate").touch()
    return tmp_path
