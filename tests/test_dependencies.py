"""The device set: what `pip install gossipfl` drags in, held to an allow-list.

Every distribution here is code that runs beside a device's keys, so a new one is a decision: add
it to the list in the commit that needs it, and say why there.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ALLOWED = frozenset(
    {
        # declared by us
        *("aiohttp", "cryptography", "msgpack", "msgspec", "numpy", "onnx", "onnxruntime"),
        *("prometheus-client", "pynacl", "zeroconf"),
        # what those need: aiohttp
        *("aiohappyeyeballs", "aiosignal", "attrs", "frozenlist", "idna", "multidict"),
        *("propcache", "yarl"),
        # cryptography and pynacl
        *("cffi", "pycparser"),
        # onnx and onnxruntime
        *("flatbuffers", "ml-dtypes", "packaging", "protobuf", "typing-extensions"),
        # zeroconf
        "ifaddr",
    }
)


def closure(name: str) -> set[str]:
    """Distributions that `name` needs without extras, on this interpreter, itself excluded."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        try:
            requires = distribution(waiting.pop()).requires or []
        except PackageNotFoundError:  # a marker of another platform let it through: not installed
            continue
        for line in requires:
            requirement = Requirement(line)
            if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
                continue
            needed = canonicalize_name(requirement.name)
            if needed not in found:
                found.add(needed)
                waiting.append(needed)
    return found


def test_a_device_installs_only_what_is_on_the_list() -> None:
    dragged_in = closure("gossipfl")
    assert dragged_in <= ALLOWED, f"not on the list: {sorted(dragged_in - ALLOWED)}"


def test_the_walk_sees_what_is_needed_indirectly() -> None:
    dragged_in = closure("gossipfl")
    assert {"aiohttp", "multidict", "cffi"} <= dragged_in


def test_no_device_needs_torch_a_web_framework_or_a_data_frame() -> None:
    heavy = {"torch", "fastapi", "pydantic", "uvicorn", "pandas", "grpcio", "ray", "scikit-learn"}
    assert not heavy & closure("gossipfl")
