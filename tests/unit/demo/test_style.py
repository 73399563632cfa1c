"""The colours of the pages can be read by everybody (WCAG 2.2, success criteria 1.4.3 and 1.4.11)."""

import re
from pathlib import Path

import pytest

import micromegas_jupyter.demo.provider as package

CSS = (Path(package.__file__).parent / "static" / "provider.css").read_text()
TEXT_PAIRS = [
    ("text", "card"), ("text", "soft"), ("muted", "card"), ("muted", "soft"), ("muted", "page"),
    ("accent", "card"), ("accent", "soft"), ("accent-strong", "card"), ("on-accent", "accent"),
    ("on-accent", "accent-strong"), ("alert", "alert-soft"), ("alert", "card"), ("done", "done-soft"),
    ("white", "alice"), ("white", "bob"),
]  # fmt: skip
BORDER_PAIRS = [("field-line", "card"), ("accent", "card"), ("accent", "page")]


def _colours(block: int) -> dict[str, str]:
    found = re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)[block]
    return {"white": "#ffffff"} | dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", found))


def _luminance(colour: str) -> float:
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(first: str, second: str) -> float:
    light, dark = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("block", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(("first", "second"), TEXT_PAIRS)
def test_text_stands_out(block: int, first: str, second: str) -> None:
    colours = _colours(block)

    assert _contrast(colours[first], colours[second]) >= 4.5


@pytest.mark.parametrize("block", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(("first", "second"), BORDER_PAIRS)
def test_borders_of_fields_and_the_focus_ring_stand_out(block: int, first: str, second: str) -> None:
    colours = _colours(block)

    assert _contrast(colours[first], colours[second]) >= 3
