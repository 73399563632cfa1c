"""Pictures for the docs, taken by the tests that have just checked what they show."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

IMAGES = Path(__file__).parents[1] / "docs" / "images"
SaveScreenshot = Callable[["Page", str], None]


@pytest.fixture
def save_screenshot(request, tmp_path):
    """Save a page under a name: below docs/images with `--save-screenshots`, else where it is thrown away."""
    folder = IMAGES if request.config.getoption("--save-screenshots") else tmp_path
    folder.mkdir(exist_ok=True)

    def save(page, name):
        page.screenshot(path=str(folder / f"{name}.png"), animations="disabled")

    return save
