"""Where the demo's devices live: one folder each, with keys, data, config and state.

Everything is inside one folder (`.gossipfl-demo`), which is emptied at each start. Which examples a
device has, and which device lies, follow from the seed; keys and ports are new each time.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from device_agent.setting_template import template
from gossipfl.bundle.archive import read_path, write
from gossipfl.bundle.signing import sign
from gossipfl.errors import UserError
from gossipfl.fleet.documents import DEFAULT_RULE, Choices, next_policy, policy_object
from gossipfl.fleet.documents import Job as PolicyJob
from gossipfl.fleet.folders import Official
from gossipfl.fleet.local import enrol_local, make_fleet
from gossipfl.identity import device_name, short_name
from gossipfl.messages import Training
from sim.data import Examples, Split, digits, split_dirichlet, split_iid

PORT = 47_600  # guess: far from what is registered; the next free one is taken if it is busy
PORTS_TRIED = 200
MARK = "made-by-gossipfl-demo"


@dataclass(frozen=True, slots=True)
class Job:
    """What the fleet learns: the same for all. `alpha` None deals the examples out at random."""

    devices: int
    liars: int
    rounds: int
    seed: int
    training: Training
    pace: str
    stops: bool = True  # after `rounds`; False: it goes on for ever
    rule: str = DEFAULT_RULE
    assumed: int | None = None  # attackers that the policy assumes; None: as many as there are
    alpha: float | None = 0.5
    input_max: float = 4.0  # what the brightest pixel is to the model; a probe: 1 learns slower


@dataclass(frozen=True, slots=True)
class Place:
    """One device of the fleet, before its process runs."""

    name: str  # what people see: the short device id
    device: str  # the full id
    folder: Path
    config: Path
    socket: Path
    port: int
    liar: int | None = None  # which of the liars it is, from 0 on

    @property
    def is_liar(self) -> bool:
        return self.liar is not None


@contextlib.contextmanager
def own_folder(path: Path) -> Iterator[Path]:
    """`path`, empty and ours alone. Raises UserError GF104 if that cannot be.

    What an earlier demo left is removed; a folder that this program did not make is left alone.
    """
    mark = path / MARK
    if path.exists() and not mark.exists() and any(path.iterdir()):
        raise UserError("GF104", f"{path} holds files that no demo made")
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    with mark.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError("GF104", f"another demo is running in {path}") from None
        for entry in path.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry != mark:
                entry.unlink()
        yield path


def shards(job: Job) -> tuple[list[Examples], Examples]:
    """A training part per device, liars last, and the test split that all are measured on.

    The honest devices share out all 1,437 training digits. A liar's examples are a second draw from
    the same digits: whatever the fleet loses is then the lie's doing, not missing data's.
    """
    data = digits(job.seed)
    honest = job.devices - job.liars
    parts = _split(data, job, honest, job.seed)
    if job.liars:
        parts += _split(data, job, job.devices, job.seed + 1)[honest:]
    return parts, data.test


def _split(data: Split, job: Job, parts: int, seed: int) -> list[Examples]:
    if job.alpha is None:
        return split_iid(data.train, parts, seed)
    return split_dirichlet(data.train, parts, job.alpha, seed)


def free_ports(count: int, say: Callable[[str], None], first: int = PORT) -> list[int]:
    """`count` TCP ports that nobody listens on. A busy one is said aloud and passed over."""
    found: list[int] = []
    busy: list[int] = []
    for port in range(first, first + PORTS_TRIED):
        if len(found) == count:
            break
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            try:
                probe.bind(("::", port))
            except OSError:
                busy.append(port)
                continue
        found.append(port)
    if busy:
        say(f"    busy, so the next was taken: port {', '.join(map(str, busy))}")
    if len(found) < count:
        raise UserError("GF105", f"fewer than {count} free ports from {first} on")
    return found


def settle(
    job: Job,
    folder: Path,
    shipped: Path,
    ports: Sequence[int],
    poison: Callable[[Examples], Examples] = lambda examples: examples,
    hub_port: int | None = None,
) -> list[Place]:
    """The fleet, its signed job, and keys, data and config of every device.

    The fleet's own folder is `folder`/fleet; `shipped` is the bundle that its operator signs;
    `poison` makes a liar's examples what its attack wants; at `hub_port` there may be a hub.
    """
    fleet = make_fleet(folder / "fleet", "demo")
    bundle, policy = sign_job(job, fleet.operator().load(), shipped, folder)
    # The device scales what it reads, so the files hold what comes out right after that.
    brightest = job.input_max / read_path(shipped).manifest.preprocessing.scale
    parts, test = shards(job)
    places = []
    honest = job.devices - job.liars
    for number, (part, port) in enumerate(zip(parts, ports, strict=True)):
        home = folder / f"device-{number + 1}"
        device = enrol_local(fleet, home).load().signer.device
        write_data(home / "data", part if number < honest else poison(part), test, brightest)
        # Two static seeds each beside mDNS: enough to find everybody through address records.
        seeds = [f"127.0.0.1:{ports[(number + step) % len(ports)]}" for step in (1, 2)]
        if hub_port is not None:
            seeds.append(f"127.0.0.1:{hub_port}")
        settings = {
            "network.port": port,
            "network.advertise": [f"127.0.0.1:{port}"],
            "network.peers": seeds,
            "pace.preset": job.pace,
            "job.bundle": str(bundle.resolve()),
            "job.policy": str(policy.resolve()),
            "data.source": "data",
        }
        (home / "config.toml").write_text(template(settings))
        places.append(
            Place(
                name=short_name(device),
                device=device_name(device),
                folder=home,
                config=home / "config.toml",
                socket=home / "agent.sock",
                port=port,
                liar=number - honest if number >= honest else None,
            )
        )
    return places


def sign_job(job: Job, operator: Official, shipped: Path, folder: Path) -> tuple[Path, Path]:
    """The bundle and the policy, signed by the fleet's operator, as files in `folder`."""
    bundle = sign(read_path(shipped), operator.signer, operator.member_object)
    data = write(bundle)
    choices = Choices(
        n=job.devices,
        attackers=job.liars if job.assumed is None else job.assumed,
        rule=job.rule,
        sample=(job.devices - 1) or None,  # a fleet this small pulls everybody
        epochs=job.training.epochs,
        learning_rate=job.training.learning_rate,
        momentum=job.training.momentum,
        batch=job.training.batch,
        rounds=job.rounds if job.stops else None,
    )
    signed = PolicyJob.of(bundle, data)
    policy = next_policy(signed, choices, None, operator.member, int(time.time()))
    bundle_file, policy_file = folder / shipped.name, folder / "policy.gfp"
    bundle_file.write_bytes(data)
    policy_file.write_bytes(policy_object(policy, operator))
    return bundle_file, policy_file


def write_data(folder: Path, train: Examples, test: Examples, brightest: float) -> None:
    """A device's examples as files: `folder`/digits.npz, and the held-out part in its `test`."""
    for path, part in ((folder, train), (folder / "test", test)):
        path.mkdir(parents=True)
        np.savez(path / "digits.npz", x=(part.x * brightest).astype(np.float32), y=part.y)
