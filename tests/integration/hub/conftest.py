"""One Hub, one provider with short tokens and one Flight SQL server for all tests of this folder."""

import json
import os
import secrets
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest

from micromegas_jupyter.core.system import SYSTEM_CLOCK
from tests.integration.executors.server_process import ServerProcess
from tests.integration.hub.readable_python import make_readable_python
from tests.integration.hub.running import RunningHub
from tests.integration.hub.system_people import NEEDS_ROOT, SystemPeople
from tests.integration.other_provider.installing import install_once
from tests.integration.other_provider.running import OtherProvider

TOKEN_LIFETIME_SECONDS = 10
_PROXY = Path(__file__).with_name("proxy")


def pytest_ignore_collect(collection_path, config):
    """Leave what takes a second Hub to the long run."""
    has_own_hub = collection_path.name in {"test_bare_hub.py", "test_internal_tls.py"}
    return True if has_own_hub and not config.getoption("--long") else None


@pytest.fixture(scope="package")
def hub_provider(pytestconfig):
    """The certified provider with tokens that live for seconds."""
    folder = Path(pytestconfig.cache.mkdir("other_provider"))
    with OtherProvider(install_once(folder), token_lifetime_seconds=TOKEN_LIFETIME_SECONDS) as provider:
        yield provider


@pytest.fixture(scope="package")
def readable_folder(shared_temporary_folder):
    """A folder that every system user can enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="hub-", dir=shared_temporary_folder))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def running_server(folder, issuer, *, audience):
    """Run a Flight SQL server that accepts a provider's tokens for an audience."""
    config = {"issuers": [{"issuer": issuer, "audience": audience}]}
    return ServerProcess(
        folder, lake=folder / "lake", keys={}, variables={"MICROMEGAS_OIDC_CONFIG": json.dumps(config)}
    )


@pytest.fixture(scope="package")
def flight_uri(hub_provider, tmp_path_factory):
    """A Flight SQL server that accepts the tokens of the Hub's people."""
    audience = [hub_provider.hub_client_id, hub_provider.client_id]
    with running_server(tmp_path_factory.mktemp("flight"), hub_provider.issuer, audience=audience) as server:
        yield server.uri


@pytest.fixture(scope="package")
def hub(hub_provider, flight_uri, readable_folder, pytestconfig, tmp_path_factory):
    """A Hub with alice and bob, who have not signed in yet."""
    if os.geteuid() != 0:
        pytest.skip(NEEDS_ROOT)
    cache = Path(pytestconfig.cache.mkdir("hub_proxy"))
    folder = tmp_path_factory.mktemp("hub")
    homes = readable_folder / "home"
    homes.mkdir(mode=0o755)
    temporary = readable_folder / "tmp"
    temporary.mkdir()
    temporary.chmod(0o1777)
    run = secrets.token_hex(3)
    with ExitStack() as stack:
        system = SystemPeople(homes)
        stack.callback(system.remove)
        names = {login: f"mm-{login}-{run}" for login in ("alice", "bob")}
        hub = RunningHub(
            folder=folder,
            provider=hub_provider,
            python=make_readable_python(readable_folder / "python"),
            proxy_folder=install_once(cache, source=_PROXY, files=("package.json", "package-lock.json")),
            people={login: SimpleNamespace(name=name, home=system.add(name)) for login, name in names.items()},
            system=system,
            environment={"MICROMEGAS_ANALYTICS_URI": flight_uri, "TMPDIR": str(temporary)},
        )
        stack.callback(hub.end)
        hub.start()
        yield hub


@pytest.fixture(scope="package")
def signed_in(hub):
    """The Hub after both have signed in, with a server of each."""
    for login in hub.people:
        hub.browser().sign_in(login)
    with ThreadPoolExecutor() as pool:
        list(pool.map(hub.start_server, hub.people))
    return hub


@pytest.fixture(scope="package", autouse=True)
def old_kernel(signed_in):
    """A kernel of alice's that is started before all tests and lives through them."""
    with signed_in.kernel("alice") as kernel:
        signed_in.kernel_started_at = SYSTEM_CLOCK.monotonic()
        kernel.run("%load_ext micromegas_jupyter")
        yield kernel
