"""Reads Philips Sierra ECG XML (PageWriter and others), versions 1.03 to 1.04.02.

Waveforms are XLI-compressed: there is a chunk for each lead, which holds the high and then the low bytes of second
differences under LZW. Of the limb leads, only I and II are stored as such; of III, aVR, aVL and aVF, only the residuals
of Einthoven's and Goldberger's formulas are stored. The decompression is that of `sierraecg` (Watford,
github.com/sixlettervariables/sierra-ecg-tools). Its `read_file` is not used: it does not return the step size, it adds
limb leads in int16, where they overflow, and on a damaged chunk length it never ends.

Version 1.03 does not list its leads but names their set, and calls the step size `signalresolution`.

Not supported are waveforms that are not XLI-compressed, samples that are offset, unsigned or not of 16 bits, sets of
leads that are neither listed nor the standard twelve, and the representative beats.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sierraecg.xli import xli_decode

from data_pipelines.errors import RecordError
from data_pipelines.files import refusals
from data_pipelines.metadata import recorder_fields
from data_pipelines.readers.xml.documents import Node, read_document, stacked
from data_pipelines.recording import Recording
from data_pipelines.records import STANDARD_LEADS

DOCUMENT_TYPES = ("SierraECG", "PhilipsECG")
DOCUMENT_VERSIONS = ("1.03", "1.04", "1.04.01", "1.04.02")

#: Limb leads in the order in which their differences are defined.
_LIMB_LEADS = ("I", "II", "III", "aVR", "aVL", "aVF")

#: Values of `acquisitiontype` for which a document without `leadlabels` holds the standard leads in their order.
TWELVE_LEAD_SETS = ("STD-12", "10-WIRE")

# Recorders have this many channels and may write all of them, those beyond the named leads being empty.
_MAX_CHANNELS = 16

# Values that elements or attributes of the samples must have; other formats of samples are not converted.
_NEEDED_NUMBERS = {"signaloffset": 0, "bitspersample": 16, "nbitspersample": 16}

# A chunk begins with its size, a code for its kind and the predecessor of the first sample.
_CHUNK_HEADER = struct.Struct("<ihh")

# Longer recordings are refused, because the decompressor takes a second for a few hundred thousand samples.
_MAX_SAMPLES = 100_000

# Properties of the compression: the bits of a code, which stands for one or more bytes, and the code that ends a lead.
_CODE_BITS = 10
_END_CODE = 1023


def read_philips(path: Path | str | Node) -> Recording:
    """Reads the parsed waveforms of a Sierra ECG document.

    Args:
        path: Path of the file, or its document where that is read already.

    Returns:
        The recording in µV, with the leads in the file's order.

    Raises:
        RecordError: The file is missing or cannot be read (`missing_file`, `unreadable_header`, `truncated_file`), or
            its metadata are incomplete or contradictory (`missing_metadata`, `missing_lead`, `header_disagrees`).
    """
    root = read_document(path)
    source = root.source
    if root.name != "restingecgdata":
        raise refusals.unreadable_header(f"{source}: its root is {root.name}, restingecgdata expected")
    _check_version(root)
    signal = root.only("dataacquisition/signalcharacteristics")
    waveforms = root.only("waveforms/parsedwaveforms")
    _check_sample_format(signal, waveforms)
    rate = _stated_once(signal, waveforms, ("samplingrate", "samplespersecond"))
    resolution = "signalresolution" if signal.text("signalresolution") else "resolution"
    step = _stated_once(signal, waveforms, (resolution, "resolution"))
    names = _lead_names(signal, waveforms)
    leads = dict(zip(names, _unpacked(waveforms, names, _num_samples(waveforms, rate), rate), strict=True))
    # The other leads are stored as they are; only these four are differences.
    leads.update(_limb_leads(leads))
    return Recording(
        source=source,
        signal=stacked([leads[name] for name in names], names, source=source) * step,
        sampling_rate_hz=rate,
        channels=names,
        units=("uV",) * len(names),
        **_known_fields(root)._asdict(),
    )


def _check_version(root: Node) -> None:
    document = root.text("documentinfo/documenttype"), root.text("documentinfo/documentversion")
    if document[0] not in DOCUMENT_TYPES or document[1] not in DOCUMENT_VERSIONS:
        raise refusals.unreadable_header(
            f"{root.source}: a document of type '{document[0]}' and version '{document[1]}'; read are "
            f"{' and '.join(DOCUMENT_TYPES)}, {', '.join(DOCUMENT_VERSIONS)}"
        )


def _check_sample_format(signal: Node, waveforms: Node) -> None:
    for name, needed in _NEEDED_NUMBERS.items():
        for text in (signal.text(name), waveforms.element.get(name, "")):
            signal.check_number(text, name, needed=needed)
    for text in (signal.text("signalsigned"), waveforms.element.get("signalsigned", "")):
        if text.casefold() not in ("", "true"):
            message = f"{signal.source}: signalsigned is '{text[:20]}'; only files where it is True are read"
            raise refusals.unreadable_header(message)


def _stated_once(signal: Node, waveforms: Node, names: tuple[str, str]) -> float:
    """Returns a number that stands in an element of the acquisition and, in later versions, also in an attribute.

    Args:
        signal: Element `signalcharacteristics`.
        waveforms: Element `parsedwaveforms`.
        names: Name of the element within the first, and of the attribute of the second.

    Raises:
        RecordError: The number is missing (`missing_metadata`), no number above zero (`unreadable_header`), or differs
            between the two (`header_disagrees`).
    """
    element, attribute = names
    value = signal.rate(signal.text(element), f"signalcharacteristics/{element}")
    again = waveforms.element.get(attribute, "")
    if again and waveforms.number(again, f"parsedwaveforms {attribute}") != value:
        what = f"{element} is {value:g} in signalcharacteristics and {again} in parsedwaveforms"
        raise signal.refused(what, refusals.header_disagrees)
    return value


def _lead_names(signal: Node, waveforms: Node) -> tuple[str, ...]:
    listed = waveforms.element.get("leadlabels", "").split()
    lead_set = signal.text("acquisitiontype")
    if not listed and lead_set not in TWELVE_LEAD_SETS:
        raise refusals.missing_metadata(
            f"{signal.source}: parsedwaveforms has no leadlabels, and acquisitiontype is '{lead_set[:40]}', where "
            f"{' or '.join(TWELVE_LEAD_SETS)} would tell its leads; export the file again"
        )
    names = tuple(listed) or STANDARD_LEADS
    waveforms.check_count(waveforms.element.get("numberofleads", ""), "numberofleads", found=len(names))
    if names[: len(_LIMB_LEADS)] != _LIMB_LEADS or len(set(names)) < len(names):
        raise RecordError(
            f"{signal.source}: leadlabels are '{' '.join(names)[:100]}'; {' '.join(_LIMB_LEADS)} must come first, as "
            "III to aVF are stored as differences to the others",
            reason="missing_lead",
        )
    return names


def _num_samples(waveforms: Node, rate: float) -> int:
    duration = waveforms.rate(waveforms.element.get("durationperchannel", ""), "durationperchannel")
    samples = duration / 1000 * rate
    if not 2 < samples <= _MAX_SAMPLES or samples != round(samples):
        raise refusals.unreadable_header(
            f"{waveforms.source}: durationperchannel is {duration:g} ms, {samples:g} samples at {rate:g} Hz; a whole "
            f"number to {_MAX_SAMPLES} is read"
        )
    return round(samples)


def _unpacked(waveforms: Node, names: Sequence[str], num_samples: int, rate: float) -> list[np.ndarray]:
    """Returns the decompressed numbers of each lead, `i64[time]`; for III, aVR, aVL and aVF these are differences."""
    source, attributes = waveforms.source, waveforms.element.attrib
    encoding = attributes.get("dataencoding", "")
    method = attributes.get("compressmethod") or attributes.get("compression") or "none"
    if attributes.get("compressflag", "True") != "True":
        method = "none"
    if (encoding, method) != ("Base64", "XLI"):
        raise refusals.unreadable_header(
            f"{source}: waveforms are encoded as '{encoding}' and compressed by '{method}'; Base64 and XLI are read"
        )
    content = waveforms.base64(waveforms.element.text or "", "parsedwaveforms")
    chunks = _chunks(content, num_samples, rate, source)
    if not len(names) <= len(chunks) <= max(len(names), _MAX_CHANNELS):
        what = f"holds {len(chunks)} compressed leads where it names {len(names)}"
        raise waveforms.refused(what, refusals.header_disagrees)
    leads = []
    for name, chunk in zip(names, chunks, strict=False):
        _check_codes(chunk[_CHUNK_HEADER.size :], name, source)
        # sierraecg raises IndexError, OverflowError, ValueError …
        what = f"{source}: lead {name} does not decompress"
        with refusals.refusing(refusals.truncated_file, what, "it is damaged: export the file again"):
            (lead,) = xli_decode(chunk, [name])
        if len(lead) != num_samples:
            raise refusals.truncated_file(
                f"{source}: lead {name} decompresses to {len(lead)} samples, durationperchannel says {num_samples} at "
                f"the samplingrate of {rate:g} Hz; at {rate * len(lead) / num_samples:g} Hz they would agree. Export "
                "the file again"
            )
        leads.append(lead.astype(np.int64))
    return leads


def _check_codes(compressed: bytes, name: str, source: str) -> None:
    """Raises `RecordError` for a lead with an undefined code, which sierraecg's decoder would decode as a repetition.

    Args:
        compressed: Compressed samples of the lead, without the chunk's header.
        name: Name of the lead, for messages.
        source: Name of the file, for messages.
    """
    bits = np.unpackbits(np.frombuffer(compressed, np.uint8))
    codes = bits[: len(bits) // _CODE_BITS * _CODE_BITS].reshape(-1, _CODE_BITS) @ (1 << np.arange(_CODE_BITS)[::-1])
    codes = codes[: int((np.append(codes, _END_CODE) >= _END_CODE).argmax())]
    number = np.arange(len(codes))
    # Every code after the first adds a string to the table, and may stand for the very string that it adds.
    known = np.minimum(256 + np.maximum(number - 1, 0), _END_CODE)
    unknown = (codes > known) | ((codes == known) & (number == 0))
    if unknown.any():
        raise refusals.truncated_file(
            f"{source}: lead {name} does not decompress (code {codes[unknown.argmax()]} is not defined yet); it is "
            "damaged: export the file again"
        )


def _chunks(content: bytes, num_samples: int, rate: float, source: str) -> list[bytes]:
    """Splits the data into compressed leads, each with its header.

    Raises:
        RecordError: A lead claims more bytes than are left, or than its samples can need (`truncated_file`).
    """
    # The largest lead has a code for each byte of its samples and one to end them.
    most = 2 * num_samples * _CODE_BITS // 8 + 8
    chunks: list[bytes] = []
    offset = 0
    while offset < len(content):
        left = len(content) - offset - _CHUNK_HEADER.size
        size = _CHUNK_HEADER.unpack_from(content, offset)[0] if left >= 0 else 0
        if not 0 <= size <= min(most, left):
            raise refusals.truncated_file(
                f"{source}: compressed lead {len(chunks) + 1} is to have {size} bytes, where {left} are left and "
                f"{most} are the most for {num_samples} samples at {rate:g} Hz; it is damaged, or the file states a "
                "rate or duration that is not its own: export it again"
            )
        end = offset + _CHUNK_HEADER.size + size
        chunks.append(content[offset:end])
        offset = end
    return chunks


def _limb_leads(stored: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns III, aVR, aVL and aVF, `i64[time]` each, from I, II and the stored differences.

    Halves are rounded down, as the recorder did.
    """
    one, two = stored["I"], stored["II"]
    three = two - one - stored["III"]
    return {
        "III": three,
        "aVR": -stored["aVR"] - (one + two) // 2,
        "aVL": (one - three) // 2 - stored["aVL"],
        "aVF": (two + three) // 2 - stored["aVF"],
    }


def _known_fields(root: Node) -> recorder_fields.RecorderFields:
    date, time = (root.attribute("dataacquisition", name) for name in ("date", "time"))
    acquired = recorder_fields.moment(f"{date} {time}", "%Y-%m-%d %H:%M:%S") or recorder_fields.moment(date, "%Y-%m-%d")
    patient = "patient/generalpatientdata"
    return recorder_fields.recorder_fields(
        source=root.source,
        patient_id=root.text(f"{patient}/patientid"),
        sex=root.text(f"{patient}/sex"),
        age=recorder_fields.age_text(root.text(f"{patient}/age/years"), unit="years"),
        birth=recorder_fields.birth_date(root.text(f"{patient}/age/dateofbirth")),
        acquired=recorder_fields.StatedDate(date, acquired),
    )
