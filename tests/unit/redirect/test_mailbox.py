import pytest

from micromegas_jupyter.redirect.mailbox import is_mailbox_key, is_request_file, mailbox_key, reply_file, request_file

MESSAGE_ID = "0123456789abcdef0123456789abcdef"


def test_a_mailbox_is_told_from_a_kernel_by_its_name() -> None:
    assert is_mailbox_key(mailbox_key("wNuMG1XJNcsT3-Cf"))
    assert not is_mailbox_key("4f72b256-c23a-4a31-bdf9-f9fbbb6ed380")


@pytest.mark.parametrize("key", ["file-", "file-../x", "file-a/b", "file-a.b", "xfile-a", "file-" + "a" * 49])
def test_no_other_folder_is_a_mailbox(key: str) -> None:
    assert not is_mailbox_key(key)


def test_a_reply_lies_beside_its_request() -> None:
    assert (request_file(MESSAGE_ID), reply_file(MESSAGE_ID)) == (f"{MESSAGE_ID}.request", f"{MESSAGE_ID}.reply")
    assert is_request_file(request_file(MESSAGE_ID))


@pytest.mark.parametrize(
    "name", [f".{MESSAGE_ID}.request.tmp", f"{MESSAGE_ID}.reply", "x.request", f"{MESSAGE_ID}.request~"]
)
def test_other_files_are_no_requests(name: str) -> None:
    assert not is_request_file(name)
