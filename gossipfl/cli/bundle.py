"""`gossipfl bundle ...`: make a training job from a torch model, sign it, check it."""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gossipfl.cli.output import Result, progress

if TYPE_CHECKING:
    from gossipfl.bundle.archive import Bundle
    from gossipfl.bundle.manifest import Manifest


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("bundle", help="make, sign and check the training job (.gfl)")
    verbs = parser.add_subparsers(dest="bundle_verb", metavar="VERB")
    _add_from_torch(verbs)

    sign = verbs.add_parser("sign", help="sign it as an operator; its id stays the same")
    sign.add_argument("bundle", type=Path, metavar="X.gfl")
    sign.add_argument(
        "--operator",
        type=Path,
        required=True,
        metavar="DIR",
        help="the folder of an operator, of an issuer, or of the fleet",
    )
    sign.add_argument("-o", "--out", type=Path, metavar="Y.gfl", help="default: in place")
    sign.set_defaults(handler=sign_bundle)

    check = verbs.add_parser("check", help="every check a device makes, and what it would cost")
    check.add_argument("bundle", type=Path, metavar="X.gfl")
    check.add_argument(
        "--fleet", type=Path, metavar="DIR", help="also: is the signer an operator of this fleet?"
    )
    check.set_defaults(handler=check_bundle)


def _add_from_torch(verbs: Any) -> None:
    make = verbs.add_parser("from-torch", help="from a class in a Python file (extra [author])")
    make.add_argument("model", metavar="FILE.py:CLASS", help="a torch.nn.Module without arguments")
    make.add_argument("--input", type=shape, required=True, metavar="N[,N...]", help="one example")
    make.add_argument("--classes", type=int, default=0, metavar="N")
    make.add_argument("--batch", type=int, default=32, metavar="N", help="of one step (32)")
    make.add_argument(
        "--dp-batch",
        type=int,
        metavar="N",
        help="examples that dp_grad.onnx takes at once (default: from what an example costs)",
    )
    make.add_argument("-o", "--out", type=Path, required=True, metavar="X.gfl")
    tasks = ("classification", "regression", "sequence")
    make.add_argument("--task", choices=tasks, default=tasks[0])
    make.add_argument(
        "--target", type=shape, default=(), metavar="N[,N...]", help="one target, if not a scalar"
    )
    make.add_argument("--vocabulary", type=int, metavar="N", help="inputs are tokens below N")
    make.add_argument("--name", help="default: the file's name")
    make.add_argument("--seed", type=int, default=0, help="of the initial parameters (0)")
    data = make.add_argument_group("raw data: value * scale + offset, done on the device")
    for name, default in (("scale", 1.0), ("offset", 0.0)):
        data.add_argument(f"--{name}", type=float, default=default, metavar="X")
        data.add_argument(f"--target-{name}", type=float, default=default, metavar="X")
    rest = make.add_argument_group("defaults of training, and limits")
    rest.add_argument("--learning-rate", type=float, default=0.1, metavar="X")
    rest.add_argument("--momentum", type=float, default=0.0, metavar="X")
    rest.add_argument("--epochs", type=int, default=1, metavar="N")
    rest.add_argument("--rss-max-mb", type=int, metavar="N", help="default: from the parameters")
    rest.add_argument("--step-max-ms", type=float, default=1_000.0, metavar="X")
    make.set_defaults(handler=from_torch)


def shape(text: str) -> tuple[int, ...]:
    """`1,28,28` as a tuple."""
    try:
        sizes = tuple(int(part) for part in text.split(","))
    except ValueError:
        sizes = ()
    if not sizes or min(sizes) < 1:
        raise ArgumentTypeError(f"{text!r} is not a shape like 64 or 1,28,28")
    return sizes


def from_torch(args: Namespace) -> Result:
    """Trace, export, compare every graph with torch, write."""
    from gossipfl.errors import UserError

    file, _, class_name = args.model.rpartition(":")
    if not file or not class_name:
        raise UserError("GF100", f"{args.model!r} is not FILE.py:CLASS")
    try:
        from gossipfl.authoring.from_torch import from_torch as make
    except ModuleNotFoundError as error:
        raise UserError("GF404", f"there is no module {error.name}") from error
    progress(args, f"tracing {class_name} and comparing every graph with torch ...")
    built = make(Path(file), class_name, _job(args, Path(file)), args.out)
    data = {
        "bundle": built.bundle.id.hex(),
        "file": str(args.out),
        "parameters": built.bundle.layout.count,
        "self_check": dict(built.errors),
        "bytes": {name: len(part) for name, part in built.bundle.files.items()},
    }
    lines = [
        f"{args.out}: {built.bundle.layout.count:,} parameters",
        f"  id           {built.bundle.id.hex()}",
        *(
            f"  {name:<12} differs from torch by {error:.1e}"
            for name, error in built.errors.items()
        ),
        f"next: gossipfl bundle check {args.out}",
    ]
    return Result(data, "\n".join(lines))


