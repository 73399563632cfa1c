from __future__ import annotations

import asyncio
import stat
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.auth.redirect_desk import RedirectDesk
from micromegas_jupyter.notebook.file_mailbox import FileMailbox
from micromegas_jupyter.redirect.mailbox import FOLDER
from micromegas_jupyter.redirect.messages import EndingRequest, Unknown, parse_reply, request_content
from micromegas_jupyter.relay.file_call import ask_by_files
from micromegas_jupyter.relay.silence import Silence

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = "file-wNuMG1XJNcsT3-Cf"
DEADLINE_SECONDS = 60


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    return tmp_path / FOLDER / KEY


@pytest.fixture
def mailbox(folder: Path) -> Iterator[FileMailbox]:
    made = FileMailbox(RedirectDesk(kernel_id=KEY, base_address="/"))
    made.listen(DEADLINE_SECONDS)
    yield made
    made.close()


def ask(content: dict[str, object]) -> object:
    async def within_a_deadline() -> object:
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await ask_by_files(KEY, content)

    return asyncio.run(within_a_deadline())


def test_a_server_asks_and_is_answered_and_nothing_stays(mailbox: FileMailbox, folder: Path) -> None:
    reply = ask(request_content(EndingRequest(state_digest="a" * 64)))

    assert parse_reply(reply) == Unknown()
    assert list(folder.iterdir()) == []
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_what_is_no_request_is_answered_like_an_unknown_one(mailbox: FileMailbox) -> None:
    assert parse_reply(ask({"x": "y"})) == Unknown()


def test_files_that_are_no_requests_are_left_alone(mailbox: FileMailbox, folder: Path) -> None:
    (folder / "x.request").write_text("{}")
    (folder / f"{'0' * 32}.request").symlink_to("/etc/passwd")

    assert parse_reply(ask({})) == Unknown()
    assert (folder / "x.request").exists()


def test_a_mailbox_that_was_closed_is_a_kernel_that_has_gone(mailbox: FileMailbox, folder: Path) -> None:
    mailbox.close()
    mailbox.close()

    assert ask({}) is Silence.NO_KERNEL
    assert not folder.exists()


def test_a_folder_that_is_a_link_is_none(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    folder.parent.mkdir()
    folder.symlink_to(tmp_path / "elsewhere")

    assert ask({}) is Silence.NO_KERNEL


def test_a_request_that_nobody_answers_is_taken_away(folder: Path) -> None:
    folder.mkdir(parents=True)

    async def give_up() -> None:
        async with asyncio.timeout(0.2):
            await ask_by_files(KEY, {"query": "code=one-time"})

    with pytest.raises(TimeoutError):
        asyncio.run(give_up())
    assert list(folder.iterdir()) == []
