"""Errors that users of the data pipelines see; each message names the file, the field and the remedy."""


class DataError(ValueError):
    """Something about the data, or about how it was asked for, is wrong; the message says what to do.

    Entry points print the message without a stack trace. `reason` is a short, stable slug by which
    quarantined records are counted.

    Attributes:
        reason: Slug such as `"missing_lead"`; `RecordError` lists those of single recordings.
    """

    def __init__(self, message: str, *, reason: str = "data_error"):
        super().__init__(message)
        self.reason = reason


class RecordError(DataError):
    """One recording cannot be stored; a build quarantines it under `reason` and goes on.

    Reasons in use are `missing_file`, `unreadable_header`, `header_disagrees`, `truncated_file`, `missing_lead`,
    `duplicate_lead`, `wrong_unit`, `wrong_rate`, `nan`, `flat_lead`, `out_of_range`, `too_short`, `broken_gain`,
    `einthoven`, `missing_patient`, `bad_label`, `duplicate_record`, `missing_metadata`, `wrong_format`, and for faults
    that no reader foresaw `unreadable_file`, `too_large` and `reader_error`.
    """
