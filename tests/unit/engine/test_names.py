"""A name in SQL stands for itself."""

from __future__ import annotations

from micromegas_jupyter.engine.names import quoted


def test_a_quote_in_a_name_is_doubled() -> None:
    assert quoted('a"B c') == '"a""B c"'
