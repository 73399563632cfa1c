"""The official conformance runner: each scenario that a revision requires passes, or is listed here with its reason."""

import json
import re
import subprocess

import pytest

from micromegas_jupyter.config.server import ServerSettings
from micromegas_jupyter.wiring.server import ServerStack
from tests.integration.agents.npm_packages import CONFORMANCE, install
from tests.integration.other_provider.installing import find_node

pytestmark = [pytest.mark.integration, pytest.mark.slow]

TIMEOUT_SECONDS = 60
NOT_OFFERED = "the server does not announce this optional capability"
FIXTURE = "needs a tool or a resource that only the runner's example server has"
COMMON = {
    "completion-complete": NOT_OFFERED, "prompts-": NOT_OFFERED, "json-schema-2020-12": FIXTURE,
    "resources-read-": FIXTURE, "resources-templates-read": FIXTURE, "tools-call-": FIXTURE,
}  # fmt: skip
# By the beginning of a scenario's name, or of scenario/check.
EXCEPTIONS = {
    "2025-11-25": COMMON
    | {
        "logging-set-level": NOT_OFFERED,
        "resources-subscribe": NOT_OFFERED,
        "resources-unsubscribe": NOT_OFFERED,
        "elicitation-sep": FIXTURE,
    },
    "2026-07-28": COMMON
    | {
        "caching/sep-2549-prompts-list": NOT_OFFERED,
        "http-custom-header-server-validation": FIXTURE,  # tools whose arguments are headers, too
        "input-required-result-": FIXTURE,
        "server-stateless/sep-2575-server-rejects-undeclared-capability": FIXTURE,
        "server-stateless/sep-2575-missing-capability-http-400": FIXTURE,
        "server-stateless/sep-2575-http-server-no-independent-requests-on-stream": FIXTURE,
        "server-stateless/sep-2575-server-no-log-without-loglevel": FIXTURE,
        "tasks-": "an extension that the server does not announce",
    },
}
# Some that have to be among those that pass, whatever the runner lists.
PASSED = {
    "2025-11-25": {
        "server-initialize", "server-session-lifecycle", "ping", "tools-list", "dns-rebinding-protection",
        "resources-list", "server-sse-multiple-streams", "server-sse-polling",
    },
    "2026-07-28": {
        "tools-list", "dns-rebinding-protection", "resources-list", "server-sse-multiple-streams",
        "http-header-validation", "sep-2164-resource-not-found", "input-required-result-unsupported-methods",
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lake")
    settings = ServerSettings(lake=str(folder), port=0, http_port=0, disable_auth=True, no_telemetry=True)
    with ServerStack(settings, environ={}, program="a test", spare_executors=1) as stack:
        yield f"{stack.http_url}/mcp"


@pytest.mark.parametrize("revision", ["2025-11-25", "2026-07-28"])
def test_every_applicable_scenario_of_a_revision_passes(url, revision, pytestconfig, tmp_path):
    node, _ = find_node()
    command = [node, install(pytestconfig) / CONFORMANCE, "server", "--url", url, "--requirements", revision]
    subprocess.run([*command, "-o", tmp_path], capture_output=True, check=False, timeout=TIMEOUT_SECONDS)
    scenarios = {}
    for file in tmp_path.rglob("checks.json"):
        name = re.fullmatch(r"server-(.+)-\d{4}-\d\d-\d\dT.*", file.parent.name)[1]
        checks = json.loads(file.read_text())
        scenarios[name] = {check["id"] for check in checks if check["status"] in {"FAILURE", "WARNING"}}
    failed = {f"{name}/{check}" for name, checks in scenarios.items() for check in checks}
    exceptions = EXCEPTIONS[revision]

    assert [one for one in failed if not one.startswith(tuple(exceptions))] == []
    assert [one for one in exceptions if not any(name.startswith(one) for name in failed)] == []
    assert PASSED[revision] <= {name for name, checks in scenarios.items() if not checks}
