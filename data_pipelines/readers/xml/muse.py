"""Reads GE MUSE's XML export, `RestingECG`.

A lead is base64 of little-endian int16 with a step size of its own. The document holds two waveforms, the median beat
and the rhythm; the rhythm is the recording. III, aVR, aVL and aVF are not stored, since they follow from I and II.

Not supported are samples of other sizes than two bytes, leads that start at different times, and a first-sample
baseline other than zero. The CRC-32 of a lead is not checked.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data_pipelines.errors import RecordError
from data_pipelines.files.refusals import truncated_file, unreadable_header
from data_pipelines.metadata import recorder_fields
from data_pipelines.readers.xml.documents import Node, read_document, stacked
from data_pipelines.recording import Recording

_UNITS = {"microvolts": "uV", "millivolts": "mV", "volts": "V"}

# Values that must be zero, or the samples would have other times or amplitudes than they seem to.
_ZEROES = ("LeadTimeOffset", "LeadOffsetFirstSample", "FirstSampleBaseline")


def read_muse(path: Path | str | Node) -> Recording:
    """Reads the rhythm waveform of a MUSE export.

    Args:
        path: Path of the file, or its document where that is read already.

    Returns:
        The recording, with the leads in the file's order.

    Raises:
        RecordError: The file is missing or cannot be read (`missing_file`, `unreadable_header`, `truncated_file`), or
            its metadata are incomplete, unknown or contradictory (`missing_metadata`, `missing_lead`, `wrong_unit`,
            `header_disagrees`).
    """
    root = read_document(path)
    source = root.source
    if root.name != "RestingECG":
        raise unreadable_header(f"{source}: its root is {root.name}, RestingECG expected")
    waveform = _rhythm(root)
    base = waveform.rate(waveform.text("SampleBase"), "SampleBase")
    exponent = waveform.number(waveform.text("SampleExponent") or "0", "SampleExponent")
    if exponent not in range(-6, 7):
        raise unreadable_header(f"{source}: SampleExponent is {exponent:g}, -6 to 6 expected")
    elements = waveform.all("LeadData")
    waveform.check_count(waveform.text("NumberofLeads"), "NumberofLeads", found=len(elements))
    names = tuple(element.text("LeadID") for element in elements)
    return Recording(
        source=source,
        signal=stacked([_lead(element) for element in elements], names, source=source),
        sampling_rate_hz=base * 10**exponent,
        channels=names,
        units=tuple(_unit(element) for element in elements),
        **_known_fields(root)._asdict(),
    )


def _rhythm(root: Node) -> Node:
    waveforms = root.all("Waveform")
    rhythms = [element for element in waveforms if element.text("WaveformType").casefold() == "rhythm"]
    if len(rhythms) != 1:
        types = ", ".join(element.text("WaveformType") or "nameless" for element in waveforms) or "none"
        raise root.refused(f"has {len(rhythms)} waveforms of WaveformType Rhythm (there are: {types}), one is needed")
    return rhythms[0]


def _name(element: Node) -> str:
    return f"lead {element.text('LeadID') or 'without LeadID'}"


def _lead(element: Node) -> np.ndarray:
    """Returns the samples of a lead in its unit, `f64[time]`."""
    name = _name(element)

    def stated(tag: str) -> tuple[str, str]:
        return element.text(tag), f"{tag} of {name}"

    for zero in _ZEROES:
        element.check_number(*stated(zero), needed=0)
    element.check_number(*stated("LeadSampleSize"), needed=2)
    content = element.base64(*stated("WaveFormData"))
    if len(content) % 2:
        what = f"WaveFormData of {name} has {len(content)} bytes, two a sample expected"
        raise element.refused(what, truncated_file)
    element.check_count(*stated("LeadByteCountTotal"), found=len(content))
    samples = np.frombuffer(content, "<i2")
    element.check_count(*stated("LeadSampleCountTotal"), found=len(samples))
    return samples * element.rate(*stated("LeadAmplitudeUnitsPerBit"))


def _unit(element: Node) -> str:
    stated = element.text("LeadAmplitudeUnits")
    if stated.casefold() not in _UNITS:
        raise RecordError(
            f"{element.source}: LeadAmplitudeUnits of {_name(element)} is '{stated}'; {', '.join(_UNITS).upper()} are "
            "known",
            reason="wrong_unit" if stated else "missing_metadata",
        )
    return _UNITS[stated.casefold()]


def _known_fields(root: Node) -> recorder_fields.RecorderFields:
    date, time = root.text("TestDemographics/AcquisitionDate"), root.text("TestDemographics/AcquisitionTime")
    acquired = recorder_fields.moment(f"{date} {time}", "%m-%d-%Y %H:%M:%S") or recorder_fields.moment(date, "%m-%d-%Y")
    age = recorder_fields.age_text(
        root.text("PatientDemographics/PatientAge"), unit=root.text("PatientDemographics/AgeUnits")
    )
    return recorder_fields.recorder_fields(
        source=root.source,
        patient_id=root.text("PatientDemographics/PatientID"),
        sex=root.text("PatientDemographics/Gender"),
        age=age,
        birth=recorder_fields.birth_date(root.text("PatientDemographics/DateofBirth"), "%m-%d-%Y"),
        acquired=recorder_fields.StatedDate(date, acquired),
    )
