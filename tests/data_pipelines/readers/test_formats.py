"""Recorders' own files: GE MUSE, Philips, HL7 aECG and DICOM, what is read of them and what is refused.

Samples are compared with the counts that the files were written from, or with decodings by other code.
"""

import base64
import re

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

from data_pipelines.errors import DataError, RecordError
from data_pipelines.readers import dicom_files
from data_pipelines.readers.dicom_files import read_dicom
from data_pipelines.readers.formats import find_recordings, read_recording
from data_pipelines.readers.xml import documents
from data_pipelines.readers.xml.hl7_aecg import read_aecg
from data_pipelines.readers.xml.muse import read_muse
from data_pipelines.readers.xml.philips import read_philips
from data_pipelines.readers.xml.vendors import read_vendor_xml
from data_pipelines.records import STANDARD_LEADS, STORED_LEADS
from data_pipelines.signals.conversion import stored_signal
from data_pipelines.signals.recipe import SignalRecipe
from data_pipelines.statements.declared import Declared
from tests.data_pipelines.readers.vendor_files import (
    STORED_COLUMNS,
    aecg_xml,
    counts_of,
    muse_xml,
    philips_xml,
    write_dicom,
)
from tests.support.fixtures import twelve_lead_mv, write_wfdb

MUSE_COUNTS = counts_of(microvolts=4.88)[:, STORED_COLUMNS]
MUSE = muse_xml(MUSE_COUNTS)
AECG_COUNTS = counts_of(microvolts=2.5)
AECG = aecg_xml(AECG_COUNTS)
PHILIPS_COUNTS = counts_of(microvolts=5)
PHILIPS = philips_xml(PHILIPS_COUNTS)
RHYTHM = MUSE.index("<WaveformType>Rhythm")


