"""gossipfl: what two peers must agree on. Importing it pulls no network and no onnxruntime."""

__version__ = "0.1.0"
