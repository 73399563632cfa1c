"""What the text of a statement alone tells; texts that come again are not read again."""

from __future__ import annotations

import pytest

from micromegas_jupyter.engine.datafusion_engine import ParsedText, parse_text
from micromegas_jupyter.errors import InvalidStatement, StatementRefused


def read(sql: str) -> ParsedText:
    return parse_text(sql, max_bytes=65536, has_denials=False)


def test_a_short_text_is_read_once_and_a_long_one_each_time() -> None:
    long = f"SELECT '{'x' * 5000}'"

    assert read("SELECT 1") is read("SELECT 1")
    assert read(long) is not read(long)


def test_limits_hold_each_time() -> None:
    for _ in range(2):
        with pytest.raises(StatementRefused):
            read("SELECT 1; SELECT 2")
        with pytest.raises(InvalidStatement):
            read(" ; ")
    read("SELECT 100")
    with pytest.raises(StatementRefused):
        parse_text("SELECT 100", max_bytes=5, has_denials=False)
