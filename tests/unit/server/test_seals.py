"""A mark fits one purpose, one caller, one content and one key."""

import hashlib
import hmac

import pytest

from micromegas_jupyter.server.tickets import Signer, join_parts

KEY = bytes(range(32))
ALICE = ("https://id.example", "alice")


def test_a_mark_is_an_hmac_over_all_parts() -> None:
    parts = (b"ticket", b"https://id.example", b"alice", b"data")
    whole = b"".join(len(part).to_bytes(8, "big") + part for part in parts)

    mark = Signer(KEY).sign(b"ticket", ALICE, b"data")

    assert mark == hmac.new(KEY, whole, hashlib.sha256).digest()


@pytest.mark.parametrize(
    ("purpose", "caller", "data"),
    [
        (b"prepared", ALICE, b"data"),
        (b"ticket", ("https://id.example", "bob"), b"data"),
        (b"ticket", ("https://other.example", "alice"), b"data"),
        (b"ticket", ALICE, b"date"),
    ],
)
def test_a_mark_fits_nothing_else(purpose: bytes, caller: tuple[str, str], data: bytes) -> None:
    signer = Signer(KEY)
    mark = signer.sign(b"ticket", ALICE, b"data")

    assert signer.is_valid(mark, b"ticket", ALICE, b"data")
    assert not signer.is_valid(mark, purpose, caller, data)
    assert not Signer(bytes(32)).is_valid(mark, b"ticket", ALICE, b"data")


@pytest.mark.parametrize("mark", [b"", b"short", bytes(32), bytes(33)])
def test_other_bytes_are_no_mark(mark: bytes) -> None:
    assert not Signer(KEY).is_valid(mark, b"ticket", ALICE, b"data")


def test_parts_are_not_run_together() -> None:
    assert join_parts(b"ab", b"c") != join_parts(b"a", b"bc")
