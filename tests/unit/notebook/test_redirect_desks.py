from pathlib import Path
from types import SimpleNamespace

import pytest

from micromegas_jupyter.notebook.control_channel import ControlChannel
from micromegas_jupyter.notebook.file_mailbox import FileMailbox
from micromegas_jupyter.notebook.redirect_desks import RedirectDesks, base_address, kernel_id_of
from micromegas_jupyter.seams import SYSTEM_RANDOMNESS

KERNEL_ID = "4f72b256-c23a-4a31-bdf9-f9fbbb6ed380"
VARIABLE = "KERNEL_MICROMEGAS_REDIRECT"


def kernel_with(connection_file: str | None, **more: object) -> SimpleNamespace:
    return SimpleNamespace(parent=SimpleNamespace(connection_file=connection_file), **more)


@pytest.fixture(autouse=True)
def _own_runtime_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))


@pytest.mark.parametrize("value", ["/", "/x/", "/user/alice@example.com/", "https://lab.example.com/x/"])
def test_a_path_or_an_address_is_what_the_servers_pages_lie_below(value: str) -> None:
    assert base_address(value) == value


@pytest.mark.parametrize("value", ["", "x", "x/", "/x", "//evil.example/", "javascript:alert(1)/", "/a b/", "/x\n/"])
def test_anything_else_is_not(value: str) -> None:
    assert base_address(value) is None


def test_the_connection_files_name_says_the_kernels_id() -> None:
    assert kernel_id_of(kernel_with(f"/run/kernel-{KERNEL_ID}.json"), {}) == KERNEL_ID


def test_a_gateway_on_another_machine_says_it_by_a_variable() -> None:
    assert kernel_id_of(kernel_with("connection.json"), {"KERNEL_ID": KERNEL_ID}) == KERNEL_ID
    assert kernel_id_of(SimpleNamespace(), {"KERNEL_ID": KERNEL_ID}) == KERNEL_ID


@pytest.mark.parametrize("connection_file", [None, "connection.json", "kernel-a.b.json", "kernel-.json"])
def test_a_kernel_without_a_usable_id_has_none(connection_file: str | None) -> None:
    assert kernel_id_of(kernel_with(connection_file), {"KERNEL_ID": "a/b"}) is None


def test_a_kernel_with_handlers_is_reached_by_its_control_channel() -> None:
    handlers: dict[str, object] = {}
    kernel = kernel_with(f"kernel-{KERNEL_ID}.json", control_handlers=handlers)
    desks = RedirectDesks({VARIABLE: "/x/"}, randomness=SYSTEM_RANDOMNESS)

    desk = desks.open(kernel, VARIABLE, seconds=1)

    assert desk is not None
    assert desk.kernel_id == KERNEL_ID
    assert len(handlers) == 1
    assert desks.open(kernel, VARIABLE, seconds=1) is desk
    assert isinstance(desks._intake, ControlChannel)


@pytest.mark.parametrize("handlers", [{}, {"control_handlers": None}])
def test_another_kernel_is_reached_by_files(handlers: dict[str, object]) -> None:
    desks = RedirectDesks({VARIABLE: "/x/"}, randomness=SYSTEM_RANDOMNESS)

    desk = desks.open(kernel_with(f"kernel-{KERNEL_ID}.json", **handlers), VARIABLE, seconds=1)

    assert desk is not None
    assert desk.kernel_id.startswith("file-")
    assert isinstance(desks._intake, FileMailbox)
    desks._intake.close()


@pytest.mark.parametrize("environ", [{}, {VARIABLE: ""}, {VARIABLE: "//evil.example/"}])
def test_without_a_server_there_is_no_desk(environ: dict[str, str]) -> None:
    desks = RedirectDesks(environ, randomness=SYSTEM_RANDOMNESS)

    assert desks.open(kernel_with("kernel-1.json", control_handlers={}), VARIABLE, seconds=1) is None
    assert desks.open(None, VARIABLE, seconds=1) is None
