"""What docs/deploy brings fits the programs: options, settings, probes, ports, and numbers that depend on others."""

import configparser
import http.client
import json
import os
import re
import shlex
import shutil
import subprocess
from http import HTTPStatus

import pytest
import yaml
from hatchling.builders.wheel import WheelBuilder

from micromegas_jupyter.cli.main import build_parser
from micromegas_jupyter.cli.serve_command import load_settings
from micromegas_jupyter.config.access import parse_access_settings
from micromegas_jupyter.config.server import parse_server_settings
from micromegas_jupyter.server.http.endpoint import HttpEndpoint
from tests.architecture.guide_text import DOCS, ROOT, read_page
from tests.fakes.certificates import Authority
from tests.fakes.validator import FakeValidator

DEPLOY = DOCS / "deploy"
MANIFESTS = [
    document
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    if path.name != "jupyterhub.yaml"  # values of a chart, which the tests of the Hub read
    for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))
]
MIB = {"Mi": 1, "Gi": 1024}
#: What executors that are kept idle hold, front and zygote, in MiB.
IDLE_MIB, OTHERS_MIB = 16 * 64, 512
LAST_RECORDS_SECONDS = 10
SPECIFIERS = {"%S": "/var/lib", "%C": "/var/cache", "%L": "/var/log", "%d": "/run/credentials/micromegas.service"}


def manifests(kind):
    return {document["metadata"]["name"]: document for document in MANIFESTS if document["kind"] == kind}


def pods():
    return {name: found["spec"]["template"]["spec"] for name, found in manifests("Deployment").items()}


def server_container():
    return pods()["micromegas"]["containers"][0]


def configuration():
    return manifests("ConfigMap")["micromegas"]["data"]


def mebibytes(text):
    return int(text[:-2]) * MIB[text[-2:]]


def instructions():
    """Yield each instruction of the Dockerfile with its arguments."""
    text = re.sub(r"\\\n\s*", " ", (DEPLOY / "Dockerfile").read_text(encoding="utf-8"))
    for line in text.split("\n"):
        if line and not line.startswith("#"):
            yield tuple(line.split(" ", 1))


@pytest.fixture
def service():
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # names of settings keep their case
    text = (DEPLOY / "micromegas.service").read_text(encoding="utf-8")
    unit.read_string(text.replace("\\\n", " "))
    return unit["Service"]


def served(arguments):
    return load_settings(build_parser().parse_args(arguments))


def test_the_unit_starts_what_is_understood_with_memory_and_time_that_fit(service):
    command = service["ExecStart"]
    for specifier, path in SPECIFIERS.items():
        command = command.replace(specifier, path)
    program, *arguments = shlex.split(command)
    settings = served(arguments)

    assert program.endswith("/micromegas")
    assert int(service["TimeoutStopSec"]) >= settings.drain_timeout_seconds + LAST_RECORDS_SECONDS
    assert mebibytes(f"{service['MemoryMax']}i") >= settings.memory_mib + IDLE_MIB + OTHERS_MIB
    text = (DEPLOY / "micromegas.service").read_text(encoding="utf-8")
    allowed = re.findall(r"^SocketBindAllow=tcp:(\d+)$", text, re.MULTILINE)
    assert allowed == [str(settings.port), str(settings.http_port)]
    given = re.findall(r"^LoadCredential=([\w.]+):/", text, re.MULTILINE)
    assert [path.name for path in (settings.tls_certificate, settings.tls_key)] == given


def test_the_image_starts_what_is_understood_and_holds_neither_root_nor_secrets():
    found = dict(instructions())
    program, *arguments = [*json.loads(found["ENTRYPOINT"]), *json.loads(found["CMD"])]
    settings = served(arguments)

    assert program == "micromegas"
    assert found["USER"] == "10001:10001"
    assert found["EXPOSE"].split() == [str(settings.port), str(settings.http_port)]
    volumes = json.loads(found["VOLUME"])
    assert all(
        any(str(path).startswith(volume) for volume in volumes) for path in (settings.lake, settings.spill_directory)
    )
    assert re.fullmatch(r"PYTHON_IMAGE=python:3\.\d+\.\d+-slim-\w+", found["ARG"])


