"""The errors a user of the data pipelines meets: each names the file, the field and what to do about it."""


class DataError(ValueError):
    """Something about the data or how it was asked for is wrong, and the message says what to do.

    Entry points print the message without a stack trace. `reason` is a short, stable slug by which
    quarantined records are counted.

    Attributes:
        reason: slug such as `"missing_lead"`; see `RecordError` for those of single recordings.
    """

    def __init__(self, message: str, *, reason: str = "data_error"):
        super().__init__(message)
        self.reason = reason


class RecordError(DataError):
    """One recording cannot be stored; a build quarantines it under `reason` and goes on.

    Reasons in use: `missing_file`, `unreadable_header`, `header_disagrees`, `truncated_file`, `missing_lead`,
    `duplicate_lead`, `wrong_unit`, `wrong_rate`, `nan`, `flat_lead`, `out_of_range`, `too_short`,
    `broken_gain`, `einthoven`, `missing_patient`, `bad_label`, `duplicate_record`,
    `missing_metadata`, `wrong_format`, and for what no reader foresaw `unreadable_file`, `too_large`, `reader_error`.
    """
