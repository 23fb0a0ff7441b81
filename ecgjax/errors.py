"""The errors of the training library that users meet; entry points print them as one line, without a stack trace."""


class ConfigError(ValueError):
    """A request is not possible; the message says what is possible."""


class UnknownSettingError(ConfigError):
    """There is no such setting; the message names those with a similar spelling."""


class DivergedError(RuntimeError):
    """A loss or a parameter is no longer finite; the message says where and what to try."""


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written, is damaged, or belongs to another model; the message says what to do."""
