"""Reads DICOM waveforms, 12-lead, general and ambulatory ECG, through pydicom.

Among the multiplex groups, the original one with most samples is the recording; derived ones, such as the median beat,
are not.

Not supported are transfer syntaxes other than implicit and explicit VR little endian (deflated and big endian files),
samples in µ-law or A-law, and leads in several groups. Skew between channels is not corrected.
"""

from __future__ import annotations

import dataclasses
import io
import math
import types
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset, read_preamble
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from data_pipelines.errors import RecordError
from data_pipelines.files.contents import MAX_BYTES, read_contents
from data_pipelines.files.refusals import header_disagrees, missing_metadata, truncated_file, unreadable_header
from data_pipelines.files.samples import converted
from data_pipelines.lead_names import standard_lead
from data_pipelines.metadata import recorder_fields
from data_pipelines.readers.dicom_structure import check_nesting
from data_pipelines.recording import Recording

_SYNTAXES = (ImplicitVRLittleEndian, ExplicitVRLittleEndian)

# Types of samples, by bits and interpretation.
_DTYPES: Mapping[tuple[int, str], str] = types.MappingProxyType(
    {(8, "SB"): "i1", (8, "UB"): "u1", (16, "SS"): "<i2", (16, "US"): "<u2", (32, "SL"): "<i4", (32, "UL"): "<u4"}
)

# SCP-ECG numbers the leads, and the codes of both SCPECG and MDC in DICOM (CID 3001) end with that number.
_LEAD_OF_NUMBER = types.MappingProxyType(
    {"1": "I", "2": "II", **{str(n + 2): f"V{n}" for n in range(1, 7)}}
    | {"61": "III", "62": "aVR", "63": "aVL", "64": "aVF"}
)
_CODE_PREFIX = types.MappingProxyType({"SCPECG": "5.6.3-9-", "MDC": "2:"})

_AGE_UNITS = ("Y", "M", "W", "D")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Channel:
    name: str
    unit: str
    sensitivity: float
    offset: float


def read_dicom(path: Path | str) -> Recording:
    """Reads the waveform of a DICOM file.

    Args:
        path: Path of the file.

    Returns:
        The recording, in the units of its channels' sensitivities. A channel that is coded as a standard lead has the
        name of that lead, and any other the meaning of its source's code. Samples with the padding value are NaN.

    Raises:
        RecordError: The file is missing or cannot be read (`missing_file`, `unreadable_header`, `truncated_file`), or
            its metadata are incomplete or contradictory (`missing_metadata`, `header_disagrees`).
    """
    path = Path(path)
    content = read_contents(path, max_bytes=MAX_BYTES)
    try:
        with warnings.catch_warnings():
            # pydicom warns of odd values anywhere in a file; those that matter are checked here.
            warnings.simplefilter("ignore")
            return _recording(content, path)
    except RecordError:
        raise
    except Exception as error:  # pydicom parses lazily and raises all sorts of errors.
        raise unreadable_header(
            f"{path}: cannot be read as a DICOM waveform ({type(error).__name__}: {error}); it is damaged or "
            "truncated: export it again"
        ) from error


def _recording(content: bytes, path: Path) -> Recording:
    source = str(path)
    # The syntax is checked before the rest is read, because a small deflated file can hold gigabytes.
    meta_information, start = _meta_information(content)
    if (syntax := meta_information.TransferSyntaxUID) not in _SYNTAXES:
        raise unreadable_header(
            f"{path}: its transfer syntax is {syntax.name}; read are {' and '.join(uid.name for uid in _SYNTAXES)}: "
            "convert it, for instance with dcmconv +te"
        )
    try:
        check_nesting(content, start, is_implicit=syntax == ImplicitVRLittleEndian)
    except ValueError as error:
        raise truncated_file(f"{path}: {error}; it is damaged or truncated: export it again") from error
    # The file is read from memory, because pydicom would allocate whatever length a damaged element of a file claims.
    dataset = pydicom.dcmread(io.BytesIO(content))
    group = _rhythm(dataset, source)
    digital = _samples(group, source)
    channels = _channels(group, source)
    sensitivity = np.array([channel.sensitivity for channel in channels])
    offset, padding = np.array([channel.offset for channel in channels]), _padding(group, digital.dtype)

    def physical(start: int, stop: int) -> np.ndarray:
        signal = digital[start:stop] * sensitivity + offset
        if padding is not None:
            signal[digital[start:stop] == padding] = np.nan
        return signal

    return Recording(
        source=source,
        signal=converted(digital.shape, physical),
        sampling_rate_hz=_number(group, "SamplingFrequency", source, positive=True),
        channels=tuple(channel.name for channel in channels),
        units=tuple(channel.unit for channel in channels),
        **_known_fields(dataset, source)._asdict(),
    )


