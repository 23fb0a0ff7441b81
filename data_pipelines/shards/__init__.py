"""Building a data set: its plan, its shards, their index, and how it goes on after an interruption."""
