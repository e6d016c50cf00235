"""The files under deploy/: they agree with each other, are locked, and hold no secret.

That the programs take the flags they pass: test_deploy_flags.py.
"""

import asyncio
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy import prepare
from tests.support import parts
from tests.support.broker import free_port, running_broker
from tests.support.deployment import (
    BRIDGE,
    COMPOSE,
    DEPLOY,
    ETCD_SETTINGS,
    KUBERNETES,
    SERVER,
    SYSTEMD,
    argument,
    compose,
    env_file,
    files,
    manifest,
    manifests,
    pod,
    services,
    unit,
)

UNITS = sorted(SYSTEMD.glob("*.service"))
ID = "ab" * 32
EXPOSURE_MAX = 1.9
"""Of systemd-analyze: 10 is a unit that may do anything, below 2 counts as well locked."""


# -- they agree


def test_all_nodes_differ_in_their_name_only() -> None:
    nodes = [service["command"] for service in services(SERVER).values()]
    assert len(nodes) == 3
    assert len({argument(flags, "node") for flags in nodes}) == 3
    assert len({tuple(flag for flag in flags if "--node" not in flag) for flags in nodes}) == 1


def test_probes_and_ports_meet_the_server() -> None:
    container = pod("Deployment", "colonist")["containers"][0]
    [port] = container["ports"]
    assert str(port["containerPort"]) == argument(container["args"], "port")
    probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness")}
    assert {probe["path"] for probe in probes.values()} == {"/livez"}
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    service = manifest("Service", "colonist")["spec"]
    assert [each["targetPort"] for each in service["ports"]] == [port["name"]]
    policy = manifest("NetworkPolicy", "colonist")["spec"]["ingress"]
    assert policy == [{"ports": [{"port": port["containerPort"]}]}]
    for name, each in services(SERVER).items():
        inside = argument(each["command"], "port")
        assert [published.split(":")[-1] for published in each["ports"]] == [inside], name
        assert f"127.0.0.1:{inside}/readyz" in each["healthcheck"]["test"][-1]
    bridge = services(BRIDGE)["bridge"]["environment"]["COLONIST_BRIDGE_SERVER_URL"]
    aliases = {
        alias
        for each in services(SERVER).values()
        for alias in each["networks"]["inside"]["aliases"]
    }
    assert bridge == f"http://{aliases.pop()}:50080"
    assert not aliases


def test_selectors_find_what_they_are_for() -> None:
    for kind, name in (("Deployment", "colonist"), ("StatefulSet", "etcd")):
        labels = manifest(kind, name)["spec"]["template"]["metadata"]["labels"]
        assert manifest(kind, name)["spec"]["selector"]["matchLabels"] == labels
        assert manifest("Service", name)["spec"]["selector"] == labels
        for other in ("PodDisruptionBudget", "NetworkPolicy"):
            spec = manifest(other, name)["spec"]
            assert spec.get("selector", spec.get("podSelector"))["matchLabels"] == labels
        assert manifest(kind, name)["spec"]["replicas"] == 3


def test_etcd_is_told_the_same_everywhere() -> None:
    container = pod("StatefulSet", "etcd")["containers"][0]
    drop_in = dict(
        each.split("=", 1)
        for each in unit(SYSTEMD / "etcd.service.d" / "colonist.conf")["Environment"]
    )
    etcds = [each for name, each in compose()["services"].items() if name.startswith("etcd-")]
    assert len(etcds) == 3
    for name, value in ETCD_SETTINGS.items():
        variable = "ETCD_" + name.upper().replace("-", "_")
        assert argument(container["args"], name) == value
        assert drop_in[variable] == value
        assert {each["environment"][variable] for each in etcds} == {value}


def test_etcd_knows_all_that_it_is_told() -> None:
    done = subprocess.run(
        [parts.need("etcd"), "--help"], capture_output=True, text=True, check=False, timeout=30
    )
    known = set(re.findall(r"^  --([a-z0-9-]+)", done.stdout + done.stderr, re.MULTILINE))
    told = {flag[2:].split("=")[0] for flag in pod("StatefulSet", "etcd")["containers"][0]["args"]}
    variables = set(compose()["services"]["etcd-1"]["environment"])
    variables |= env_file(SYSTEMD / "etcd.env").keys()
    told |= {name.removeprefix("ETCD_").lower().replace("_", "-") for name in variables}
    assert told - known == set()


# -- they are locked, pinned and free of secrets


