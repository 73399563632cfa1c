"""Texts that break programs which build SQL out of them, or which pass them on by the wrong way."""

from __future__ import annotations

import itertools
from typing import Final

_QUOTES: Final = ("'", '"', "`", "''", "\\'", "’", "‘", "ʼ", "＇", "“", "”", "«", "´", "´´")
_ENDS: Final = ("", "--", "-- ", "#", "/*", "*/", ";", ";--", "\x00")
_CLAUSES: Final = (
    " OR 1=1",
    " OR '1'='1",
    " UNION SELECT secret FROM secrets",
    "; DROP TABLE texts",
    "; SELECT 1",
    ") OR (1=1",
    " AND 1=(SELECT count(*) FROM secrets)",
)
_PLACEHOLDERS: Final = (
    ":value", ":other", "::text", "$1", "$value", "$$", "$$ text $$", "$tag$ text $tag$", "?", "??", "@value", "%s",
    "%(value)s", "{value}", "{{value}}", "{{ 1 + 1 }}", "${value}", "#{value}", "<<", "rows <<", "--limit 1",
    "--traceback",
)  # fmt: skip
_WORDS: Final = (
    "NULL", "null", "TRUE", "DEFAULT", "CURRENT_USER", "now()", "1", "0", "-1", "1e308", "0x41", "NaN", "Infinity",
    "1.0", "007", "1; 2", "2026-11-25", "2026-11-25T12:00:00Z", "{}", "[]", '{"a": "b\'c"}', '["x", null]',
    "<script>alert(1)</script>", "&amp;", "%41", "\\x41", "\\u0041", "E'\\n'", "X'41'", "N'a'", "b'a'", "U&'\\0041'",
    "array[1]", "(SELECT 1)", "a.b", "information_schema.tables", "../../etc/passwd", "file:///etc/passwd",
)  # fmt: skip
_BLANKS: Final = (
    "", " ", "  ", "\t", "\n", "\r\n", "\r", "\v", "\f", "\u00a0", "\u2028", "\u2029", "\u200b", "\ufeff", "\u3000",
    " leading", "trailing ", "line\nbreak", "cr\rlf\r\n", "\x00", "a\x00b", "\x01\x02\x1b[31m", "\x7f", "\x85",
)  # fmt: skip
_SCRIPTS: Final = (
    "Ünïcödé", "U\u0308", "\u00dc", "日本語", "한국어", "हिन्दी", "العربية", "עברית", "\u202eabc\u202c", "\u2066x\u2069",
    "😀", "👩‍👩‍👧‍👦", "🏳️‍🌈", "\U0010ffff", "\ufffd", "\ud7ff", "\ue000", "ß", "ẞ", "ı", "İ", "ﬁ", "Å", "Å", "Ω",
    "a\u0301\u0301\u0301",
)  # fmt: skip
_PATTERNS: Final = (
    "%",
    "_",
    "%%",
    "a%",
    "%a",
    "a_b",
    "\\%",
    "\\_",
    "\\",
    "\\\\",
    "\\\\'",
    "a\\",
    "[a-z]",
    "^a$",
    ".*",
    "a|b",
)
_LONG: Final = ("x" * 70_000, "'" * 10_000, "é" * 40_000, "; DROP TABLE texts; --" * 5_000, "(" * 5_000, "\\" * 9_999)


def _injections() -> list[str]:
    return [f"a{quote}{clause}{end}" for quote, clause, end in itertools.product(_QUOTES[:6], _CLAUSES, _ENDS[:5])]


TEXTS: Final = tuple(
    dict.fromkeys(
        (
            *_QUOTES,
            *(f"O{quote}Brien" for quote in _QUOTES),
            *(f"a{quote}{end}" for quote, end in itertools.product(_QUOTES[:5], _ENDS)),
            *_injections(),
            *_PLACEHOLDERS,
            *_WORDS,
            *_BLANKS,
            *_SCRIPTS,
            *_PATTERNS,
            *_LONG,
        )
    )
)
"""Several hundred texts, each once."""

BYTES: Final = (
    b"", b"\x00", b"\xff\xfe", b"'; DROP TABLE texts; --", b"\\x41", bytes(range(256)), b"\x80abc", b"%_",
    b"\xed\xa0\x80",
    *(text.encode() for text in TEXTS[:60]),
)  # fmt: skip
