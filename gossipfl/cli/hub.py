"""`gossipfl hub`: make a hub's folder and config, and run one."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gossipfl.cli.new_config import flags_of, write_new
from gossipfl.cli.output import Result, line, progress
from gossipfl.errors import UserError

if TYPE_CHECKING:
    from gossipfl.bundle.archive import Bundle
    from gossipfl.hub.star.merging import Evaluate, Holdout

CONFIG = "hub.toml"
ERASE_WAIT_S = 120.0  # guess: a database of some gigabytes is written anew by then


def add_parser(subparsers: Any) -> None:
    hub = subparsers.add_parser("hub", help="the optional hub: make and run one")
    verbs = hub.add_subparsers(dest="hub_verb")
    init_parser = verbs.add_parser("init", help="make a hub's folder and its commented hub.toml")
    init_parser.add_argument("--state", type=Path, required=True, metavar="DIR")
    _add_set(init_parser)
    init_parser.set_defaults(handler=init)

    run_parser = verbs.add_parser("run", help="run the hub until SIGTERM or Ctrl-C")
    run_parser.add_argument(
        "--config", type=Path, required=True, metavar="FILE", help="what `gossipfl hub init` wrote"
    )
    _add_set(run_parser)
    run_parser.set_defaults(handler=run)

    erase_parser = verbs.add_parser(
        "erase", help="delete all that the hub holds of a device that has left, or a star client"
    )
    erase_parser.add_argument("device", help="its id, in groups as people see it or in hex")
    erase_parser.add_argument(
        "--config", type=Path, required=True, metavar="FILE", help="the hub's hub.toml"
    )
    erase_parser.set_defaults(handler=erase)

    alerts = verbs.add_parser("alerts", help="the alerts that the hub sends")
    alert_verbs = alerts.add_subparsers(dest="alert_verb")
    test_parser = alert_verbs.add_parser(
        "test", help="send a test alert to the webhook and by mail, and say whether it went"
    )
    test_parser.add_argument("--config", type=Path, required=True, metavar="FILE")
    _add_set(test_parser)
    test_parser.set_defaults(handler=test_alerts)


def _add_set(parser: Any) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="one setting, over the file",
    )


def init(args: Namespace) -> Result:
    """The folder (0700) and a config in which every default says where it comes from."""
    from gossipfl.hub.settings import load_settings, template

    flags = flags_of(args.set)
    settings = load_settings((), flags)
    given = {name: _value(settings, name) for name in flags}
    path = args.state / CONFIG
    write_new(path, template(given))
    joined = (args.state / "member").exists()
    steps = [f"gossipfl hub run --config {path}"]
    if not joined:
        steps.insert(0, f"gossipfl join LINE --state {args.state}")
    text = f"wrote {path}\nnext:\n" + "\n".join(f"  {step}" for step in steps)
    if not joined:
        text += "\nthe line is printed by: gossipfl invite --role hub"
    return Result({"config": str(path), "state": str(args.state), "joined": joined}, text)


def _value(settings: Any, name: str) -> object:
    """A path on the command line is relative to where one stands, in the file to the file."""
    section, _, key = name.partition(".")
    value = getattr(getattr(settings, section), key)
    return str(value.absolute()) if isinstance(value, Path) else value


def run(args: Namespace) -> Result:
    """The hub, until SIGTERM or SIGINT."""
    import asyncio

    from device_agent import logs
    from gossipfl.hub.settings import load_settings

    settings = load_settings([args.config], flags_of(args.set))
    require_extra()
    from gossipfl.hub.service import Service

    level = "warning" if args.quiet else "debug" if args.verbose else settings.logging.level
    logs.set_up(level, settings.logging.format)

    async def serve() -> None:
        service = Service(settings, holdout=_holdout(settings.star.holdout))
        running = asyncio.create_task(service.run())
        ready = asyncio.create_task(service.ready.wait())
        await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if service.address is not None and not running.done():
            if args.json:
                line({"url": service.address.url})
            progress(args, f"the hub is at {service.address.url}; Ctrl-C stops it")
        await running

    asyncio.run(serve())
    return Result({}, "stopped")


def erase(args: Namespace) -> Result:
    """By the hub that runs, or here if none does; both leave the same."""
    import asyncio

    from gossipfl.cli.user import by_hand
    from gossipfl.hub.settings import load_settings

    settings = load_settings([args.config])
    require_extra()
    from gossipfl.fleet.device import load_identity
    from gossipfl.hub.database import DatabaseError, open_database
    from gossipfl.hub.erasing.asking import Stage, parse
    from gossipfl.hub.erasing.waiting import Hand

    subject = parse(args.device)
    identity = load_identity(settings.hub.state)

    async def work() -> Stage:
        database = await open_database(settings.dsn, password=settings.password)
        try:
            return await Hand(database, identity).erase(subject, by_hand(), ERASE_WAIT_S)
        except DatabaseError as error:
            raise UserError("GF801", f"{error}; the erasure goes on when it is asked again") from (
                error
            )
        finally:
            await database.close()

    found = asyncio.run(work())
    if found is Stage.DONE:
        return Result({"stage": found.value}, "erased: the log says so, and names nobody")
    raise UserError("GF853", f"the running hub is not through: {found.value}")


def test_alerts(args: Namespace) -> Result:
    """One try of each channel, without a database: the hub may run or not. UserError GF811."""
    import asyncio
    import secrets
    import time

    from gossipfl.hub.alerts.channels import channels
    from gossipfl.hub.alerts.messages import Composer, Message, trial
    from gossipfl.hub.alerts.sending import outcomes
    from gossipfl.hub.service import hub_identity
    from gossipfl.hub.settings import load_settings
    from gossipfl.identity import short_name

    settings = load_settings([args.config], flags_of(args.set))
    found = channels(settings.alerts, lambda: int(time.time()))
    if not found:
        hint = "set alerts.webhook or alerts.mail_server; docs/how-to/alerts.md shows how"
        raise UserError("GF811", "no alert is sent anywhere", hint)
    identity = hub_identity(settings)
    made = trial(secrets.token_hex(16), int(time.time()))
    composer = Composer(
        identity.member.fleet.hex(),
        short_name(identity.signer.device),
        settings.alerts.page_url,
        name_devices=settings.alerts.name_devices,
    )
    message = Message(f"{made.id}-test", composer.body(made, "test", made.began))
    told = asyncio.run(outcomes(found, message))
    failed = [f"{name}: {problem}" for name, problem in told.items() if problem]
    if failed:
        raise UserError("GF812", "; ".join(failed))
    text = "\n".join(f"{name}: the test alert was taken" for name in told)
    return Result({"channels": dict.fromkeys(told, "sent")}, text)


def require_extra() -> None:
    """Raises UserError GF106 without what only a hub needs."""
    from importlib.util import find_spec

    missing = [name for name in ("jwt", "jinja2") if find_spec(name) is None]
    if missing:
        hint = "install it: pip install 'gossipfl[hub]'"
        raise UserError("GF106", f"a hub needs {' and '.join(missing)}", hint)


def _holdout(path: Path | None) -> Holdout | None:
    """What judges models by the public examples of this file. Raises UserError GF407."""
    if path is None:
        return None
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as arrays:
            x, y = arrays["x"], arrays["y"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError("GF407", f"{path}: {error}", "it needs arrays x and y") from error

    def judge(bundle: Bundle) -> Evaluate:
        from device_agent.trainer import OnnxTrainer

        return OnnxTrainer(bundle, x, y, x, y).evaluate

    return judge
