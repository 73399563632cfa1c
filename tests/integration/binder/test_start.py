"""`binder/start` with another program in JupyterLab's place: what it gets, and when the demo ends."""

import json
import os
import subprocess

import psutil
import pytest

from tests.integration.binder.binders import environment

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

# Starts a child as Jupyter starts kernels, says what it was given, and waits until somebody ends it.
PROGRAM = """
import json, os, pathlib, signal, subprocess, sys
folder = pathlib.Path(os.environ["JUPYTER_CONFIG_PATH"].split(os.pathsep)[0])
child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], stdin=subprocess.DEVNULL)
said = {
    "pid": os.getpid(), "child": child.pid, "words": sys.argv[1:], "variables": dict(os.environ),
    "config": json.loads((folder / "jupyter_server_config.json").read_text()),
}
print(json.dumps(said), flush=True)
signal.pause()
"""
END_SECONDS = 60


def test_the_command_takes_its_place_and_the_demo_ends_with_it_even_when_it_is_killed(image, programs, tmp_path):
    inherited = {"MICROMEGAS_OIDC_CLIENT_SECRET": "of-somebody-else", "JUPYTER_CONFIG_PATH": str(tmp_path)}
    with psutil.Popen(
        [image / "binder" / "start", "python", "-c", PROGRAM, "a word", "--ServerApp.token="],
        cwd=image, env=environment(programs, tmp_path) | inherited,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            said = json.loads(process.stdout.readline())
            child = psutil.Process(said["child"])
            demo = [each for each in process.children(recursive=True) if each != child]
            of_the_demo = demo[0].environ()
        finally:
            process.kill()
    _gone, alive = psutil.wait_procs(demo, timeout=END_SECONDS)
    outlived = child.is_running()
    child.kill()

    assert said["pid"] == process.pid
    assert said["words"] == ["a word", "--ServerApp.token="]
    assert len(demo) >= 2
    assert alive == []
    assert outlived
    assert list((tmp_path / "tmp").iterdir()) == []
    variables, issuer = said["variables"], said["variables"]["MICROMEGAS_OIDC_ISSUER"]
    assert "MICROMEGAS_OIDC_CLIENT_SECRET" not in variables
    assert variables["JUPYTER_CONFIG_PATH"].split(os.pathsep)[1:] == [str(tmp_path)]
    assert variables["JUPYTERHUB_API_TOKEN"]
    assert not [name for name in of_the_demo if name.startswith("JUPYTERHUB_")]
    assert said["config"]["MicromegasRelay"] == {
        "per_user_redirect": True, "provider_paths": {issuer: "micromegas-demo"},
    }  # fmt: skip
    pages = said["config"]["ServerProxy"]["servers"]["micromegas-demo"]
    assert f"http://127.0.0.1:{pages['port']}" == issuer
    assert demo[0].pid != said["pid"]


def test_where_the_demo_cannot_start_jupyter_does(image, programs, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "flask.py").write_text("raise ImportError('not installed')")
    environ = environment(programs, tmp_path) | {"PYTHONPATH": str(broken)}

    result = subprocess.run(
        [image / "binder" / "start", "python", "-c", "print('Jupyter'); raise SystemExit(7)"],
        cwd=image, env=environ, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip

    assert result.returncode == 7
    assert result.stdout == "Jupyter\n"
    assert "✗ The demo did not start;" in result.stderr
