"""Makes the errors by which recordings are quarantined; each function is named after the reason."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator

from data_pipelines.errors import RecordError

unreadable_header = functools.partial(RecordError, reason="unreadable_header")
header_disagrees = functools.partial(RecordError, reason="header_disagrees")
missing_metadata = functools.partial(RecordError, reason="missing_metadata")
truncated_file = functools.partial(RecordError, reason="truncated_file")
missing_file = functools.partial(RecordError, reason="missing_file")


@contextlib.contextmanager
def refusing(refusal: Callable[[str], RecordError], what: str, remedy: str) -> Iterator[None]:
    """Turns whatever a parser raises within the context into a `RecordError`.

    Args:
        refusal: Function that makes the error, such as `unreadable_header`.
        what: Beginning of the message, ahead of the parser's own.
        remedy: End of the message.

    Raises:
        RecordError: Anything was raised; a `RecordError` is left as it is.
    """
    try:
        yield
    except RecordError:
        raise
    except Exception as error:
        # Parsers check little: damage shows as an error of any type, from any depth of theirs.
        raise refusal(f"{what} ({error}); {remedy}") from error
