"""Placement of batch and parameters on devices: slices of a pod, layouts by name, and rules of one's own."""
