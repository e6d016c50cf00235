"""Audit files as a server would export them, made by a small model of a colony: the same seed, the
same bytes. Nothing of the verifier is used."""

from __future__ import annotations

import hashlib
import json
import random
from base64 import b64encode
from dataclasses import dataclass, field

from colonist_protocol.identity import Identity

MEMBER_WORK = ("succeeded", "failed", "cancelled", "released")


def identity(*words: object) -> Identity:
    return Identity(hashlib.sha3_256(" ".join(map(str, words)).encode()).digest())


def compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def tagged(tag: str, *parts: str) -> bytes:
    return "\n".join((tag, *parts)).encode()


def sha3(text: bytes) -> str:
    return hashlib.sha3_256(text).hexdigest()


@dataclass
class Request:
    who: str
    req: str
    sig: str
    line: bytes


@dataclass
class Process:
    chain: str
    running: str = ""
    attempt: int = 0
    is_over: bool = False
    was_run: list[str] = field(default_factory=list)


@dataclass
class Member:
    kind: str
    name: str
    key: Identity


class Colony:
    """A colony of a server, and what both write down."""

    def __init__(self, seed: int, *, name: str = "c-1", server: str = "s-1", tag: str = "") -> None:
        self.random = random.Random(f"{seed} {name} {server}")
        self.name = name
        self.tag = tag or sha3(f"{name} {server}".encode())[:8]
        self.servers = [identity("server", server)]
        self.owner = identity("owner", name, server)
        self.founder = identity("founder", server)
        self.time = 1_700_000_000_000
        self.chains: dict[str, list[tuple[bytes, bytes]]] = {}
        self.heads: dict[str, tuple[int, str]] = {}
        self.stated: dict[str, tuple[int, str]] = {}
        self.checkpoints: list[tuple[bytes, bytes]] = []
        self.prev = ""
        self.processes: list[Process] = []
        self.members: list[Member] = []
        self.count = 0
        self.own = self.tag.ljust(64, "0")
        founding = {"msgtype": "addcolonymsg", "colony": {"colonyid": self.owner.id, "name": name}}
        self.event(self.own, "colony_added", self.request(self.founder, founding))

    # What members sign.

    def request(
        self, who: Identity, message: dict[str, object], *, attempt: int = -1, plain: bool = False
    ) -> Request:
        self.count += 1
        payload = b64encode(compact(message)).decode()
        seal: dict[str, object] = {"v": 1, "to": self.servers[-1].id}
        if attempt >= 0:
            seal |= {"attempt": f"{attempt}.{'0' * 16}.{'1' * 32}", "seq": self.count}
        else:
            seal |= {"epoch": f"7.aabbccdd.{'2' * 32}", "id": f"{self.count:032x}", "ttl": 600}
        text = payload.encode()
        sealed = "" if plain else b64encode(compact(seal)).decode()
        if not plain:
            text = tagged("colonist:req:1", payload, sealed)
        line = compact({"of": "event", "payload": payload, "seal": sealed})
        return Request(who.id, sha3(text), who.sign(text), line)

    # What the server writes.

    def event(
        self, chain: str, what: str, request: Request | None = None, attempt: int = 0
    ) -> None:
        self.time += self.random.randrange(5)
        n, prev = self.heads.get(chain, (-1, ""))
        line = compact(
            {
                "v": 1,
                "chain": chain,
                "n": n + 1,
                "what": what,
                "who": request.who if request else "",
                "attempt": attempt,
                "time": self.time,
                "req": request.req if request else "",
                "sig": request.sig if request else "",
                "prev": prev,
            }
        )
        self.chains.setdefault(chain, []).append((line, request.line if request else b""))
        self.heads[chain] = (n + 1, sha3(tagged("colonist:event:1", line.decode())))

    def checkpoint(self, *, size: int = 4_000) -> None:
        self.time += 5_000
        changed = sorted(
            (chain, *head) for chain, head in self.heads.items() if self.stated.get(chain) != head
        )
        self.stated |= self.heads
        for start in range(0, len(changed), size):
            self._sign(changed[start : start + size])

    def _sign(self, heads: list[tuple[str, int, str]]) -> None:
        k = len(self.checkpoints) + 1
        line = compact(
            {
                "v": 1,
                "colony": self.name,
                "k": k,
                "prev": self.prev,
                "time": self.time,
                "heads": heads,
            }
        )
        text = tagged("colonist:checkpoint:1", line.decode())
        signature = compact({"of": "checkpoint", "k": k, "sig": self.servers[-1].sign(text)})
        self.checkpoints.append((line, signature))
        self.prev = sha3(text)

    # What happens.

    def add(self, kind: str) -> Member:
        member = Member(kind, f"{kind}-{self.count}", identity(self.name, self.count, kind))
        named = {f"{kind}id": member.key.id, "colonyname": self.name}
        named["executorname" if kind == "executor" else "name"] = member.name
        message = {"msgtype": f"add{kind}msg", kind: named}
        self.event(self.own, f"{kind}_added", self.request(self.owner, message))
        self.members.append(member)
        return member

    def rename(self, member: Member) -> None:
        new = identity(self.name, self.count, "again")
        message = {
            "msgtype": f"change{member.kind}idmsg",
            "colonyname": self.name,
            f"{member.kind}id": new.id,
        }
        self.event(self.own, f"{member.kind}_id_changed", self.request(member.key, message))
        member.key = new

    def remove(self, member: Member) -> None:
        name = "executorname" if member.kind == "executor" else "name"
        message = {"msgtype": f"remove{member.kind}msg", "colonyname": self.name, name: member.name}
        self.event(self.own, f"{member.kind}_removed", self.request(self.owner, message))
        self.members.remove(member)

    def pause(self) -> None:
        """A change of the colony that changes nobody."""
        message = {"msgtype": "pauseassignmentsmsg", "colonyname": self.name}
        self.event(self.own, "paused", self.request(self.owner, message))

    def submit(self, *, plain: bool = False) -> Process:
        process = Process(self.new_id())
        spec = {"conditions": {"colonyname": self.name}, "funcname": "fn"}
        message = {"msgtype": "submitfuncspecmsg", "spec": spec}
        self.event(process.chain, "submitted", self.request(self.any().key, message, plain=plain))
        self.processes.append(process)
        return process

    def submit_workflow(self, size: int) -> None:
        ids = [self.new_id()[:56] + f"{index:08x}" for index in range(size)]
        message = {"msgtype": "submitworkflowspecmsg", "spec": {"colonyname": self.name}}
        request = self.request(self.any().key, message)
        for index, chain in enumerate(ids):
            if index:
                request = Request(request.who, request.req, request.sig, b"")
            self.event(chain, "submitted", request)
            self.processes.append(Process(chain))

    def assign(self, process: Process, *, plain: bool = False) -> None:
        process.attempt += 1
        message = {"msgtype": "assignprocessmsg", "colonyname": self.name, "timeout": 10}
        request = self.request(self.any("executor").key, message, plain=plain)
        self.event(process.chain, "assigned", request, process.attempt)
        process.running = request.who

    def end(self, process: Process) -> None:
        what = self.random.choice(("succeeded", "failed", "cancelled"))
        kinds = {
            "succeeded": "closesuccessful",
            "failed": "closefailed",
            "cancelled": "cancelprocess",
        }
        message = {"msgtype": f"{kinds[what]}msg", "processid": process.chain}
        runner = next((m for m in self.members if m.key.id == process.running), None)
        if runner is None or not process.attempt:
            self.event(process.chain, "waited_out", None, process.attempt)
        elif what == "cancelled":
            self.event(process.chain, what, self.request(self.any().key, message), process.attempt)
        else:
            request = self.request(runner.key, message, attempt=process.attempt)
            self.event(process.chain, what, request, process.attempt)
        process.is_over = True

    def forget(self, process: Process, *, by_server: bool = False) -> None:
        message = {"msgtype": "removeprocessmsg", "processid": process.chain}
        request = None if by_server else self.request(self.any().key, message)
        self.event(process.chain, "removed", request, process.attempt)
        del self.chains[process.chain][:-1]
        self.processes.remove(process)

    def new_id(self) -> str:
        return self.tag + self.random.randbytes(28).hex()

    def any(self, kind: str = "") -> Member:
        return self.random.choice([m for m in self.members if not kind or m.kind == kind])

    def rotate_server_key(self) -> None:
        self.servers.append(identity("server", self.name, len(self.servers)))

    def live(self, steps: int) -> None:
        """Do things at random."""
        for kind in ("user", "executor", "executor"):
            self.add(kind)
        for _ in range(steps):
            self.step()

    def step(self) -> None:
        choice = self.random.randrange(100)
        going = [process for process in self.processes if not process.is_over]
        if choice < 25 or not going:
            self.submit(plain=self.random.random() < 0.2)
        elif choice < 29:
            self.submit_workflow(self.random.randrange(2, 5))
        elif choice < 33:
            self._change_members()
        elif choice < 37 and len(self.processes) > 3:
            over = [process for process in self.processes if process.is_over]
            if over:
                self.forget(over[0], by_server=self.random.random() < 0.5)
        elif choice < 47:
            self.checkpoint(size=self.random.choice((2, 4_000)))
        else:
            process = self.random.choice(going)
            if process.running:
                self.end(process)
            else:
                self.assign(process, plain=self.random.random() < 0.2)

    def _change_members(self) -> None:
        what = self.random.randrange(3)
        if what == 0:
            self.add(self.random.choice(("user", "executor")))
        elif what == 1:
            self.rename(self.any())
        else:
            member = self.any()
            if sum(other.kind == member.kind for other in self.members) > 1:
                self.remove(member)

    # The file.

    @property
    def server_id(self) -> str:
        return self.servers[-1].id

    def lines(self, *, kept: float = 1.0) -> list[bytes]:
        """All lines but the last; `kept`: how many of the requests are still there."""
        via = [
            (old.id, old.sign(tagged("colonist:key:1", old.id, new.id)))
            for old, new in zip(self.servers, self.servers[1:], strict=False)
        ]
        header = {
            "colonist": "audit",
            "v": 1,
            "colony": self.name,
            "server": self.server_id,
            "via": via,
            "made": self.time,
        }
        found = [compact(header)]
        for checkpoint in self.checkpoints:
            found += checkpoint
        chance = random.Random(f"{self.tag} kept")
        for chain in sorted(self.chains):
            for line, request in self.chains[chain]:
                found.append(line)
                if request and (chain == self.own or chance.random() < kept):
                    found.append(request)
        return found

    def export(self, *, kept: float = 1.0) -> bytes:
        return finished(self.lines(kept=kept))


def finished(lines: list[bytes]) -> bytes:
    """A file of these lines, with a last line that fits."""
    body = b"".join(line + b"\n" for line in lines)
    events = [line for line in lines if line.startswith(b'{"v":1,"chain":')]
    end = {
        "end": True,
        "chains": len({line[:80] for line in events}),
        "events": len(events),
        "checkpoints": sum(line.startswith(b'{"of":"checkpoint"') for line in lines),
        "hash": sha3(body),
    }
    return body + compact(end) + b"\n"


def colony(seed: int, steps: int = 60, **named: str) -> Colony:
    """One that lived for a while."""
    made = Colony(seed, **named)
    made.live(steps)
    made.checkpoint()
    return made
