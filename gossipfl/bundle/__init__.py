"""The training bundle: a signed job in plain ONNX, as a file of a few named parts.

Pure: bytes in, typed values out; no onnx and no onnxruntime. Whether the graphs inside may run is
`device_agent.bundles`'s question.
"""