def test_images_are_pinned() -> None:
    tags = [
        line.split()[1]
        for path in (DEPLOY / "Dockerfile", DEPLOY / "etcd.Dockerfile")
        for line in path.read_text().splitlines()
        if line.startswith("FROM")
    ]
    tags += [each["image"] for each in compose()["services"].values()]
    kustomization = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
    named = {each["name"]: str(each["newTag"]) for each in kustomization["images"]}
    used = {
        container["image"]
        for kind, name in (("Deployment", "colonist"), ("StatefulSet", "etcd"))
        for container in (
            *pod(kind, name)["containers"],
            *pod(kind, name).get("initContainers", ()),
        )
    }
    assert used == named.keys()
    for tag in (*tags, *(f"{name}:{tag}" for name, tag in named.items())):
        assert re.fullmatch(r"[a-z0-9-]+:[0-9][\w.-]*", tag), tag


def test_nothing_in_compose_may_more_than_it_needs() -> None:
    for name, each in compose()["services"].items():
        assert each["read_only"] is True, name
        assert each["cap_drop"] == ["ALL"], name
        assert each["security_opt"] == ["no-new-privileges:true"], name
        assert each["user"].startswith("${COLONIST_UID:?"), name
        assert "healthcheck" in each, name
        assert all(port.startswith("127.0.0.1:") for port in each.get("ports", ())), name
    published = {name for name, each in compose()["services"].items() if "ports" in each}
    assert published == {*services(SERVER), "mosquitto"}
    networks = compose()["networks"]
    assert {name for name, each in networks.items() if not each.get("internal")} == {"outside"}
    for name, each in compose()["services"].items():
        if name.startswith(("etcd-", "postgres")):
            assert each["networks"] == ["store"]


def test_no_pod_may_more_than_it_needs() -> None:
    for kind, name in (("Deployment", "colonist"), ("StatefulSet", "etcd")):
        spec = pod(kind, name)
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        for container in (*spec["containers"], *spec.get("initContainers", ())):
            may = container["securityContext"]
            assert may["readOnlyRootFilesystem"] is True
            assert may["allowPrivilegeEscalation"] is False
            assert may["capabilities"] == {"drop": ["ALL"]}
            assert {"requests", "limits"} <= container["resources"].keys()


def test_no_secret_is_written_down() -> None:
    assert [each for each in manifests() if each["kind"] == "Secret"] == []
    endings = (".yaml", ".env", ".toml", ".conf", ".service", ".Dockerfile", "")
    for path in files(*endings):
        for line in path.read_text().splitlines():
            assert secret_in(line) == "", path


def secret_in(line: str) -> str:
    """What looks like a secret in a line of a file: a password, a key, a URL with a password."""
    if line.lstrip().startswith("#"):
        line = line.lstrip().lstrip("#")
    patterns = (
        r"(?i)\b\w*(?:password|passwd|secret)\"?\s*[=:]\s*\"?(?!/|\$|secrets/)[^\s\"{,\[]+",
        r"\b[0-9a-f]{64}\b",
        r"//[^/\s@]+:[^/\s@]+@",
        r"-----BEGIN",
    )
    found = (re.search(pattern, line) for pattern in patterns)
    return next((match[0] for match in found if match), "")


@pytest.mark.parametrize(
    "line",
    [
        "POSTGRES_PASSWORD: colonist",
        "#password = hunter2",
        "COLONIST_BRIDGE_PASSWORD=x",
        f"key: {ID}",
        "--archive=postgresql://colonist:pw@postgres/colonist",
    ],
)
def test_a_secret_would_be_seen(line: str) -> None:
    assert secret_in(line)


