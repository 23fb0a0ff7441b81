"""Reads GE MUSE's XML export, `RestingECG`.

A lead is base64 of little-endian int16 with a step size of its own. The document holds two waveforms, the median beat
and the rhythm; the rhythm is the recording. III, aVR, aVL and aVF are not stored, since they follow from I and II.

Not supported are samples of other sizes than two bytes, leads that start at different times, and a first-sample
baseline other than zero. The CRC-32 of a lead is not checked.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from data_pipelines.errors import RecordError
from data_pipelines.files.refusals import truncated_file, unreadable_header
from data_pipelines.metadata import recorder_fields
from data_pipelines.readers.xml.documents import (
    base64_bytes,
    check_count,
    check_number,
    find_all,
    local_name,
    needed_number,
    needed_rate,
    read_document,
    stacked,
    text_of,
)
from data_pipelines.recording import Recording

_UNITS = {"microvolts": "uV", "millivolts": "mV", "volts": "V"}

# Values that must be zero, or the samples would have other times or amplitudes than they seem to.
_ZEROES = ("LeadTimeOffset", "LeadOffsetFirstSample", "FirstSampleBaseline")


def read_muse(path: Path | str) -> Recording:
    """Reads the rhythm waveform of a MUSE export.

    Args:
        path: Path of the file.

    Returns:
        The recording, with the leads in the file's order.

    Raises:
        RecordError: The file is missing or cannot be read (`missing_file`, `unreadable_header`, `truncated_file`), or
            its metadata are incomplete, unknown or contradictory (`missing_metadata`, `missing_lead`, `wrong_unit`,
            `header_disagrees`).
    """
    path, source = Path(path), str(path)
    root = read_document(path)
    if local_name(root) != "RestingECG":
        raise unreadable_header(f"{path}: its root is {local_name(root)}, RestingECG expected")
    waveform = _rhythm(root, source)
    base = needed_rate(text_of(waveform, "SampleBase"), what="SampleBase", source=source)
    exponent = needed_number(text_of(waveform, "SampleExponent") or "0", what="SampleExponent", source=source)
    if exponent not in range(-6, 7):
        raise unreadable_header(f"{path}: SampleExponent is {exponent:g}, -6 to 6 expected")
    elements = find_all(waveform, "LeadData")
    check_count(text_of(waveform, "NumberofLeads"), len(elements), what="NumberofLeads", source=source)
    names = tuple(text_of(element, "LeadID") for element in elements)
    leads = [_lead(element, source) for element in elements]
    return Recording(
        source=source,
        signal=stacked(leads, names, source=source),
        sampling_rate_hz=base * 10**exponent,
        channels=names,
        units=tuple(_unit(element, source) for element in elements),
        **_known_fields(root, source)._asdict(),
    )


def _rhythm(root: Element, source: str) -> Element:
    waveforms = find_all(root, "Waveform")
    rhythms = [element for element in waveforms if text_of(element, "WaveformType").casefold() == "rhythm"]
    if len(rhythms) != 1:
        types = ", ".join(text_of(element, "WaveformType") or "nameless" for element in waveforms) or "none"
        raise unreadable_header(
            f"{source}: has {len(rhythms)} waveforms of WaveformType Rhythm (there are: {types}), one is needed; "
            "export the file again"
        )
    return rhythms[0]


def _name(element: Element) -> str:
    return f"lead {text_of(element, 'LeadID') or 'without LeadID'}"


def _lead(element: Element, source: str) -> np.ndarray:
    """Returns the samples of a lead in its unit, `f64[time]`."""
    name = _name(element)

    def stated(tag: str) -> dict[str, str]:
        return {"text": text_of(element, tag), "what": f"{tag} of {name}", "source": source}

    for zero in _ZEROES:
        check_number(0, **stated(zero))
    check_number(2, **stated("LeadSampleSize"))
    content = base64_bytes(**stated("WaveFormData"))
    if len(content) % 2:
        raise truncated_file(
            f"{source}: WaveFormData of {name} has {len(content)} bytes, two a sample expected; export the file again"
        )
    check_count(found=len(content), **stated("LeadByteCountTotal"))
    samples = np.frombuffer(content, "<i2")
    check_count(found=len(samples), **stated("LeadSampleCountTotal"))
    return samples * needed_rate(**stated("LeadAmplitudeUnitsPerBit"))


def _unit(element: Element, source: str) -> str:
    stated = text_of(element, "LeadAmplitudeUnits")
    if stated.casefold() not in _UNITS:
        raise RecordError(
            f"{source}: LeadAmplitudeUnits of {_name(element)} is '{stated}'; {', '.join(_UNITS).upper()} are known",
            reason="wrong_unit" if stated else "missing_metadata",
        )
    return _UNITS[stated.casefold()]


def _known_fields(root: Element, source: str) -> recorder_fields.RecorderFields:
    date, time = text_of(root, "TestDemographics/AcquisitionDate"), text_of(root, "TestDemographics/AcquisitionTime")
    acquired = recorder_fields.moment(f"{date} {time}", "%m-%d-%Y %H:%M:%S") or recorder_fields.moment(date, "%m-%d-%Y")
    age = recorder_fields.age_text(
        text_of(root, "PatientDemographics/PatientAge"), unit=text_of(root, "PatientDemographics/AgeUnits")
    )
    return recorder_fields.recorder_fields(
        source=source,
        patient_id=text_of(root, "PatientDemographics/PatientID"),
        sex=text_of(root, "PatientDemographics/Gender"),
        age=age,
        birth=recorder_fields.birth_date(text_of(root, "PatientDemographics/DateofBirth"), "%m-%d-%Y"),
        acquired=recorder_fields.StatedDate(date, acquired),
    )
