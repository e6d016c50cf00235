"""What the files under deploy/ say, to hold it against the programs and itself."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE = DEPLOY / "compose" / "compose.yaml"
SYSTEMD = DEPLOY / "systemd"
KUBERNETES = DEPLOY / "kubernetes"

SERVER = ["python", "-m", "colonist_server.main"]
BRIDGE = ["python", "-m", "colonist_bridge"]
ETCD_SETTINGS = {
    "quota-backend-bytes": "8589934592",
    "auto-compaction-retention": "0",
    "snapshot-count": "10000",
    "max-txn-ops": "128",
    "max-request-bytes": "1572864",
}
"""What etcd is told, by flags or variables."""


def files(*endings: str) -> list[Path]:
    """The files of the deployment, without what prepare.py makes."""
    return [
        path
        for path in sorted(DEPLOY.rglob("*"))
        if path.is_file() and path.suffix in endings and "secrets" not in path.parts
    ]


def compose() -> dict[str, Any]:
    """compose.yaml, with its anchors resolved."""
    return yaml.safe_load(COMPOSE.read_text())


def services(program: list[str]) -> dict[str, dict[str, Any]]:
    """The services of compose that run a program of ours."""
    every: dict[str, dict[str, Any]] = compose()["services"]
    return {name: each for name, each in every.items() if each.get("entrypoint") == program}


def manifests() -> list[dict[str, Any]]:
    """Every object of the Kubernetes manifests."""
    names = [KUBERNETES / f"{name}.yaml" for name in ("namespace", "etcd", "server", "network")]
    return [each for path in names for each in yaml.safe_load_all(path.read_text())]


def manifest(kind: str, name: str) -> dict[str, Any]:
    """One object of the Kubernetes manifests."""
    return next(
        each for each in manifests() if each["kind"] == kind and each["metadata"]["name"] == name
    )


def pod(kind: str, name: str) -> dict[str, Any]:
    """The pod of a workload."""
    return manifest(kind, name)["spec"]["template"]["spec"]


def env_file(path: Path) -> dict[str, str]:
    """An environment file, as systemd reads one."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return {name: " ".join(shlex.split(value)) for name, _, value in map(_pair, lines)}


def unit(path: Path) -> dict[str, list[str]]:
    """The settings of a unit, each with its values in order."""
    found: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        if line and not line.startswith(("#", "[")):
            name, _, value = _pair(line)
            found.setdefault(name, []).append(value)
    return found


def started(path: Path, environment: dict[str, str]) -> list[str]:
    """The words that a unit starts its program with: `${X}` one word, `$X` any number."""
    words: list[str] = []
    for word in unit(path)["ExecStart"][-1].split():
        if word.startswith("$") and not word.startswith("${"):
            words += environment[word[1:]].split()
        else:
            words.append(re.sub(r"\$\{(\w+)\}", lambda found: environment[found[1]], word))
    return words


def argument(flags: list[str], name: str) -> str:
    """The value of `--name=value`."""
    return next(flag for flag in flags if flag.startswith(f"--{name}=")).partition("=")[2]


def _pair(line: str) -> tuple[str, str, str]:
    return line.partition("=")
