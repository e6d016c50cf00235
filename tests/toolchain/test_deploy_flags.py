"""The flags and settings under deploy/ are what the programs take."""

import re
from pathlib import Path

import pytest

from colonist_agent import config as agent_config
from colonist_bridge import config as bridge_config
from colonist_client import keyfile, secret_file
from colonist_client.custody import Custody
from colonist_protocol.errors import InvalidValueError
from colonist_protocol.identity import Identity
from colonist_server.main import configure
from colonist_server.store.etcd.address import parse
from deploy import prepare
from tests.support.deployment import (
    BRIDGE,
    ETCD_SETTINGS,
    KUBERNETES,
    SERVER,
    SYSTEMD,
    env_file,
    pod,
    services,
    started,
    unit,
)

ID = "ab" * 32
KEY = Identity.from_entropy(bytes(range(32)))
QUOTA_BYTES = int(ETCD_SETTINGS["quota-backend-bytes"])
"""What etcd is told in test_deploy.py; the server must be told the same."""


def quota(store: str) -> int:
    return parse(re.sub(r"&password-file=[^&]*", "", store), {}).quota_bytes


def test_systemd_starts_a_server_on_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = env_file(SYSTEMD / "server.env")
    _, *words = started(SYSTEMD / "colonist-server.service", environment)
    assert words[:2] == SERVER[1:]
    monkeypatch.setenv("COLONIES_SERVER_ID", environment["COLONIES_SERVER_ID"])
    config = configure(words[2:])
    assert config.store == "sqlite:/var/lib/colonist/store.db"
    assert (config.host, config.port, config.node) == ("127.0.0.1", 50080, "node-1")


def test_systemd_starts_a_node_of_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (SYSTEMD / "server.env").read_text()
    wanted = re.search(r'^#COLONIST_FLAGS="(.*)"$', text, re.MULTILINE)
    assert wanted
    environment = env_file(SYSTEMD / "server.env") | {"COLONIST_FLAGS": wanted[1]}
    _, *words = started(SYSTEMD / "colonist-server.service.d" / "cluster.conf", environment)
    monkeypatch.setenv("COLONIES_SERVER_ID", ID)
    config = configure([word.replace("%d", "/run/credentials") for word in words[2:]])
    assert config.store.startswith(f"etcd://{environment['COLONIST_ETCD']}/colonist?ca=")
    assert quota(config.store) == QUOTA_BYTES
    assert config.archive.startswith("postgresql://")


@pytest.mark.parametrize("name", ["server-1", "server-2", "server-3"])
def test_compose_starts_a_server(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    service = services(SERVER)[name]
    monkeypatch.setenv("COLONIES_SERVER_ID", ID)
    config = configure(service["command"])
    assert config.node == name
    endpoints = {f"etcd-{number}:2379" for number in (1, 2, 3)}
    assert set(config.store.removeprefix("etcd://").partition("/")[0].split(",")) == endpoints
    assert quota(config.store) == QUOTA_BYTES
    assert config.archive.startswith("postgresql://colonist@postgres/")


def test_kubernetes_starts_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    container = pod("Deployment", "colonist")["containers"][0]
    assert container["command"] == SERVER
    values = env_file(KUBERNETES / "settings.env") | {"POD": "colonist-1"}
    flags = [
        re.sub(r"\$\((\w+)\)", lambda found: values[found[1]], flag) for flag in container["args"]
    ]
    monkeypatch.setenv("COLONIES_SERVER_ID", ID)
    config = configure(flags)
    assert config.store.startswith("etcd://etcd-0.etcd:2379,")
    assert quota(config.store) == QUOTA_BYTES
    assert config.archive == values["COLONIST_ARCHIVE"]


def test_bridges_take_their_settings(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret_file.write(secret, b"of the test\n")
    _, *words = started(SYSTEMD / "colonist-bridge.service", {})
    assert words[:3] == [*BRIDGE[1:], "--config"]
    unit_variables = dict(
        each.split("=", 1) for each in unit(SYSTEMD / "colonist-bridge.service")["Environment"]
    )
    for file, variables in (
        (SYSTEMD / "bridge.toml", unit_variables),
        (None, services(BRIDGE)["bridge"]["environment"]),
    ):
        given = variables | {"COLONIST_BRIDGE_PASSWORD_FILE": str(secret)}
        if file is not None:
            with pytest.raises(InvalidValueError, match="server_id"):
                bridge_config.load(file, given, {})
            given |= {"COLONIST_BRIDGE_SERVER_ID": ID}
        config = bridge_config.load(file, given, {})
        assert config.password == secret.read_text().strip()
        assert config.account == f"gw-{prepare.BRIDGE}"


def test_systemd_starts_an_agent_with_the_key_that_it_hands_over(tmp_path: Path) -> None:
    path = SYSTEMD / "colonist-agent.service"
    _, *words = started(path, {})
    assert words == ["-m", "colonist_agent", "--config", "/etc/colonist/agent.toml"]
    given = dict(each.split("=", 1) for each in unit(path)["Environment"])
    name = unit(path)["LoadCredential"][0].partition(":")[0]
    keyfile.write(tmp_path / name, KEY)
    (tmp_path / name).chmod(0o440)
    environment = given | {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    with pytest.raises(InvalidValueError, match="server_id"):
        agent_config.load(SYSTEMD / "agent.toml", environment, {})
    config = agent_config.load(SYSTEMD / "agent.toml", environment | {"COLONIST_SERVER_ID": ID}, {})
    assert (config.identity, config.server_id) == (KEY, ID)
    (state,) = unit(path)["StateDirectory"]
    assert Path(config.server_id_file).parent == Path("/var/lib") / state


def test_systemd_hands_over_the_passphrase_under_the_name_that_is_looked_for(
    tmp_path: Path,
) -> None:
    settings = unit(SYSTEMD / "colonist-server.service.d" / "passphrase.conf")
    name = settings["LoadCredentialEncrypted"][0].partition(":")[0]
    assert name in (SYSTEMD / "colonist-server.service.d" / "passphrase.conf").read_text()
    secret_file.write(tmp_path / name, b"hush-hush")
    assert Custody({"CREDENTIALS_DIRECTORY": str(tmp_path)}).configured() == b"hush-hush"


def test_no_program_leaves_its_memory_on_a_disk() -> None:
    for path in SYSTEMD.glob("*.service"):
        assert unit(path)["LimitCORE"] == ["0"], path


def test_a_flag_that_the_server_does_not_know_is_seen(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        configure(["--nod", "x", "--nonsense=1"])
    assert "nonsense" in capsys.readouterr().err
