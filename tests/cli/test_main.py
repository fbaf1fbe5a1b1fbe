"""The command as a person or a script meets it: help, errors, exit codes, the envelope."""

from __future__ import annotations

import json
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from typing import Any

import pytest

from gossipfl.cli import main, output
from gossipfl.errors import ERRORS, Exit, UserError

Call = Callable[..., tuple[int, str, str]]


def verb(monkeypatch: pytest.MonkeyPatch, handler: Callable[[Namespace], output.Result]) -> None:
    """Put a handler behind `gossipfl explain`, so that any outcome can be tried."""

    def add_parser(subparsers: Any) -> None:
        parser = subparsers.add_parser("explain")
        parser.add_argument("--number", type=int, default=1)
        parser.set_defaults(handler=handler)

    module = Namespace(add_parser=add_parser)
    monkeypatch.setattr(main.importlib, "import_module", lambda name: module)


def test_help_lists_every_verb_without_importing_a_verb_module() -> None:
    script = (
        "import sys; from gossipfl.cli.main import run; code = run(['--help']); "
        "print('\\n'.join(sys.modules), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0
    for _, name, _, _ in main.VERBS:
        assert f"\n  {name} " in done.stdout
    loaded = done.stderr.split()
    ours = {name for name in loaded if name.startswith("gossipfl")}
    assert ours == {
        "gossipfl",
        "gossipfl.cli",
        "gossipfl.cli.main",
        "gossipfl.cli.output",
        "gossipfl.codes",
        "gossipfl.codes.audit",
        "gossipfl.codes.device",
        "gossipfl.codes.entry",
        "gossipfl.codes.hub",
        "gossipfl.errors",
    }
    # What help costs is what it imports. The bare interpreter has about 60 modules.
    assert len(loaded) < 160
    assert not {"numpy", "aiohttp", "onnxruntime", "zeroconf", "asyncio"} & set(loaded)


def test_module_and_console_script_are_the_same_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gossipfl", "--version", "--json"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert json.loads(done.stdout)["data"]["version"] == main.__version__


def test_no_verb_shows_help_and_says_it_was_wrong_use(gossipfl: Call) -> None:
    code, out, _ = gossipfl()
    assert code == Exit.USAGE
    assert "Start: gossipfl demo" in out


def test_a_typo_gets_the_nearest_verb(gossipfl: Call) -> None:
    code, _, err = gossipfl("explian")
    assert code == Exit.USAGE
    assert "did you mean `gossipfl explain`?" in err


@pytest.mark.parametrize("argv", [("explain", "--nope"), ("explain", "a", "b")])
def test_wrong_arguments_are_exit_2_with_a_hint(gossipfl: Call, argv: tuple[str, ...]) -> None:
    code, out, err = gossipfl(*argv)
    assert code == Exit.USAGE
    assert out == ""
    assert "error GF100" in err
    assert "--help" in err


@pytest.mark.parametrize("argv", [("--json", "explain", "GF999"), ("explain", "GF999", "--json")])
def test_json_errors_have_one_envelope_before_or_after_the_verb(
    gossipfl: Call, argv: tuple[str, ...]
) -> None:
    code, out, err = gossipfl(*argv)
    assert code == Exit.USAGE
    assert err == ""
    envelope = json.loads(out)
    assert (envelope["schema"], envelope["status"]) == (1, "error")
    assert set(envelope["error"]) == {"code", "title", "cause", "hint"}


def test_an_answer_goes_to_stdout_once(gossipfl: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    verb(monkeypatch, lambda args: output.Result({"n": args.number}, f"n is {args.number}"))
    assert gossipfl("explain", "--number", "3") == (0, "n is 3\n", "")
    assert gossipfl("explain", "-q") == (0, "", "")
    code, out, _ = gossipfl("explain", "--json", "-q")
    assert (code, json.loads(out)) == (0, {"schema": 1, "status": "ok", "data": {"n": 1}})


def test_a_no_is_exit_1_and_still_an_answer(
    gossipfl: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    verb(monkeypatch, lambda args: output.Result({"valid": False}, "no", Exit.NO))
    code, out, _ = gossipfl("explain", "--json")
    assert code == 1
    assert json.loads(out)["status"] == "ok"


def test_a_user_error_says_what_why_and_what_next(
    gossipfl: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def handler(args: Namespace) -> output.Result:
        raise UserError("GF103", "/etc/gossipfl/x.toml: no such file")

    verb(monkeypatch, handler)
    code, _, err = gossipfl("explain")
    assert code == Exit.CONFIG
    entry = ERRORS["GF103"]
    for part in ("GF103", entry.title, "/etc/gossipfl/x.toml", entry.hint, "explain GF103"):
        assert part in err
    assert "\x1b" not in err


def test_an_unforeseen_error_is_our_bug_and_shows_no_traceback_unless_asked(
    gossipfl: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def handler(args: Namespace) -> output.Result:
        return {}["gone"]  # type: ignore[no-any-return]

    verb(monkeypatch, handler)
    code, _, err = gossipfl("explain")
    assert code == Exit.BUG
    assert "report" in err
    assert "Traceback" not in err
    code, _, err = gossipfl("explain", "-v")
    assert code == Exit.BUG
    assert "Traceback" in err


def test_ctrl_c_is_130(gossipfl: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def handler(args: Namespace) -> output.Result:
        raise KeyboardInterrupt

    verb(monkeypatch, handler)
    assert gossipfl("explain")[0] == 130


def test_colour_only_on_a_terminal_that_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    plain = Namespace(no_color=False, json=False)
    terminal: Any = Terminal()
    assert output.palette(plain, terminal).paint("x", "red") == "\x1b[31mx\x1b[0m"
    assert not output.palette(Namespace(no_color=True, json=False), terminal).enabled
    monkeypatch.setenv("NO_COLOR", "1")
    assert not output.palette(plain, terminal).enabled


def test_every_error_code_has_a_title_and_a_next_step(gossipfl: Call) -> None:
    for code, entry in ERRORS.items():
        assert entry.title
        assert entry.hint
        exit_code, out, _ = gossipfl("explain", code.lower())
        assert exit_code == 0
        assert entry.title in out
        assert entry.hint in out


def test_explain_lists_all_codes(gossipfl: Call) -> None:
    code, out, _ = gossipfl("explain")
    assert code == 0
    assert all(name in out for name in ERRORS)
