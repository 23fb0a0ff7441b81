"""Settings as frozen dataclasses: every leaf of a config with its type, default, meaning and bound in one place."""
