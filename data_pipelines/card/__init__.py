"""The card of a data set: its figures, as rows, as text, as lines of a summary."""
