"""The errors a user of the training library meets; entry points print them as one line, without a stack trace."""


class ConfigError(ValueError):
    """What was asked for is not possible, and the message says what is."""


class UnknownSettingError(ConfigError):
    """There is no such setting, and the message says which are spelt like it."""


class DivergedError(RuntimeError):
    """Training has left the finite numbers, and the message says where and what to try."""


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written, is damaged, or belongs to another model; the message says what to do."""
