"""Refuses statements that make one enormous value with a single call, such as `repeat('x', 1000000000)`.

Such a call takes its memory outside the engine's pool, in one step that nothing can stop, and often while the statement
is planned; where there is not enough, the process ends. Only sizes that stand in the text are seen; for the others
there is the operating system's limit around the process.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from micromegas_jupyter.engine.scanner import Kind, Scan, Token
from micromegas_jupyter.errors import StatementRefused

#: Characters of a text, or elements of a list.
_LARGEST: Final = 10_000_000
#: Functions whose second argument says how large their result is.
_MAKERS: Final = frozenset({"repeat", "lpad", "rpad", "array_repeat", "list_repeat", "array_resize", "list_resize"})
_SIZE_ARGUMENT: Final = 1
_MOST_DIGITS: Final = 18


@dataclass(slots=True)
class _Call:
    """What is between two brackets: a call of `maker`, or anything else."""

    maker: str | None = None
    argument: int = 0
    factor: int = 1
    inner: int = 1

    @property
    def size(self) -> int:
        return min(self.factor * self.inner, _LARGEST + 1)


def check_huge_values(scanned: Scan) -> None:
    """Check that no value that a statement asks for by number is enormous; calls in each other multiply.

    Raises:
        StatementRefused: One is.
    """
    calls = [_Call()]
    before: Token | None = None
    for token in scanned.tokens:
        here = calls[-1]
        match token.kind:
            case Kind.OPEN:
                calls.append(_Call(maker=_maker(before)))
            case Kind.CLOSE if len(calls) > 1:
                calls.pop()
                calls[-1].inner = max(calls[-1].inner, here.size)
                if here.maker is not None and here.size > _LARGEST:
                    raise StatementRefused(
                        f"The statement makes a text or list of more than {_LARGEST:,} characters or elements with "
                        f"{here.maker}."
                    )
            case Kind.COMMA:
                here.argument += 1
            case Kind.NUMBER if here.maker is not None and here.argument == _SIZE_ARGUMENT:
                here.factor *= _number(token.text)
        before = token


def _maker(before: Token | None) -> str | None:
    is_name = before is not None and before.kind in {Kind.WORD, Kind.QUOTED}
    return before.name if is_name and before is not None and before.name in _MAKERS else None


def _number(text: str) -> int:
    return max(1, int(text[:_MOST_DIGITS])) if text.isdecimal() else _LARGEST + 1
