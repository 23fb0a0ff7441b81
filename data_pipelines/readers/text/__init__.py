"""Tables of samples as text."""
