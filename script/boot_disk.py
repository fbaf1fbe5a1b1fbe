"""What lies on the disk of the booted machine before its first start: the program, a fleet, a job.

Nothing here runs in that machine; what is written to its root goes with its overlay.
"""

from __future__ import annotations

import shutil
import sys
import sysconfig
import time
from pathlib import Path

from boot_machine import run

REPOSITORY = Path(__file__).resolve().parent.parent
STATE = Path("/var/lib/gossipfl")
HUB_STATE = Path("/var/lib/gossipfl-hub")
PEER_STATE = Path("/var/lib/peer")  # of another device, without which nobody merges

PROGRAM = """#!/opt/gossipfl/bin/python
from gossipfl.cli.main import entry

raise SystemExit(entry())
"""


def furnish(root: Path) -> None:
    """The program, and no unit of this machine's own."""
    units = root / "etc/systemd/system"
    for path in units.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for name in ("networking", "ssh", "cron", "getty@tty1", "console-getty", "systemd-udevd",
                 "postgresql", "avahi-daemon", "docker", "containerd"):  # fmt: skip
        (units / f"{name}.service").symlink_to("/dev/null")
    install(root)


def install(root: Path) -> None:
    """A virtual environment in /opt, of this interpreter and its packages: the units see neither
    /home nor /root."""
    opt = root / "opt/gossipfl"
    python = f"python3.{sys.version_info.minor}"
    for place, source in (("source", REPOSITORY), ("site", _site())):
        (opt / place).mkdir(parents=True)
        run("mount", "--bind", source, opt / place)
    (root / "opt/python").mkdir()
    run("mount", "--bind", sys.base_prefix, root / "opt/python")
    # An interpreter that lies where units see nothing finds its library beside the system's.
    for library in Path(sys.base_prefix, "lib").glob("libpython*.so.*"):
        shutil.copy(library, root / "usr/lib" / sysconfig.get_config_var("MULTIARCH"))
    packages = opt / "lib" / python / "site-packages"
    packages.mkdir(parents=True)
    (packages / "all.pth").write_text("/opt/gossipfl/source\n/opt/gossipfl/site\n")
    (opt / "pyvenv.cfg").write_text("home = /opt/python/bin\n")
    (opt / "bin").mkdir()
    (opt / "bin/python").symlink_to(f"/opt/python/bin/{python}")
    program = opt / "bin/gossipfl"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    for path in (root / "opt", opt, opt / "bin", opt / "lib"):
        path.chmod(0o755)


def _site() -> Path:
    import numpy

    return Path(numpy.__file__).resolve().parent.parent


def populate(root: Path) -> None:
    """Identities, settings, a job with its data: what a person does before the first start."""
    import numpy as np

    from device_agent.setting_template import template
    from gossipfl.bundle.archive import read, write
    from gossipfl.bundle.signing import sign
    from gossipfl.bundles import DIGITS_LOGISTIC, read_bytes
    from gossipfl.fleet import documents
    from gossipfl.fleet.local import enrol_local, make_fleet
    from gossipfl.hub import settings as hub_settings

    fleet = make_fleet(root / "root/fleet")
    enrol_local(fleet, root / STATE.relative_to("/"))
    enrol_local(fleet, root / PEER_STATE.relative_to("/"))
    enrol_local(fleet, root / HUB_STATE.relative_to("/"), role="hub")
    operator = fleet.operator().load()
    bundle = sign(read(read_bytes(DIGITS_LOGISTIC)), operator.signer, operator.member_object)
    data = write(bundle)
    choices = documents.Choices(n=2, attackers=0, rule="mean")
    policy = documents.next_policy(
        documents.Job.of(bundle, data), choices, None, operator.member, int(time.time())
    )
    etc = root / "etc/gossipfl"
    etc.mkdir()
    etc.chmod(0o755)
    (etc / "job.gfl").write_bytes(data)
    (etc / "policy").write_bytes(documents.policy_object(policy, operator))
    generator = np.random.default_rng(1)
    x = generator.random((200, 64), np.float32)
    (etc / "data").mkdir()
    np.savez(etc / "data/a.npz", x=x, y=generator.integers(0, 10, 200))
    agent = {
        "data.source": "/etc/gossipfl/data",
        "job.bundle": "/etc/gossipfl/job.gfl",
        "job.policy": "/etc/gossipfl/policy",
        "network.hosts": ["127.0.0.1"],
        "network.port": 7_701,
        "network.peers": ["127.0.0.1:7702"],
        "discovery.enabled": False,
        "pace.preset": "demo",
    }
    (etc / "config.toml").write_text(template(agent))
    other = {"network.port": 7_702, "network.peers": [], "device.state": str(PEER_STATE)}
    (etc / "peer.toml").write_text(template({**agent, **other}))
    hub = {
        "network.hosts": ["127.0.0.1"],
        "network.peers": ["127.0.0.1:7702"],
        "discovery.enabled": False,
        "pace.preset": "demo",
    }
    (etc / "hub.toml").write_text(hub_settings.template(hub))
    for path in etc.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
