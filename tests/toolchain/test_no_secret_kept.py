"""No default secret anywhere in the repository, and none in the repr of what holds one."""

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from colonist_agent.config import AgentConfig
from colonist_bridge.config import BridgeConfig
from colonist_cli.embedded_rules import Accounts
from colonist_cli.house import Plan
from colonist_cli.place import Place
from colonist_cli.rotation import Rotation
from colonist_cli.server import Options
from colonist_cli.settings import Flags, Settings, Signer
from colonist_cli.shell import Shell
from colonist_client.client import Client
from colonist_client.custody import Custody
from colonist_client.environment import from_environment
from colonist_client.http import HttpTransport
from colonist_client.keyfile import Opened
from colonist_client.locked_key import Cost, lock, parse
from colonist_client.mqtt_connection import BrokerAddress
from colonist_protocol.claims import Card
from colonist_protocol.identity import Identity
from colonist_protocol.tokens import ServerKey, ServerKeys
from colonist_server.archive import address as archive_address
from colonist_server.archive.sql import SqlArchive
from colonist_server.config import ServerConfig
from colonist_server.keyring import Keyring
from colonist_server.store.etcd import address as etcd_address
from tests.support import leaks

ROOT = Path(__file__).parents[2]
PACKAGES = ("protocol", "core", "client", "server", "agent", "bridge", "cli")
FOLDERS = ("protocol", "server", "edge_agent", "bridge", "cli", "deploy", "docs", "scripts")
FOLDERS += ("benchmarks", "firmware", "typings")
MADE_UP = (
    "protocol/vectors/",
    "scripts/vectors/",
    "deploy/compose/secrets/",
    "deploy/compose/data/",
    "deploy/kubernetes/secrets/",
)
"""Keys of examples, which programs are tested with; what prepare.py makes, which git ignores."""
NOT_TEXT = {".png", ".svg", ".gz", ".pyc", ".mpy", ".db", ".woff2", ".ico"}

KEY = Identity.from_entropy(b"of nobody".ljust(32))
WORD = "Zq7-hush-hush"
SECRETS = leaks.of_key(KEY) | {"word": WORD.encode()}


# -- nothing is in the repository


def files() -> Iterator[Path]:
    """What is in the repository, less tests and examples."""
    for folder in map(ROOT.joinpath, FOLDERS):
        yield from (path for path in folder.rglob("*") if is_text(path))
    yield from (path for path in ROOT.iterdir() if is_text(path))


def is_text(path: Path) -> bool:
    name = str(path.relative_to(ROOT))
    if "__pycache__" in name or "node_modules" in name or name.startswith(MADE_UP):
        return False
    return path.suffix not in NOT_TEXT and path.is_file() and not path.name.startswith(".cov")


_NAME = r"(?:password|passwd|passphrase|prvkey|secret)"
PATTERNS = {
    "a key": r"\b[0-9a-fA-F]{64}\b",
    "a key in PEM": r"-----BEGIN [A-Z ]*PRIVATE KEY",
    "a password in a URL": r"\b\w+://[^/\s@:\"'{$<]+:(?!\*)[^/\s@\"'{$<]+@",
    "a password": rf"(?i){_NAME}\w*[\"']?\s*[=:]\s*[\"'][^\"'{{}}$/\s]{{4,}}[\"']",
    "a variable": rf"(?m)^\s*(?:export )?\w*{_NAME.upper()}=(?!/|\$|\"\$|<|\.\.)\S+",
}
NO_SECRETS = {
    # What is no secret though it looks like one: an id, for example. With the reason.
    "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798": "the curve's generator",
}


def secret_in(text: str) -> str:
    """What looks like a secret in a text, or ""."""
    for what, pattern in PATTERNS.items():
        for found in re.finditer(pattern, text):
            if found[0] not in NO_SECRETS:
                return f"{what}: {found[0]}"
    return ""


def test_no_file_holds_a_secret() -> None:
    looked = 0
    for path in files():
        looked += 1
        assert secret_in(path.read_text(errors="replace")) == "", path
    assert looked > 300


@pytest.mark.parametrize(
    "text",
    [
        f"COLONIES_PRVKEY={KEY.reveal()}",
        f'key = "{KEY.reveal().upper()}"',
        "-----BEGIN EC PRIVATE KEY-----",
        "--archive=postgresql://colonist:sesame@db/colonist",
        'password = "sesame"',
        '"Secret": "sesame",',
        "DB_PASSWORD=sesame",
        "  export COLONIST_PASSPHRASE=sesame",
    ],
)
def test_a_secret_in_a_file_would_be_seen(text: str) -> None:
    assert secret_in(f"before\n{text}\nafter")


# -- nothing is a default in the code


SECRET_NAME = re.compile(r"(?i)(pass(word|wd|phrase)|secret|prvkey|private)s?$")


