"""Conversion of a trace to ONNX, which computes in float32."""
