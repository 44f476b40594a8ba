"""ONNX export of trained models, for the service and Triton."""