def _meta_information(content: bytes) -> tuple[Dataset, int]:
    """Returns the elements ahead of the data set, and the position at which the data set begins."""
    file = io.BytesIO(content)
    read_preamble(file, force=False)
    elements = read_dataset(
        file, is_implicit_VR=False, is_little_endian=True, stop_when=lambda tag, vr, length: tag.group != 2
    )
    return elements, file.tell()


def _rhythm(dataset: Dataset, source: str) -> Dataset:
    groups = list(dataset.get("WaveformSequence") or ())
    # Groups of originality DERIVED, such as median beats, are computed of the others (DICOM PS3.3, C.10.9).
    if not (originals := [group for group in groups if group.get("WaveformOriginality") == "ORIGINAL"]):
        message = f"{source}: has {len(groups)} waveform groups, none of WaveformOriginality ORIGINAL; one is needed"
        raise unreadable_header(message)
    most = max(group.NumberOfWaveformSamples for group in originals)
    if len(longest := [group for group in originals if group.NumberOfWaveformSamples == most]) > 1:
        raise unreadable_header(
            f"{source}: has {len(longest)} original waveform groups of {most} samples; files with all leads in one "
            "group are read"
        )
    return longest[0]


def _samples(group: Dataset, source: str) -> np.ndarray:
    """Returns the encoded samples of a group, `[time, channel]`; their size is checked against the group's numbers."""
    encoding = int(group.WaveformBitsAllocated), str(group.WaveformSampleInterpretation)
    if encoding not in _DTYPES:
        raise unreadable_header(
            f"{source}: samples are of {encoding[0]} bits and interpretation {encoding[1]}; read are "
            f"{', '.join(f'{bits} {kind}' for bits, kind in _DTYPES)}"
        )
    dtype = np.dtype(_DTYPES[encoding])
    num_samples, num_channels = int(group.NumberOfWaveformSamples), int(group.NumberOfWaveformChannels)
    expected, data = num_samples * num_channels * dtype.itemsize, bytes(group.WaveformData)
    if expected == 0 or len(data) != expected + expected % 2:  # DICOM pads values to even lengths.
        raise RecordError(
            f"{source}: WaveformData has {len(data)} bytes, where {num_channels} channels of {num_samples} samples "
            f"have {expected}; export the file again",
            reason="truncated_file" if len(data) < expected else "header_disagrees",
        )
    return np.frombuffer(data[:expected], dtype).reshape(num_samples, num_channels)


def _padding(group: Dataset, dtype: np.dtype) -> int | None:
    value = group.get("WaveformPaddingValue")
    # Its type is OB or OW, so pydicom leaves the bytes as they are.
    if isinstance(value, bytes):
        return int(np.frombuffer(value[: dtype.itemsize], dtype)[0])
    return None if value is None else int(value)


def _channels(group: Dataset, source: str) -> list[_Channel]:
    definitions = list(group.get("ChannelDefinitionSequence") or ())
    if len(definitions) != int(group.NumberOfWaveformChannels):
        raise header_disagrees(
            f"{source}: defines {len(definitions)} channels where NumberOfWaveformChannels is "
            f"{group.NumberOfWaveformChannels}; export the file again"
        )
    return [_channel(definition, source) for definition in definitions]


