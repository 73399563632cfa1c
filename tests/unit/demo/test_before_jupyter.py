import subprocess
import sys

import pytest

from micromegas_jupyter.demo.before_jupyter import find_base_url

HUB = {"JUPYTERHUB_SERVICE_PREFIX": "/user/alice/"}


@pytest.mark.parametrize(
    ("command", "environ", "expected"),
    [
        (["jupyter", "lab"], {}, "/"),
        (["jupyter", "lab"], HUB, "/user/alice/"),
        (["jupyter", "lab", "--ServerApp.base_url=/x/"], {}, "/x/"),
        (["jupyter", "lab", "--ServerApp.base_url=/x/"], HUB, "/x/"),
        (["jupyter", "notebook", "--NotebookApp.base_url=x/y"], {}, "/x/y/"),
        (["jupyter", "lab", "--ServerApp.base_url", "/x"], {}, "/x/"),
        (["jupyter", "lab", "--ServerApp.base_url=/x/", "--ServerApp.base_url=/y/"], {}, "/y/"),
        (["jupyter", "lab", "--ServerApp.base_url=/"], HUB, "/"),
        (["jupyter", "lab", "--ServerApp.base_url"], {}, "/"),
        (["jupyter", "lab", "--ServerApp.base_url=/x/; Path=/"], {}, "/"),
        (
            ["jupyterhub-singleuser"],
            {"JUPYTERHUB_SERVICE_PREFIX": "/user/a%40b.example/named/"},
            "/user/a%40b.example/named/",
        ),
    ],
)
def test_the_base_url_is_what_jupyter_takes(command: list[str], environ: dict[str, str], expected: str) -> None:
    assert find_base_url(command, environ) == expected


def test_without_a_command_nothing_starts() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "micromegas_jupyter.demo.before_jupyter"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip

    assert result.returncode == 1
    assert result.stderr.startswith("usage: ")
    assert result.stdout == ""