def write(folder, text, name="record.xml"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def refused(read, path, reason, message):
    with pytest.raises(RecordError, match=message) as caught:
        read(path)
    assert caught.value.reason == reason
    assert path.name in str(caught.value)


def in_rhythm(old, new):
    """Replaces the first match after the start of MUSE's rhythm waveform."""
    head, tail = MUSE[:RHYTHM], MUSE[RHYTHM:]
    changed = re.sub(old, new, tail, count=1, flags=re.DOTALL)
    assert changed != tail
    return head + changed


def changed(text, old, new):
    result = re.sub(old, new, text, count=1, flags=re.DOTALL)
    assert result != text
    return result


# GE MUSE


def test_muse(tmp_path):
    recording = read_muse(write(tmp_path, MUSE))
    np.testing.assert_allclose(recording.signal, MUSE_COUNTS * 4.88, rtol=0, atol=1e-9)
    assert recording.sampling_rate_hz == 500.0
    assert recording.channels == STORED_LEADS
    assert recording.units == ("uV",) * 8
    assert recording.fields == {
        "Patient ID": "P-17",
        "Age": "61",
        "Sex": "female",
        "Acquired": "2011-12-31T14:05:59",
    }


def test_muse_is_stored_to_the_microvolt(tmp_path):
    counts = counts_of(microvolts=4.88, seconds=10)[:, STORED_COLUMNS]
    recording = read_muse(write(tmp_path, muse_xml(counts)))
    recipe = SignalRecipe(name="test", version=1, sampling_rate_hz=500)
    stored = stored_signal(recording, recipe=recipe)
    np.testing.assert_array_equal(stored.signal, np.rint(counts * 4.88))


def test_muse_age_from_the_date_of_birth_and_rate_with_exponent(tmp_path):
    text = changed(MUSE, "<PatientAge>61</PatientAge>", "")
    head, tail = text[: text.index("<WaveformType>Rhythm")], text[text.index("<WaveformType>Rhythm") :]
    tail = tail.replace("<SampleBase>500", "<SampleBase>5").replace("<SampleExponent>0", "<SampleExponent>2")
    recording = read_muse(write(tmp_path, head + tail))
    assert recording.fields["Age"] == "61"
    assert recording.sampling_rate_hz == 500.0


@pytest.mark.parametrize(
    ("text", "reason", "message"),
    [
        (MUSE[: len(MUSE) // 2], "unreadable_header", "not well-formed XML .* truncated"),
        (
            MUSE.replace("<WaveformType>Rhythm", "<WaveformType>Other"),
            "unreadable_header",
            "0 waveforms of WaveformType Rhythm .there are: Median, Other.",
        ),
        (MUSE.replace("<WaveformType>Median", "<WaveformType>Rhythm"), "unreadable_header", "2 waveforms of"),
        (in_rhythm("<LeadData>.*</LeadData>", ""), "header_disagrees", "NumberofLeads is 8, but it holds 0"),
        (in_rhythm("<LeadData>.*?</LeadData>", ""), "header_disagrees", "NumberofLeads is 8, but it holds 7"),
        (in_rhythm("<NumberofLeads>.*</LeadData>", ""), "missing_metadata", "does not state its SampleBase"),
        (in_rhythm("<SampleBase>500", "<SampleBase>fast"), "unreadable_header", "SampleBase is 'fast', a number"),
        (in_rhythm("<SampleBase>500", "<SampleBase>5_00"), "unreadable_header", "SampleBase is '5_00', a number"),
        (in_rhythm("<SampleBase>500", "<SampleBase>0"), "unreadable_header", "SampleBase is '0', it must be above"),
        (in_rhythm("<SampleExponent>0", "<SampleExponent>99"), "unreadable_header", "SampleExponent is 99"),
        (in_rhythm("PerBit>4.88<", "PerBit>nan<"), "unreadable_header", "UnitsPerBit of lead I is 'nan'"),
        (
            in_rhythm("<LeadAmplitudeUnitsPerBit>4.88</LeadAmplitudeUnitsPerBit>", ""),
            "missing_metadata",
            "LeadAmplitudeUnitsPerBit of lead I",
        ),
        (in_rhythm("MICROVOLTS", "FURLONGS"), "wrong_unit", "'FURLONGS'; MICROVOLTS, MILLIVOLTS, VOLTS are known"),
        (in_rhythm("<LeadAmplitudeUnits>MICROVOLTS</LeadAmplitudeUnits>", ""), "missing_metadata", "of lead I is ''"),
        (in_rhythm("<LeadSampleSize>2", "<LeadSampleSize>4"), "unreadable_header", "LeadSampleSize of lead I is 4"),
        (in_rhythm("<LeadTimeOffset>0", "<LeadTimeOffset>8"), "unreadable_header", "LeadTimeOffset of lead I is 8"),
        (
            in_rhythm("<FirstSampleBaseline>0", "<FirstSampleBaseline>5"),
            "unreadable_header",
            "only files where it is 0",
        ),
        (in_rhythm("<WaveFormData>.", "<WaveFormData>%%"), "truncated_file", "WaveFormData of lead I is not base64"),
        (in_rhythm("<WaveFormData>.*?</WaveFormData>", ""), "truncated_file", "WaveFormData of lead I is empty"),
        (
            in_rhythm("<WaveFormData>.*?</Wave", "<WaveFormData>AAAA</Wave"),
            "truncated_file",
            "has 3 bytes, two a sample",
        ),
        (
            in_rhythm("<WaveFormData>.*?</Wave", "<WaveFormData>AAAAAAAA</Wave"),
            "header_disagrees",
            "LeadByteCountTotal of lead I is 2000, but it holds 6",
        ),
        (
            re.sub(
                "<LeadByteCountTotal>.*?</LeadSampleCountTotal>",
                "",
                in_rhythm("<WaveFormData>.*?</Wave", "<WaveFormData>AAAAAAAA</Wave"),
                flags=re.DOTALL,
            ),
            "header_disagrees",
            "leads of unequal length .I 3, II 1000, V1 1000",
        ),
        (
            MUSE.replace("RestingECG>", "Other>").replace("!DOCTYPE RestingECG", "!DOCTYPE Other"),
            "unreadable_header",
            "its root is Other",
        ),
    ],
)
def test_damaged_muse(tmp_path, text, reason, message):
    refused(read_muse, write(tmp_path, text), reason, message)


# HL7 aECG


@pytest.mark.parametrize("origin", [0.0, -12.5])
def test_aecg(tmp_path, origin):
    recording = read_aecg(write(tmp_path, aecg_xml(AECG_COUNTS, origin=origin)))
    np.testing.assert_allclose(recording.signal, AECG_COUNTS * 2.5 + origin, rtol=0, atol=1e-9)
    assert recording.sampling_rate_hz == 500.0
    assert recording.channels == tuple(f"MDC_ECG_LEAD_{lead.upper()}" for lead in STANDARD_LEADS)
    assert recording.units == ("uV",) * 12
    assert recording.fields == {
        "Patient ID": "20044",
        "Age": "32",
        "Sex": "female",
        "Acquired": "2008-12-23T19:44:46",
    }


@pytest.mark.parametrize(("increment", "rate"), [("0.001", 1000.0), ("0.0025", 400.0), ("0.00390625", 256.0)])
def test_aecg_rates(tmp_path, increment, rate):
    assert read_aecg(write(tmp_path, aecg_xml(AECG_COUNTS, increment=increment))).sampling_rate_hz == rate


def test_aecg_with_relative_times_in_milliseconds(tmp_path):
    text = changed(AECG, '"0.002" unit="s"', '"2" unit="ms"').replace("TIME_ABSOLUTE", "TIME_RELATIVE")
    assert read_aecg(write(tmp_path, text.replace("GLIST_TS", "GLIST_PQ"))).sampling_rate_hz == 500.0


@pytest.mark.parametrize(
    ("text", "reason", "message"),
    [
        (AECG[:5000], "unreadable_header", "not well-formed XML"),
        (AECG.replace("urn:hl7-org:v3", "urn:other"), "unreadable_header", "AnnotatedECG of urn:hl7-org:v3 expected"),
        (
            changed(AECG, '"RHYTHM"', '"OTHER"'),
            "unreadable_header",
            "0 series of code RHYTHM .codes of its series: OTH",
        ),
        (
            changed(AECG, "<sequenceSet>.*?</sequenceSet>", ""),
            "unreadable_header",
            "has 0 elements component/sequenceSet",
        ),
        (changed(AECG, "<component><sequence>.*?</component>", ""), "missing_metadata", "no sequence of times"),
        (changed(AECG, '<increment value="0.002"', "<increment"), "missing_metadata", "increment of the times"),
        (changed(AECG, '<increment value="0.002"', '<increment value="0"'), "unreadable_header", "must be above zero"),
        (changed(AECG, '"0.002" unit="s"', '"0.002" unit="fortnight"'), "unreadable_header", "is in 'fortnight'"),
        (changed(AECG, '"0.002" unit="s"', '"0.002"'), "missing_metadata", "increment of the times is in ''"),
        (changed(AECG, "SLIST_PQ", "SLIST_INT"), "unreadable_header", "MDC_ECG_LEAD_I is of type 'SLIST_INT'"),
        (changed(AECG, "GLIST_TS", "SLIST_PQ"), "unreadable_header", "the sequence of times is of type 'SLIST_PQ'"),
        (changed(AECG, '<scale value="2.5" unit="uV"/>', ""), "missing_metadata", "its scale of MDC_ECG_LEAD_I"),
        (changed(AECG, '<scale value="2.5"', '<scale value="0"'), "unreadable_header", "scale of MDC_ECG_LEAD_I is 0"),
        (changed(AECG, '<scale value="2.5" unit="uV"', '<scale value="2.5"'), "missing_metadata", "is in ''"),
        (changed(AECG, '<origin value="0.0" unit="uV"', '<origin value="3" unit="mV"'), "header_disagrees", "in 'mV'"),
        (changed(AECG, "<digits>", "<digits>x "), "unreadable_header", "digits of MDC_ECG_LEAD_I have 'x'"),
        (changed(AECG, "<digits>", "<digits>NaN "), "unreadable_header", "digits of MDC_ECG_LEAD_I have 'NaN'"),
        (changed(AECG, "<digits>", "<digits>1_0 "), "unreadable_header", "digits of MDC_ECG_LEAD_I have '1_0'"),
        (changed(AECG, "<digits>[^<]*", "<digits>"), "unreadable_header", "digits of MDC_ECG_LEAD_I have ''"),
        (
            changed(AECG, "<digits>", "<digits>7 "),
            "header_disagrees",
            "unequal length .MDC_ECG_LEAD_I 1001, MDC_ECG_LEAD_II",
        ),
        (changed(AECG, "MDC_ECG_LEAD_V2", "MDC_PRESS"), "unreadable_header", "a sequence of code 'MDC_PRESS'"),
    ],
)
def test_damaged_aecg(tmp_path, text, reason, message):
    refused(read_aecg, write(tmp_path, text), reason, message)


# Philips


def test_philips(tmp_path):
    recording = read_philips(write(tmp_path, PHILIPS))
    np.testing.assert_array_equal(recording.signal, PHILIPS_COUNTS * 5.0)
    assert recording.sampling_rate_hz == 500.0
    assert recording.channels == STANDARD_LEADS
    assert recording.units == ("uV",) * 12
    assert recording.fields == {
        "Patient ID": "S-5",
        "Age": "63",
        "Sex": "male",
        "Acquired": "2012-02-29T08:15:00",
    }


def test_philips_limb_leads_that_overflow_sixteen_bits(tmp_path):
    counts = PHILIPS_COUNTS.copy()
    counts[500:, :6] = 20_000, -20_000, -32_000, 0, 26_000, -26_000
    np.testing.assert_array_equal(read_philips(write(tmp_path, philips_xml(counts))).signal, counts * 5.0)


def philips_data(change):
    """Changes the bytes of the compressed waveforms."""
    (text,) = re.findall(r">([A-Za-z0-9+/=]{100,})<", PHILIPS)
    return PHILIPS.replace(text, base64.b64encode(change(bytearray(base64.b64decode(text)))).decode())


@pytest.mark.parametrize(
    ("text", "reason", "message"),
    [
        (PHILIPS[:3000], "unreadable_header", "not well-formed XML"),
        (PHILIPS.replace("1.04<", "2.00<"), "unreadable_header", "version '2.00'; read are SierraECG and PhilipsECG"),
        (PHILIPS.replace('"XLI"', '"ZIP"'), "unreadable_header", "compressed by 'ZIP'; Base64 and XLI are read"),
        (PHILIPS.replace(' compressmethod="XLI"', ""), "unreadable_header", "compressed by 'none'"),
        (PHILIPS.replace("<resolution>5</resolution>", ""), "missing_metadata", "signalcharacteristics/resolution"),
        (PHILIPS.replace("<samplingrate>500", "<samplingrate>x"), "unreadable_header", "samplingrate is 'x'"),
        (
            PHILIPS.replace('numberofleads="12"', 'numberofleads="12" resolution="4"'),
            "header_disagrees",
            "resolution is 5 in signalcharacteristics and 4 in parsedwaveforms",
        ),
        (PHILIPS.replace('numberofleads="12"', 'numberofleads="11"'), "header_disagrees", "numberofleads is 11"),
        (
            PHILIPS.replace("leadlabels", "labels").replace("STD-12", "STD-16"),
            "missing_metadata",
            "no leadlabels, and acquisitiontype is 'STD-16'",
        ),
        (PHILIPS.replace('"I II III', '"II I III'), "missing_lead", "I II III aVR aVL aVF must come first"),
        (
            PHILIPS.replace('durationperchannel="2000"', 'durationperchannel="1e9"'),
            "unreadable_header",
            "100000 is read",
        ),
        (
            PHILIPS.replace('durationperchannel="2000"', 'durationperchannel="1998"'),
            "truncated_file",
            "lead I decompresses to 1000 samples, durationperchannel says 999",
        ),
        (
            changed(PHILIPS, "<signalcharacteristics>.*</signalcharacteristics>", ""),
            "unreadable_header",
            "has 0 elements dataacquisition/signalcharacteristics",
        ),
        (philips_data(lambda data: data[:-100]), "truncated_file", "compressed lead 12 is to have"),
        # sierraecg's own loop never ends on this one.
        (
            philips_data(lambda data: (-8).to_bytes(4, "little", signed=True) + data[4:]),
            "truncated_file",
            "compressed lead 1 is to have -8 bytes",
        ),
        (
            # The second code, bits 10 to 19 of the first lead, is one that no string has yet.
            philips_data(lambda data: data[:9] + bytes([data[9] & 0xC0 | 0x3E, 0x80 | data[10] & 0x0F]) + data[11:]),
            "truncated_file",
            r"lead I does not decompress \(code 1000 is not defined yet\)",
        ),
        (
            philips_data(lambda data: data[:8] + bytes([255]) + data[9:]),
            "truncated_file",
            "decompresses to 0 samples|does",
        ),
        (changed(PHILIPS, ">[A-Za-z0-9+/=]{100,}<", ">%<"), "truncated_file", "parsedwaveforms is not base64"),
    ],
)
def test_damaged_philips(tmp_path, text, reason, message):
    refused(read_philips, write(tmp_path, text), reason, message)


# XML in general


@pytest.mark.parametrize("text", [MUSE, AECG, PHILIPS])
def test_the_root_element_chooses_the_reader(tmp_path, text):
    assert len(read_vendor_xml(write(tmp_path, text)).signal) == 1000


def test_other_documents(tmp_path):
    refused(read_vendor_xml, write(tmp_path, "<html/>"), "unreadable_header", "its root element is 'html'; the docum")
    refused(read_vendor_xml, tmp_path / "none.xml", "missing_file", "cannot be read")


def test_files_larger_than_any_recording(tmp_path, monkeypatch):
    path = write(tmp_path, "x" * 101)
    monkeypatch.setattr(documents, "MAX_BYTES", 100)
    refused(read_vendor_xml, path, "unreadable_header", r"record\.xml: 101 bytes, more than any ECG takes as XML$")
    monkeypatch.setattr(dicom_files, "MAX_BYTES", 100)
    refused(read_dicom, path, "unreadable_header", r"record\.xml: 101 bytes, more than any ECG takes$")


@pytest.mark.parametrize(
    "entity", ['<!ENTITY a "aaaa">', '<!ENTITY a SYSTEM "file:///etc/hostname">', '<!ENTITY % a SYSTEM "x.dtd"> %a;']
)
def test_entities_are_not_expanded(tmp_path, entity):
    text = MUSE.replace('SYSTEM "restecg.dtd"', f"[{entity}]").replace("P-17", "&a;" if "%" not in entity else "")
    refused(read_vendor_xml, write(tmp_path, text), "unreadable_header", "defines an entity")


def test_an_unknown_encoding(tmp_path):
    text = MUSE.replace("ISO-8859-1", "EBCDIC-37")
    refused(read_vendor_xml, write(tmp_path, text), "unreadable_header", "not well-formed XML")


# DICOM


@pytest.mark.parametrize("baseline", [0.0, 7.5])
def test_dicom(tmp_path, baseline):
    write_dicom(tmp_path / "a.dcm", AECG_COUNTS, baseline=baseline)
    recording = read_dicom(tmp_path / "a.dcm")
    np.testing.assert_allclose(recording.signal, AECG_COUNTS * 2.5 + baseline, rtol=0, atol=1e-9)
    assert recording.sampling_rate_hz == 500.0
    assert recording.channels == STANDARD_LEADS
    assert recording.units == ("uV",) * 12
    assert recording.fields == {
        "Patient ID": "D-3",
        "Age": "0.5",
        "Sex": "male",
        "Acquired": "2013-01-25T10:59:19",
    }


def test_dicom_of_a_recorder():
    path = get_testdata_file("waveform_ecg.dcm", download=False)
    recording = read_dicom(path)
    group = pydicom.dcmread(path).WaveformSequence[0]
    counts = np.frombuffer(group.WaveformData, "<i2").reshape(10_000, 12)
    np.testing.assert_allclose(recording.signal, counts * 1.25, rtol=0, atol=1e-9)
    assert recording.sampling_rate_hz == 1000.0
    assert recording.channels == STANDARD_LEADS
    assert recording.fields["Patient ID"] == "642341"
    assert recording.fields["Acquired"] == "2013-01-25T10:59:19"
    # Einthoven, and so the order of the leads, holds for what is stored of it.
    assert (
        stored_signal(recording, recipe=SignalRecipe(name="t", version=1, sampling_rate_hz=500)).valid_samples == 5000
    )


def test_dicom_padding_is_nan(tmp_path):
    dataset = write_dicom(tmp_path / "a.dcm", AECG_COUNTS)
    group = dataset.WaveformSequence[0]
    group.WaveformPaddingValue = np.int16(AECG_COUNTS[10, 3]).tobytes()
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    is_padding = np.equal(AECG_COUNTS, AECG_COUNTS[10, 3])
    np.testing.assert_array_equal(np.isnan(read_dicom(tmp_path / "a.dcm").signal), is_padding)


def _set(group, **values):
    for name, value in values.items():
        setattr(group, name, value)


def _second_original(dataset):
    dataset.WaveformSequence[1].WaveformOriginality = "ORIGINAL"
    dataset.WaveformSequence[1].NumberOfWaveformSamples = dataset.WaveformSequence[0].NumberOfWaveformSamples


@pytest.mark.parametrize(
    ("change", "reason", "message"),
    [
        (lambda d: delattr(d, "WaveformSequence"), "unreadable_header", "0 waveform groups, none of Waveform"),
        (lambda d: _set(d.WaveformSequence[0], WaveformOriginality="DERIVED"), "unreadable_header", "2 waveform"),
        (_second_original, "unreadable_header", "2 original waveform groups of 1000 samples"),
        (lambda d: _set(d.WaveformSequence[0], NumberOfWaveformSamples=1001), "truncated_file", "has 24000 bytes"),
        (lambda d: _set(d.WaveformSequence[0], NumberOfWaveformSamples=4_000_000_000), "truncated_file", "has 24000 b"),
        (lambda d: _set(d.WaveformSequence[0], NumberOfWaveformSamples=999), "header_disagrees", "has 24000 bytes"),
        (lambda d: _set(d.WaveformSequence[0], WaveformSampleInterpretation="MB", WaveformBitsAllocated=8),
         "unreadable_header", "8 bits and interpretation MB"),
        (lambda d: delattr(d.WaveformSequence[0], "WaveformData"), "unreadable_header", "no attribute 'WaveformData'"),
        (lambda d: delattr(d.WaveformSequence[0], "SamplingFrequency"), "missing_metadata", "has no SamplingFrequency"),
        (lambda d: _set(d.WaveformSequence[0], SamplingFrequency=0), "unreadable_header", "SamplingFrequency is 0"),
        (lambda d: d.WaveformSequence[0].ChannelDefinitionSequence.pop(), "header_disagrees", "defines 11 channels"),
        (lambda d: delattr(d.WaveformSequence[0].ChannelDefinitionSequence[2], "ChannelSensitivity"),
         "missing_metadata", "has no ChannelSensitivity"),
        (lambda d: _set(d.WaveformSequence[0].ChannelDefinitionSequence[2], ChannelSensitivity=0),
         "unreadable_header", "channel III has a ChannelSensitivity of 0"),
        (lambda d: delattr(d.WaveformSequence[0].ChannelDefinitionSequence[2], "ChannelSensitivityUnitsSequence"),
         "missing_metadata", "channel III has no one unit"),
        (lambda d: delattr(d.WaveformSequence[0].ChannelDefinitionSequence[2], "ChannelSourceSequence"),
         "missing_metadata", "0 items in ChannelSourceSequence"),
        (lambda d: _set(d.WaveformSequence[0].ChannelDefinitionSequence[6].ChannelSourceSequence[0],
                        CodeMeaning="Lead V4"),
         "header_disagrees", "coded as lead V1 .MDC 2:3. and named 'Lead V4'"),
    ],
)  # fmt: skip
def test_damaged_dicom(tmp_path, change, reason, message):
    path = tmp_path / "a.dcm"
    dataset = write_dicom(path, AECG_COUNTS)
    change(dataset)
    dataset.save_as(path, enforce_file_format=True)
    refused(read_dicom, path, reason, message)


def test_dicom_transfer_syntaxes(tmp_path):
    path = tmp_path / "a.dcm"
    dataset = write_dicom(path, AECG_COUNTS)
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset.save_as(path, implicit_vr=True, little_endian=True, enforce_file_format=True)
    np.testing.assert_allclose(read_dicom(path).signal, AECG_COUNTS * 2.5, rtol=0, atol=1e-9)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(path, implicit_vr=False, little_endian=True, enforce_file_format=True)
    refused(read_dicom, path, "unreadable_header", "its transfer syntax is Deflated Explicit VR .* dcmconv")


def test_dicom_that_is_none(tmp_path):
    path = write(tmp_path, "hello", "a.dcm")
    refused(read_dicom, path, "unreadable_header", "cannot be read as a DICOM waveform .InvalidDicomError")
    write_dicom(path, AECG_COUNTS)
    path.write_bytes(path.read_bytes()[:9000])
    refused(read_dicom, path, "truncated_file", r"sequence \(5400,0100\) of \d+ bytes where 8464 are left")
    path.write_bytes(path.read_bytes()[:300])
    refused(read_dicom, path, "unreadable_header", "none of WaveformOriginality ORIGINAL|damaged or truncated")
    refused(read_dicom, tmp_path / "none.dcm", "missing_file", "No such file")


def test_dicom_samples_do_not_run_on_into_what_follows(tmp_path):
    path = tmp_path / "a.dcm"
    write_dicom(path, AECG_COUNTS)
    content = path.read_bytes()
    samples = content.index(AECG_COUNTS.astype("<i2").tobytes())
    path.write_bytes(content[: samples + 2400] + content[samples + 2414 :])
    refused(read_dicom, path, "truncated_file", "damaged or truncated")
    path.write_bytes(content[: samples + 2400] + bytes(14) + content[samples + 2400 :])
    refused(read_dicom, path, "truncated_file", "damaged or truncated")


def test_dicom_of_implicit_type_and_of_undefined_lengths(tmp_path):
    path = tmp_path / "a.dcm"
    dataset = write_dicom(path, AECG_COUNTS)
    expected = read_dicom(path).signal
    for sequence in (dataset.WaveformSequence, dataset.WaveformSequence[0].ChannelDefinitionSequence):
        sequence.is_undefined_length = True
        sequence[0].is_undefined_length_sequence_item = True
    dataset["WaveformSequence"].is_undefined_length = True
    dataset.save_as(path, enforce_file_format=True)
    np.testing.assert_array_equal(read_dicom(path).signal, expected)
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset.save_as(path, implicit_vr=True, little_endian=True, enforce_file_format=True)
    np.testing.assert_array_equal(read_dicom(path).signal, expected)


# Trees of mixed formats


def test_a_tree_of_every_format(tmp_path):
    full = Declared(sampling_rate_hz=500.0, unit="mV", leads=STANDARD_LEADS)
    signal = twelve_lead_mv(seconds=2)
    for name, text in (("b/muse", MUSE), ("b/aecg", AECG), ("philips", PHILIPS)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path, text, f"{name}.xml")
    write_dicom(tmp_path / "b" / "dicom.DCM", AECG_COUNTS)
    np.save(tmp_path / "array.npy", signal)
    write_wfdb(tmp_path / "a", "wfdb", signal)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "LICENSE").write_text("x")
    found = find_recordings(tmp_path)
    assert [(item.record_id, item.format) for item in found.recordings] == [
        ("a/wfdb", "wfdb"),
        ("array", "numpy"),
        ("b/aecg", "xml"),
        ("b/dicom", "dicom"),
        ("b/muse", "xml"),
        ("philips", "xml"),
    ]
    assert found.passed_over == {".txt": 1, "no suffix": 1}
    for item in found.recordings:
        assert len(read_recording(item, full).signal) == 1000
    only = find_recordings(tmp_path, formats=["numpy"], leave_out=[tmp_path / "LICENSE"])
    assert [item.record_id for item in only.recordings] == ["array"]


def test_two_files_for_one_record(tmp_path):
    np.save(tmp_path / "a.npy", AECG_COUNTS)
    write(tmp_path, AECG, "a.xml")
    with pytest.raises(DataError, match="would both be record 'a'"):
        find_recordings(tmp_path)
    with pytest.raises(DataError, match="--formats=tape: known formats are wfdb, numpy"):
        find_recordings(tmp_path, formats=["tape"])
