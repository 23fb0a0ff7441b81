"""Makes the errors that refuse a recording, each named after the reason under which a build quarantines it."""

from __future__ import annotations

import functools

from data_pipelines.errors import RecordError

unreadable_header = functools.partial(RecordError, reason="unreadable_header")
header_disagrees = functools.partial(RecordError, reason="header_disagrees")
missing_metadata = functools.partial(RecordError, reason="missing_metadata")
truncated_file = functools.partial(RecordError, reason="truncated_file")
missing_file = functools.partial(RecordError, reason="missing_file")
