"""Building a data set: its plan, shards and index, and resuming after an interruption."""