def defaults(tree: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Names and the values that they have where nobody says: arguments, members, constants."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = node.args
            plain = [*given.posonlyargs, *given.args]
            yield from zip((each.arg for each in plain[::-1]), given.defaults[::-1], strict=False)
            for each, value in zip(given.kwonlyargs, given.kw_defaults, strict=True):
                if value is not None:
                    yield each.arg, value
        elif isinstance(node, ast.AnnAssign) and node.value and isinstance(node.target, ast.Name):
            yield node.target.id, node.value
        elif isinstance(node, ast.Assign):
            yield from (
                (each.id, node.value) for each in node.targets if isinstance(each, ast.Name)
            )


def fallbacks(tree: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """What `environment.get(NAME, ..)` and the like say where there is no such variable."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Attribute(attr="get" | "getenv"),
                args=[ast.Constant(value=str() as name), value],
            ):
                yield name, value


def default_secrets(source: str) -> list[str]:
    tree = ast.parse(source)
    return [
        name
        for name, value in (*defaults(tree), *fallbacks(tree))
        if SECRET_NAME.search(name) and is_text_in(value)
    ]


def is_text_in(value: ast.expr) -> bool:
    """Whether a default is some text, as it is or as `field(default=..)`."""
    match value:
        case ast.Call(keywords=keywords):
            return any(each.arg == "default" and is_text_in(each.value) for each in keywords)
        case ast.Constant(value=str() | bytes() as text):
            return bool(text)
    return False


def test_no_code_has_a_default_secret() -> None:
    for path in files():
        if path.suffix == ".py":
            assert default_secrets(path.read_text()) == [], path


@pytest.mark.parametrize(
    "source",
    [
        'def f(password="x"): ...',
        'def f(a, *, broker_password: str = "x"): ...',
        'class A:\n    passphrase: bytes = b"x"',
        'SECRET = "x"',
        'PRVKEY: Final = "x"',
        'class A:\n    password: str = field(default="x", repr=False)',
        'environment.get("DB_PASSWORD", "x")',
        'os.getenv("COLONIES_PRVKEY", "x")',
    ],
)
def test_a_default_secret_would_be_seen(source: str) -> None:
    assert len(default_secrets(source)) == 1
    assert default_secrets(source.replace("x", "")) == []


# -- nothing is in a repr


def modules() -> Iterator[ModuleType]:
    for name in PACKAGES:
        package = importlib.import_module(f"colonist_{name}")
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.endswith("__main__"):
                yield importlib.import_module(found.name)


def members(kind: type) -> Iterator[tuple[str, bool]]:
    """The members of a record, and whether its repr shows them."""
    if dataclasses.is_dataclass(kind):
        yield from ((each.name, each.repr) for each in dataclasses.fields(kind))
    elif issubclass(kind, msgspec.Struct):
        yield from ((each.name, True) for each in msgspec.structs.fields(kind))
    elif issubclass(kind, tuple):
        yield from ((name, True) for name in getattr(kind, "_fields", ()))


def test_no_record_shows_a_secret_member() -> None:
    shown = {
        (kind.__name__, name)
        for module in modules()
        for kind in vars(module).values()
        if inspect.isclass(kind) and kind.__module__ == module.__name__
        for name, is_shown in members(kind)
        if is_shown and SECRET_NAME.search(name)
    }
    assert shown == set()


def holders() -> list[Any]:
    """One of everything that holds a secret."""
    url = f"postgresql://colonist:{WORD}@h/d"
    file = {"COLONIST_ETCD_PASSWORD": WORD}
    broker = {"name": "b", "server_url": "http://h", "broker_url": "mqtt://h"}
    variables = {"COLONIES_PRVKEY": KEY.reveal(), "COLONIES_COLONY_PRVKEY": KEY.reveal()}
    place = Place(Path("/nowhere"), variables)
    accounts = Accounts()
    accounts.add("name", WORD, lambda *_: True)  # type: ignore[arg-type, return-value]  # nobody asks
    rotation = Rotation(
        server="",
        path=Path(),
        change=print,
        probe=print,
        custody=Custody(variables),  # type: ignore[arg-type]  # never called
    )
    return [
        KEY, Card("h", "00" * 32, "c", WORD), ServerKey(KEY), ServerKeys(KEY, [KEY], coming=KEY),
        AgentConfig(url="http://h", colony="c", identity=KEY),
        BridgeConfig(**broker, password=WORD),
        ServerConfig(archive=url), Options(host="", port=0, store="", keys=None, archive=url),
        archive_address.parse(url), SqlArchive(archive_address.parse(url)),
        etcd_address.parse("etcd://h?user=u", file),
        BrokerAddress(host="h", port=1, client_id="c", username="u", password=WORD),
        Opened(KEY, WORD.encode()), parse(lock(KEY, WORD.encode(), Cost(n=1 << 14))),
        from_environment(variables), Signer(KEY, "x"), Settings(Flags(), variables, place),
        place, Shell(variables), Custody(variables), Custody(variables).answering(WORD.encode()),
        Keyring(Path(), Custody(variables)), rotation, accounts, Plan(),
        Client(HttpTransport("http://h"), KEY), KEY._signer,
    ]  # fmt: skip


def test_nothing_that_holds_a_secret_shows_it() -> None:
    for each in holders():
        for shown in (repr(each), str(each), f"{each}", repr([each])):
            assert leaks.found(shown.encode(), SECRETS) == set(), type(each)


def test_what_holds_a_key_cannot_be_sent_by_accident() -> None:
    for each in (holders()[0], *holders()[2:5]):
        with pytest.raises((TypeError, msgspec.MsgspecError)):
            msgspec.json.encode(each)
