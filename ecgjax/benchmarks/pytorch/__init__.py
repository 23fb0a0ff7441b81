"""Encoders of this library written once more in PyTorch, to compare speeds; nothing else imports PyTorch."""
