"""onnxruntime as this service uses it: CPU only, one thread, graphs from bytes, no telemetry.

The wheel for Linux has carried telemetry since 1.32 (a device id and event files under the home
folder, a thread). The switch must be set before the first import, so this is the one place of the
service that imports onnxruntime.
"""

from __future__ import annotations

import os
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime

FATAL = 4  # onnxruntime's log levels; what it refuses reaches us as an exception
THREADS = 1  # two were slower on a shared 2-core machine

Session = Any
"""onnxruntime.InferenceSession"""


def session(graph: bytes) -> Session:
    """A session on a graph that was validated. Raises onnxruntime's own errors."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.inter_op_num_threads = THREADS
    options.log_severity_level = FATAL
    options.enable_mem_pattern = False  # 6 MB less for a small CNN, and no slower
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
