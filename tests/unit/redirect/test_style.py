from __future__ import annotations

import re

import pytest

from micromegas_jupyter.auth.flows.pages import STYLE


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2.2 defines it."""
    digits = colour.lstrip("#")
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("name", ["text", "quiet", "good", "bad"])
def test_text_is_readable_on_its_card(scheme: int, name: str) -> None:
    block = re.findall(r":root\{(.*?)\}", STYLE)[scheme]
    colours = dict(re.findall(r"--(\w+):(#[0-9a-f]{3,6})", block))

    lighter, darker = sorted((luminance(colours[name]), luminance(colours["card"])), reverse=True)

    assert (lighter + 0.05) / (darker + 0.05) >= 4.5