@pytest.mark.slow
def test_what_the_image_copies_is_enough_for_a_wheel(tmp_path):
    for name, arguments in instructions():
        if name == "COPY" and not arguments.startswith("--from"):
            *sources, target = arguments.split()
            for source in sources:
                if (ROOT / source).is_dir():
                    skipped = shutil.ignore_patterns("node_modules", "__pycache__")
                    shutil.copytree(ROOT / source, tmp_path / target, ignore=skipped)
                else:
                    (tmp_path / target).mkdir(exist_ok=True)
                    shutil.copy(ROOT / source, tmp_path / target)

    assert next(WheelBuilder(str(tmp_path)).build(directory=str(tmp_path / "dist"), versions=["standard"]))


def test_the_settings_of_the_cluster_are_understood_and_fit_its_volumes_memory_and_time():
    container, pod, settings = server_container(), pods()["micromegas"], cluster_settings()
    variables = {entry["name"] for entry in container["env"]}
    places = [mount["mountPath"] for mount in container["volumeMounts"]]
    sizes = {volume["name"]: volume.get("emptyDir", {}).get("sizeLimit") for volume in pod["volumes"]}
    limits, requests = (container["resources"][name] for name in ("limits", "requests"))
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])

    assert build_parser().parse_args(["serve", *container["args"]]).config == "/etc/micromegas/server.toml"
    assert all(
        re.search(rf"`{name}`", read_page("server-settings.md") + read_page("limits.md") + read_page("lake.md"))
        for name in variables
    )
    needed = (settings.tls_certificate, settings.tls_key, settings.ticket_key_file, settings.access_config)
    for path in (*needed, settings.spill_directory):
        assert any(str(path).startswith(place) for place in places), path
    assert mebibytes(limits["memory"]) >= settings.memory_mib + IDLE_MIB + OTHERS_MIB
    assert requests["memory"] == limits["memory"]
    spilled = settings.max_queries * settings.spill_mib
    assert spilled <= mebibytes(sizes["spill"]) <= mebibytes(requests["ephemeral-storage"])
    assert pod["terminationGracePeriodSeconds"] >= pause + settings.drain_timeout_seconds + LAST_RECORDS_SECONDS


def cluster_settings():
    return parse_server_settings({}, config_text=configuration()["server.toml"])


def test_the_access_configuration_of_the_cluster_is_understood():
    keys = json.dumps([{"name": "prometheus", "sha256": "0" * 64}])
    settings = parse_access_settings(
        {"MICROMEGAS_ACCESS_CONFIG": "access.json"}, config_text=configuration()["access.json"], key_file_text=keys
    )

    assert settings.oidc is not None
    assert settings.roles


def test_every_port_service_and_policy_names_what_is_there():
    settings = cluster_settings()
    containers = {name: pod["containers"][0] for name, pod in pods().items()}
    ports = {
        name: {port["name"]: port["containerPort"] for port in found["ports"]} for name, found in containers.items()
    }
    labels = {name: found["spec"]["template"]["metadata"]["labels"] for name, found in manifests("Deployment").items()}
    selectors = {name: found["spec"]["selector"] for name, found in manifests("Service").items()}
    policies = {
        str(found["spec"]["podSelector"].get("matchLabels")): found["spec"]
        for found in manifests("NetworkPolicy").values()
    }

    assert ports["micromegas"] == {"flight": settings.port, "http": settings.http_port}
    assert containers["sail"]["args"][-1] == str(ports["sail"]["flight"])
    assert selectors == labels
    for name, found in manifests("Deployment").items():
        assert found["spec"]["selector"]["matchLabels"] == labels[name]
        ingress = policies[str(labels[name])]["ingress"]
        assert {port["port"] for rule in ingress for port in rule["ports"]} == set(ports[name].values())
        assert found["spec"]["template"]["spec"]["serviceAccountName"] in manifests("ServiceAccount")
    (to_engine,) = policies[str(labels["sail"])]["ingress"]
    assert to_engine["from"] == [{"podSelector": {"matchLabels": labels["micromegas"]}}]
    assert policies["None"]["policyTypes"] == ["Ingress", "Egress"]
    assert not manifests("Secret")


