"""A kernel whose control channel takes no messages of extensions signs in by redirect through files."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.relay.servers import JupyterServer, ServerKernel
    from tests.integration.relay.signing_in import SignIn

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(scope="module")
def kernel(server: JupyterServer) -> Iterator[ServerKernel]:
    with server.kernel() as running:
        # What such a kernel looks like to the magics: there is one, and it takes no further handlers.
        running.run(
            "class Handlers:\n"
            "    def __init__(self, found): self.found = found\n"
            "    def get(self, *a): return self.found.get(*a)\n"
            "kernel = get_ipython().kernel\n"
            "kernel.control_handlers = Handlers(kernel.control_handlers)"
        )
        yield running


def test_it_signs_in_through_files_that_nobody_else_can_read_and_that_do_not_stay(
    kernel: ServerKernel, sign_in: SignIn, server: JupyterServer
) -> None:
    folders = list((server.folder / "runtime" / "micromegas").iterdir())
    modes = [stat.S_IMODE(folder.stat().st_mode) for folder in folders]

    page = sign_in.come_back(sign_in.answer())
    kernel.wait_until_saved("Signed in as Alice Martin")

    assert sign_in.start_url.rpartition("/")[2].startswith("file-")
    assert modes == [0o700]
    assert "Signed in as Alice Martin." in page
    assert "Signed in as Alice Martin" in kernel.saved()
    kernel.wait_until(lambda: list(folders[0].iterdir()) == [])


def test_a_kernel_that_has_gone_is_said_to_have(kernel: ServerKernel, sign_in: SignIn) -> None:
    kernel.run("get_ipython()._micromegas_extension.close()")
    name = sign_in.start_url.rpartition("/")[2]

    gone = sign_in.get(sign_in.start_url.replace(name[5:10], "AAAAA"))

    assert gone.status_code == 409
    assert "is not running any more" in gone.text
