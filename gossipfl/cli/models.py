"""`gossipfl predict` and `gossipfl models export`: use of the model that the device holds.

The model is the device's base: the merge that status reports the accuracy of. It comes from the
running agent, or from the state folder if no agent runs.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gossipfl.cli.device import add_where, settings_of
from gossipfl.cli.output import Result
from gossipfl.errors import UserError

if TYPE_CHECKING:
    from device_agent.current_model import CurrentModel
    from device_agent.models import Prediction

ROWS_SHOWN = 20


def add_parser(subparsers: Any) -> None:
    predict_parser = subparsers.add_parser(
        "predict", help="use the device's current model on an input"
    )
    predict_parser.add_argument(
        "--input",
        required=True,
        metavar="X",
        help="a .npy or .npz (x) file, a .csv without header, or - for csv lines on stdin",
    )
    add_where(predict_parser)
    predict_parser.set_defaults(handler=predict)

    models_parser = subparsers.add_parser(
        "models", help="list and export the model that the device holds"
    )
    verbs = models_parser.add_subparsers(dest="models_verb", metavar="VERB")
    list_parser = verbs.add_parser("list", help="the models that this device holds")
    add_where(list_parser)
    list_parser.set_defaults(handler=list_models)
    export_parser = verbs.add_parser(
        "export", help="an ordinary ONNX file: parameters inside, raw x in, answers out"
    )
    export_parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    add_where(export_parser)
    export_parser.set_defaults(handler=export)


def _model(args: Namespace) -> CurrentModel:
    from device_agent.current_model import current_model

    return current_model(settings_of(args))


def predict(args: Namespace) -> Result:
    """Classes with their probability, or values, for each row of the input."""
    from device_agent.models import predict as predict_with

    model = _model(args)
    found = predict_with(model.bundle, model.parameters, _inputs(args.input))
    rows = _rows(found)
    shown = [_row_text(number, row) for number, row in enumerate(rows[:ROWS_SHOWN])]
    if len(rows) > ROWS_SHOWN:
        shown.append(f"... and {len(rows) - ROWS_SHOWN} more rows; --json gives all")
    return Result({**model.facts(), "predictions": rows}, "\n".join(shown))


def _rows(found: Prediction) -> list[dict[str, Any]]:
    if found.classes is None or found.probabilities is None:
        return [{"value": row.tolist()} for row in found.outputs]
    best = found.probabilities.max(-1)
    return [
        {"class": chosen.tolist(), "probability": chance.tolist(), "logits": logits.tolist()}
        for chosen, chance, logits in zip(found.classes, best, found.outputs, strict=True)
    ]


def _row_text(number: int, row: dict[str, Any]) -> str:
    if "value" in row:
        return f"{number}: {row['value']}"
    if isinstance(row["class"], list):
        return f"{number}: classes {row['class']}"
    return f"{number}: class {row['class']} ({row['probability']:.1%})"


def _inputs(given: str) -> Any:
    """Raw inputs [N, ...]. UserError GF407."""
    import numpy as np

    path = Path(given)
    try:
        if given == "-":
            return np.loadtxt(sys.stdin, delimiter=",", ndmin=2)
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return arrays["x"]
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False)
        return np.loadtxt(path, delimiter=",", ndmin=2)
    except (OSError, ValueError, KeyError) as error:
        raise UserError("GF407", f"{given}: {error}") from error


def list_models(args: Namespace) -> Result:
    """One entry: the base. Snapshots come with roll-back, in a later version."""
    facts = _model(args).facts()
    text = (
        f"base of round {facts['round']}: {facts['parameters']} parameters, "
        f"bundle {facts['name']} {facts['bundle'][:12]}, run {facts['run']}"
    )
    return Result({"models": [facts]}, text)


def export(args: Namespace) -> Result:
    """The base as one ONNX file, with round and lineage in its metadata."""
    from device_agent.models import export_onnx

    model = _model(args)
    facts = model.facts()
    metadata = {key: str(facts[key]) for key in ("round", "run", "layout", "base", "device")}
    export_onnx(model.bundle, model.parameters, args.output, metadata)
    size = args.output.stat().st_size
    return Result(
        {**facts, "file": str(args.output), "bytes": size},
        f"wrote {args.output}: {size} bytes, the merge of round {facts['round']}",
    )
