"""A found network in forms that others can use: Python source, PyTorch program, ONNX, JSON, text and drawings."""