def _job(args: Namespace, file: Path) -> Any:
    """The author's flags as a Job."""
    from gossipfl.authoring.from_torch import Job
    from gossipfl.bundle.manifest import Optimizer, Preprocessing, Task

    return Job(
        name=(args.name or file.stem.replace("_", "-")).lower(),
        input_shape=args.input,
        batch=args.batch,
        dp_batch=args.dp_batch,
        classes=args.classes,
        task=Task(args.task),
        target_shape=args.target,
        vocabulary=args.vocabulary,
        seed=args.seed,
        preprocessing=Preprocessing(
            scale=args.scale,
            offset=args.offset,
            target_scale=args.target_scale,
            target_offset=args.target_offset,
        ),
        optimizer=Optimizer(
            learning_rate=args.learning_rate, momentum=args.momentum, epochs=args.epochs
        ),
        rss_max_mb=args.rss_max_mb,
        step_max_ms=args.step_max_ms,
    )


def sign_bundle(args: Namespace) -> Result:
    """An operator's signature, put beside the manifest."""
    from gossipfl.bundle import archive, signing
    from gossipfl.errors import UserError
    from gossipfl.fleet.files import PUBLIC_MODE, write_file
    from gossipfl.fleet.folders import find_official
    from gossipfl.identity import device_name

    bundle = archive.read_path(args.bundle)
    if args.out is None and args.bundle.is_dir():
        raise UserError("GF100", f"{args.bundle} is a folder: name a file with -o")
    official = find_official(args.operator)
    signed = signing.sign(bundle, official.signer, official.member_object)
    out = args.out or args.bundle
    write_file(out, archive.write(signed), PUBLIC_MODE)
    signer = device_name(official.signer.device)
    return Result(
        {"bundle": bundle.id.hex(), "file": str(out), "signer": signer},
        f"{out}: signed by {signer}\n  id          {bundle.id.hex()}",
    )


def check_bundle(args: Namespace) -> Result:
    """What a device would say, with what it measured on this machine."""
    from device_agent.bundles.validate import Limits, judge
    from gossipfl.bundle import archive

    bundle = archive.read_path(args.bundle)
    signer = _signer(bundle, args.fleet)
    verdict = judge(bundle, None, Limits())
    manifest = bundle.manifest
    count = bundle.layout.count
    data = {
        "bundle": bundle.id.hex(),
        "name": manifest.name,
        "verdict": "accepted",
        "signer": signer,
        "signer_checked": args.fleet is not None,
        "task": manifest.task.value,
        "input": [manifest.batch, *manifest.input.shape],
        "dp_batch": manifest.private_batch,
        "classes": manifest.classes,
        "parameters": count,
        "bytes_per_exchange": {"f32": 4 * count},
        "step_ms": round(verdict.step_ms, 3),
        "rss_mb": round(verdict.rss_mb, 1),
        "nodes": verdict.nodes,
        "operators": verdict.operators,
    }
    return Result(data, _check_text(args, manifest, data))


def _check_text(args: Namespace, manifest: Manifest, data: dict[str, Any]) -> str:
    checked = " (an operator of this fleet)" if args.fleet else " (fleet not checked: --fleet DIR)"
    signed = data["signer"] + checked if data["signer"] else "not signed: no device takes it yet"
    nodes = ", ".join(f"{name} {count}" for name, count in data["nodes"].items())
    labels = f", {manifest.classes} classes" if manifest.classes else ""
    return "\n".join(
        (
            f"{args.bundle}: accepted",
            f"  id          {data['bundle']}",
            f"  signer      {signed}",
            f"  task        {manifest.task.value}, input {data['input']}{labels}",
            f"  privacy     dp_grad.onnx takes {data['dp_batch']} examples at once",
            f"  parameters  {data['parameters']:,}",
            f"  exchange    {data['bytes_per_exchange']['f32']:,} bytes (f32) per model",
            f"  step        {data['step_ms']} ms here, {data['rss_mb']} MB with the checks",
            f"  nodes       {nodes}",
            f"  operators   {' '.join(data['operators'])}",
        )
    )


def _signer(bundle: Bundle, fleet: Path | None) -> str | None:
    """The signer's name, None if unsigned; a wrong signature is a refusal."""
    from gossipfl.bundle import signing
    from gossipfl.identity import device_name, device_of

    if bundle.signature is None and bundle.member is None and fleet is None:
        return None
    if fleet is None:
        return device_name(device_of(signing.signer_of(bundle)))
    from device_agent.bundles.signers import operator_of
    from gossipfl.config import Limits
    from gossipfl.fleet.stored import read_fleet_file
    from gossipfl.membership import Roster

    root = bytes.fromhex(read_fleet_file(fleet).root_key)
    key_id = signing.require_signature(bundle, operator_of(Roster(root, Limits())))
    return device_name(device_of(key_id))