def _channel(definition: Dataset, source: str) -> _Channel:
    name = _channel_name(definition, source)
    units = list(definition.get("ChannelSensitivityUnitsSequence") or ())
    unit = str(units[0].get("CodeValue") or "").strip() if len(units) == 1 else ""
    if not unit:
        message = f"{source}: channel {name} has no one unit in ChannelSensitivityUnitsSequence; export the file again"
        raise missing_metadata(message)
    sensitivity = _number(definition, "ChannelSensitivity", source)
    correction = _number(definition, "ChannelSensitivityCorrectionFactor", source, default=1.0)
    if sensitivity * correction == 0:
        raise unreadable_header(
            f"{source}: channel {name} has a ChannelSensitivity of {sensitivity:g} and a correction of "
            f"{correction:g}; neither can be 0"
        )
    # The baseline is in the units of the sensitivity and not in counts (DICOM PS3.3, C.10.9).
    offset = _number(definition, "ChannelBaseline", source, default=0.0)
    return _Channel(name=name, unit=unit, sensitivity=sensitivity * correction, offset=offset)


def _channel_name(definition: Dataset, source: str) -> str:
    """Returns the name of a standard lead if the source is coded as one, else the stated meaning of the code.

    The code takes precedence because makers embellish the meaning ('Lead I (Einthoven)').
    """
    sources = list(definition.get("ChannelSourceSequence") or ())
    if len(sources) != 1:
        raise missing_metadata(
            f"{source}: a channel has {len(sources)} items in ChannelSourceSequence, one is needed to know its lead"
        )
    meaning = str(sources[0].get("CodeMeaning") or "").strip()
    code, scheme = (str(sources[0].get(key) or "").strip() for key in ("CodeValue", "CodingSchemeDesignator"))
    prefix = _CODE_PREFIX.get(scheme)
    lead = _LEAD_OF_NUMBER.get(code.removeprefix(prefix)) if prefix and code.startswith(prefix) else None
    meant = standard_lead(meaning)
    if lead and meant and lead != meant:
        raise header_disagrees(
            f"{source}: a channel's source is coded as lead {lead} ({scheme} {code}) and named '{meaning}'; find out "
            "which it is"
        )
    return lead or meaning


def _number(item: Dataset, keyword: str, source: str, *, default: float | None = None, positive: bool = False) -> float:
    if (value := item.get(keyword)) is None or value == "":
        if default is None:
            raise missing_metadata(f"{source}: has no {keyword}; export the file again")
        return default
    number = float(value)
    if not math.isfinite(number) or abs(number) > 1e12 or (positive and number <= 0):
        kind = "number above zero" if positive else "number"
        raise unreadable_header(f"{source}: {keyword} is {value}, a {kind} is needed")
    return number


def _known_fields(dataset: Dataset, source: str) -> recorder_fields.RecorderFields:
    age = str(dataset.get("PatientAge") or "").strip()
    return recorder_fields.recorder_fields(
        source=source,
        patient_id=str(dataset.get("PatientID") or "").strip(),
        sex=str(dataset.get("PatientSex") or ""),
        age=recorder_fields.age_text(age[:-1], unit=age[-1:]) if age[-1:] in _AGE_UNITS else age,
        birth=recorder_fields.birth_date(str(dataset.get("PatientBirthDate") or "")),
        acquired=_acquired(dataset),
    )


def _acquired(dataset: Dataset) -> recorder_fields.StatedDate:
    """Returns when the recording began, from the most specific of the elements that may state it."""
    texts = [str(dataset.get("AcquisitionDateTime") or "")]
    for kind in ("Acquisition", "Content", "Study"):
        date, time = (str(dataset.get(f"{kind}{part}") or "") for part in ("Date", "Time"))
        texts += [date + time.partition(".")[0], date]
    moments = (recorder_fields.compact_moment(text) for text in texts)
    acquired = next((moment for moment in moments if moment is not None), None)
    return recorder_fields.StatedDate(next(filter(None, texts), ""), acquired)