# -- what the tools of each say


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_takes_the_units_and_finds_them_locked(path: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze: the units are not verified")
    for each in (path, *SYSTEMD.glob(f"{path.name}.d/*.conf")):
        copy = tmp_path / each.relative_to(SYSTEMD)
        copy.parent.mkdir(exist_ok=True)
        copy.write_text(each.read_text().replace("/opt/colonist/bin/python", sys.executable))
    unit_file = str(tmp_path / path.name)
    done = analyze("verify", unit_file)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    locked = analyze("security", "--offline=true", unit_file).stdout
    exposure = re.search(r"Overall exposure level.*: ([0-9.]+)", locked)
    assert exposure, locked
    assert float(exposure[1]) <= EXPOSURE_MAX


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", "--man=no", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_waits_before_it_starts_again(path: Path) -> None:
    settings = unit(path)
    assert settings["Restart"] == ["on-failure"]
    assert int(settings["RestartSec"][0].removesuffix("s")) >= 5
    assert settings["RestartPreventExitStatus"] == ["2"]


def test_docker_takes_the_compose_file(tmp_path: Path) -> None:
    asked = ["docker", "compose", "version"]
    has_docker = shutil.which("docker") is not None
    if not has_docker or subprocess.run(asked, capture_output=True, check=False).returncode:
        pytest.skip("no docker compose: the file's structure is checked, docker's own word is not")
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    prepare.prepare("compose", tmp_path / "deploy" / "compose")
    command = ["docker", "compose", "--file", str(tmp_path / "deploy/compose/compose.yaml")]
    done = subprocess.run([*command, "config", "--quiet"], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_compose_names_nothing_that_is_not_there(tmp_path: Path) -> None:
    prepare.prepare("compose", tmp_path)
    whole = compose()
    for name, each in whole["services"].items():
        assert set(each.get("secrets", ())) <= whole["secrets"].keys(), name
        assert set(each["networks"]) <= whole["networks"].keys(), name
        assert set(each.get("depends_on", ())) <= whole["services"].keys(), name
        for volume in each.get("volumes", ()):
            source = volume.split(":")[0]
            assert (tmp_path / source).exists() or (COMPOSE.parent / source).is_file(), volume
        for file in each.get("env_file", ()):
            assert (tmp_path / file).is_file()
        build = each.get("build")
        if build:
            context = COMPOSE.parent / build["context"]
            assert (context / build["dockerfile"]).resolve().is_file()
    for secret in whole["secrets"].values():
        assert (tmp_path / secret["file"]).stat().st_mode & 0o777 == 0o600


def test_kubectl_puts_the_manifests_together(tmp_path: Path) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl: the manifests' structure is checked, kustomize's own word is not")
    folder = tmp_path / "kubernetes"
    shutil.copytree(KUBERNETES, folder, ignore=shutil.ignore_patterns("secrets"))
    prepare.prepare("kubernetes", folder)
    done = subprocess.run(
        ["kubectl", "kustomize", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    made = {
        (each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(done.stdout)
    }
    secret = next(each for (kind, _), each in made.items() if kind == "Secret")
    settings = next(each for (kind, _), each in made.items() if kind == "ConfigMap")
    assert {"COLONIST_STORE", "COLONIST_ARCHIVE", "COLONIES_SERVER_ID"} == settings["data"].keys()
    server = made["Deployment", "colonist"]["spec"]["template"]["spec"]
    assert server["volumes"][0]["secret"]["secretName"] == secret["metadata"]["name"]
    copied = server["initContainers"][0]["command"]
    assert {f"/given/{name}" for name in secret["data"]} <= set(copied)
    for each in made.values():
        assert each["metadata"].get("namespace", "colonist") == "colonist"


# -- what prepare.py makes


def test_preparing_again_changes_nothing(tmp_path: Path) -> None:
    prepare.prepare("compose", tmp_path)
    first = contents(tmp_path)
    prepare.prepare("compose", tmp_path)
    assert contents(tmp_path) == first
    assert {path.stat().st_mode & 0o077 for path in tmp_path.rglob("*")} == {0}


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def test_the_broker_of_compose_lets_the_bridge_in(tmp_path: Path) -> None:
    program = parts.program("mosquitto", "mosquitto_pub")
    prepare.prepare("compose", tmp_path)
    made, port = tmp_path / "secrets", free_port()
    text = (DEPLOY / "compose" / "mosquitto.conf").read_text()
    # The test's broker has a place of its own for what it keeps, and for its log.
    own = ("persistence", "autosave", "log_dest")
    config = "\n".join(line for line in text.splitlines() if not line.startswith(own)) + "\n"
    config = (
        config.replace("/run/secrets/broker_crt", f"{made}/broker.crt")
        .replace("/run/secrets/broker_key", f"{made}/broker.key")
        .replace("/run/secrets/mosquitto_passwords", f"{made}/mosquitto.passwords")
        .replace("/run/secrets/colonist_acl", f"{made}/colonist.acl")
        .replace("listener 8883", f"listener {port} 127.0.0.1")
    )
    async with running_broker(config):
        for password, code in (((made / "bridge.password").read_text(), 0), ("wrong", 5)):
            command: list[Any] = [program, "--cafile", made / "broker.crt", "-h", "127.0.0.1"]
            command += ["-p", str(port), "-u", "gw-hall-3", "-i", "gw-hall-3", "-P", password]
            command += ["-t", "colonist/v1/gw/hall-3/state", "-m", "up", "-q", "1"]
            done = await asyncio.create_subprocess_exec(*command)
            assert await done.wait() == code
