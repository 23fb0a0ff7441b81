"""The card (description) of a data set: its figures, as rows, as text and as lines of a summary."""