@pytest.mark.parametrize("name", ["micromegas", "sail"])
def test_every_pod_keeps_to_the_restricted_profile_of_its_namespace(name):
    pod = pods()[name]
    (container,) = pod["containers"]

    assert (
        manifests("Namespace")["micromegas"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    )
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_every_probe_asks_for_what_the_server_answers_without_a_token():
    probes = {name: probe["httpGet"] for name, probe in server_container().items() if name.endswith("Probe")}
    endpoint = HttpEndpoint("127.0.0.1", 0, validator=FakeValidator(), registries=(), readiness=lambda: None)
    connection = http.client.HTTPConnection("127.0.0.1", endpoint.start())
    try:
        for probe in probes.values():
            connection.request("GET", probe["path"])
            answer = connection.getresponse()
            assert (answer.status, bool(answer.read())) == (HTTPStatus.OK, True), probe
            connection.close()
    finally:
        connection.close()
        endpoint.stop()

    assert {name: probe["path"] for name, probe in probes.items()} == {
        "startupProbe": "/ready", "readinessProbe": "/ready", "livenessProbe": "/health"
    }  # fmt: skip
    assert {(probe["port"], probe["scheme"]) for probe in probes.values()} == {("http", "HTTPS")}


def test_every_file_for_deployment_is_on_its_page():
    files = {str(path.relative_to(DEPLOY)) for path in DEPLOY.rglob("*") if path.is_file()} - {"README.md"}

    assert set(re.findall(r"\]\(([\w/.-]+)\)", read_page("deploy/README.md"))) >= files


VALIDATORS = {
    "haproxy.cfg": ["haproxy", "-c", "-f", "haproxy.cfg"],
    "nginx.conf": ["nginx", "-t", "-q", "-c", "nginx.conf", "-g", "pid nginx.pid; error_log stderr;"],
    "prometheus.yml": ["promtool", "check", "config", "--syntax-only", "prometheus.yml"],
    "alerts.yml": ["promtool", "check", "rules", "alerts.yml"],
    "compose.yaml": ["docker-compose", "--file", "compose.yaml", "config", "--quiet"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", VALIDATORS)
def test_the_file_is_valid_for_the_program_that_reads_it(name, tmp_path):
    program, *arguments = VALIDATORS[name]
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin"])
    if (found := shutil.which(program, path=path)) is None:
        pytest.skip(f"{program} is missing: .ci/run installs it")
    pair = Authority(tmp_path).issue("tls")
    text = (DEPLOY / name).read_text(encoding="utf-8")
    text = re.sub(r"/etc/(?:haproxy|nginx)/tls(?=/)", str(pair.certificate_file.parent), text)
    (tmp_path / name).write_text(text, encoding="utf-8")
    place = [str(tmp_path / name) if argument == name else argument for argument in arguments]
    place = [argument.replace("nginx.pid", str(tmp_path / "nginx.pid")) for argument in place]

    environ = {**os.environ, "KEYCLOAK_ADMIN_PASSWORD": "one", "LAKE_PASSWORD": "two"}
    pipes = {"capture_output": True, "text": True, "env": environ}
    done = subprocess.run([found, *place], cwd=tmp_path, timeout=60, check=False, **pipes)

    assert done.returncode == 0, done.stdout + done.stderr
