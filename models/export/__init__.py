"""Trained models as ONNX, as the service and Triton run them."""
