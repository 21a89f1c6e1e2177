"""What runs a finished network without torch's training code: OpenVINO, ONNX Runtime, and our packed runtime."""
