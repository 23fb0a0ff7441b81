"""Reads HL7 annotated ECG, the FDA's XML for ECGs of clinical trials (HL7 v3, ANSI/HL7 V3 ECG, R1-2004).

The common layout is supported: one rhythm series with one set of sequences. One of the sequences is the time, evenly
sampled (`GLIST_TS` or `GLIST_PQ` with an increment), and each of the others is a lead under its `MDC_ECG_LEAD_` code,
as a scaled list (`SLIST_PQ` with origin, scale and digits).

Not supported are derived series (representative beats), annotations, recordings in several sets or series, and lists of
plain integers (`SLIST_INT`) or of unevenly spaced times.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from data_pipelines.errors import RecordError
from data_pipelines.files.refusals import missing_metadata, unreadable_header
from data_pipelines.metadata import recorder_fields
from data_pipelines.readers.xml.documents import Node, read_document, stacked
from data_pipelines.recording import Recording

NAMESPACE = "urn:hl7-org:v3"
_LEAD_CODE = "MDC_ECG_LEAD_"
_TIME_CODES = ("TIME_ABSOLUTE", "TIME_RELATIVE")
_TYPE = "{http://www.w3.org/2001/XMLSchema-instance}type"
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
# A count has at most ten digits, because no converter has more than 32 bits.
_DIGITS = re.compile(r"[+-]?[0-9]{1,10}")

_SUBJECT = "componentOf/timepointEvent/componentOf/subjectAssignment/subject/trialSubject"
_PERSON = f"{_SUBJECT}/subjectDemographicPerson"


def read_aecg(path: Path | str | Node) -> Recording:
    """Reads the rhythm series of an annotated ECG.

    Args:
        path: Path of the file, or its document where that is read already.

    Returns:
        The recording; the leads are in the file's order and have their MDC codes as names.

    Raises:
        RecordError: The file is missing or cannot be read (`missing_file`, `unreadable_header`), or its metadata are
            incomplete or contradictory (`missing_metadata`, `missing_lead`, `header_disagrees`).
    """
    root = read_document(path)
    source = root.source
    if root.element.tag != f"{{{NAMESPACE}}}AnnotatedECG":
        raise unreadable_header(f"{source}: its root is {root.element.tag}, AnnotatedECG of {NAMESPACE} expected")
    series = _rhythm(root)
    set_of_sequences = series.only("component/sequenceSet")
    rate, leads, names, units = None, [], [], []
    for sequence in set_of_sequences.all("component/sequence"):
        code = sequence.attribute("code", "code")
        value = sequence.only("value")
        if code in _TIME_CODES:
            if rate is not None:
                raise unreadable_header(f"{source}: has two sequences of times, one expected")
            rate = _rate(value)
        elif code.startswith(_LEAD_CODE):
            samples, unit = _lead(value, code)
            leads.append(samples)
            names.append(code)
            units.append(unit)
        else:
            message = f"{source}: a sequence of code '{code}'; {_LEAD_CODE}… and {' or '.join(_TIME_CODES)} are known"
            raise unreadable_header(message)
    if rate is None:
        what = f"its rhythm series has no sequence of times ({' or '.join(_TIME_CODES)}), so its rate is not known"
        raise root.refused(what, missing_metadata)
    return Recording(
        source=source,
        signal=stacked(leads, names, source=source),
        sampling_rate_hz=rate,
        channels=tuple(names),
        units=tuple(units),
        **_known_fields(root, series)._asdict(),
    )


def _rhythm(root: Node) -> Node:
    series = root.all("component/series")
    if len(rhythms := [element for element in series if element.attribute("code", "code") == "RHYTHM"]) != 1:
        codes = ", ".join(element.attribute("code", "code") or "none" for element in series)
        said = f"codes of its series: {codes or 'no series'}"
        raise root.refused(f"has {len(rhythms)} series of code RHYTHM ({said}), one is needed")
    return rhythms[0]


def _check_type(value: Node, known: tuple[str, ...], *, what: str) -> None:
    # The type may have a namespace prefix.
    if (kind := value.element.get(_TYPE, "").rpartition(":")[2]) not in known:
        raise unreadable_header(f"{value.source}: {what} is of type '{kind}'; {' and '.join(known)} are read")


def _rate(value: Node) -> float:
    _check_type(value, ("GLIST_TS", "GLIST_PQ"), what="the sequence of times")
    increment = value.rate(value.attribute("increment", "value"), "increment of the times")
    if (unit := value.attribute("increment", "unit")) not in _SECONDS:
        message = f"{value.source}: increment of the times is in '{unit}'; {', '.join(_SECONDS)} are known"
        raise RecordError(message, reason="unreadable_header" if unit else "missing_metadata")
    # The quotient of decimal fractions may differ from the whole number by a rounding error.
    rate = 1 / (increment * _SECONDS[unit])
    return float(round(rate)) if abs(rate - round(rate)) < 1e-9 * rate else rate


def _lead(value: Node, code: str) -> tuple[np.ndarray, str]:
    """Returns the samples of a lead, `f64[time]`, and their unit."""
    _check_type(value, ("SLIST_PQ",), what=code)
    scale = value.number(value.attribute("scale", "value"), f"scale of {code}")
    origin = value.number(value.attribute("origin", "value"), f"origin of {code}")
    unit, unit_of_origin = value.attribute("scale", "unit"), value.attribute("origin", "unit")
    if not unit or (origin and unit != unit_of_origin):
        raise RecordError(
            f"{value.source}: scale of {code} is in '{unit}' and its origin in '{unit_of_origin}'; one unit is needed",
            reason="header_disagrees" if unit else "missing_metadata",
        )
    if scale == 0:
        raise value.refused(f"scale of {code} is 0")
    digits = value.text("digits").split()
    wrong = next((digit for digit in digits if not _DIGITS.fullmatch(digit)), None)
    if wrong is not None or not digits:
        raise value.refused(f"digits of {code} have '{(wrong or '')[:20]}' for a whole number")
    # Of HL7's type SLIST_PQ, each whole number stands for origin + scale · number.
    return origin + scale * np.array(digits, dtype=np.int64), unit


def _known_fields(root: Node, series: Node) -> recorder_fields.RecorderFields:
    began = series.attribute("effectiveTime/low", "value") or root.attribute("effectiveTime/low", "value")
    # An id consists of a root, which names the issuer, and an extension; some writers have only one of the two.
    patient = root.attribute(f"{_SUBJECT}/id", "extension") or root.attribute(f"{_SUBJECT}/id", "root")
    return recorder_fields.recorder_fields(
        source=root.source,
        patient_id=patient,
        sex=root.attribute(f"{_PERSON}/administrativeGenderCode", "code"),
        birth=recorder_fields.birth_date(root.attribute(f"{_PERSON}/birthTime", "value")),
        acquired=recorder_fields.StatedDate(began, recorder_fields.compact_moment(began)),
    )
