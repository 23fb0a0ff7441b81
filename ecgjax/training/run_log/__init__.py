"""The log of a run: metrics as lines of JSON and as events of TensorBoard, on whatever disk."""
