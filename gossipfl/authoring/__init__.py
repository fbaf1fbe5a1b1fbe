"""Making bundles on a workstation (extra `[author]`): the only room that imports torch.

Nothing here runs on a device. A model becomes five standard ONNX graphs over one flat parameter
vector; each is compared with torch before anything is written.
"""
