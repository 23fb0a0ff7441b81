"""Small files of the shape that recorders' makers export, written from samples: GE MUSE, Philips, HL7 aECG, DICOM."""

import base64
import struct
import textwrap
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, TwelveLeadECGWaveformStorage, generate_uid

from data_pipelines.records import STANDARD_LEADS, STORED_LEADS
from tests.support.fixtures import twelve_lead_mv

STORED_COLUMNS = [STANDARD_LEADS.index(lead) for lead in STORED_LEADS]

# Numbers of the leads in SCP-ECG, in the order of STANDARD_LEADS.
SCP_NUMBERS = (1, 2, 61, 62, 63, 64, 3, 4, 5, 6, 7, 8)


def counts_of(*, microvolts: float, seconds: float = 2.0, rate: int = 500, seed: int = 0) -> np.ndarray:
    """Returns a 12-lead signal in steps of so many microvolts: `i64[time, 12]`."""
    return np.rint(twelve_lead_mv(seconds=seconds, rate=rate, seed=seed) * 1000 / microvolts).astype(np.int64)


def _base64(samples: np.ndarray) -> str:
    text = base64.b64encode(samples.astype("<i2").tobytes()).decode()
    return "\n".join(textwrap.wrap(text, 76))


def muse_xml(counts: np.ndarray, *, rate: int = 500, step: float = 4.88) -> str:
    """Returns a MUSE export: a median beat, which is not the recording, and the rhythm in the eight stored leads.

    Args:
        counts: `int[time, 8]`.
        rate: in Hz.
        step: µV.
    """

    def waveform(kind: str, samples: np.ndarray) -> str:
        leads = "".join(
            f"""
    <LeadData>
      <LeadByteCountTotal>{2 * len(samples)}</LeadByteCountTotal>
      <LeadTimeOffset>0</LeadTimeOffset>
      <LeadSampleCountTotal>{len(samples)}</LeadSampleCountTotal>
      <LeadAmplitudeUnitsPerBit>{step}</LeadAmplitudeUnitsPerBit>
      <LeadAmplitudeUnits>MICROVOLTS</LeadAmplitudeUnits>
      <LeadID>{lead}</LeadID>
      <LeadOffsetFirstSample>0</LeadOffsetFirstSample>
      <FirstSampleBaseline>0</FirstSampleBaseline>
      <LeadSampleSize>2</LeadSampleSize>
      <WaveFormData>
{_base64(samples[:, column])}
      </WaveFormData>
    </LeadData>"""
            for column, lead in enumerate(STORED_LEADS)
        )
        return f"""
  <Waveform>
    <WaveformType>{kind}</WaveformType>
    <NumberofLeads>{len(STORED_LEADS)}</NumberofLeads>
    <SampleType>CONTINUOUS_SAMPLES</SampleType>
    <SampleBase>{rate}</SampleBase>
    <SampleExponent>0</SampleExponent>{leads}
  </Waveform>"""

    return f"""<?xml version="1.0" encoding="ISO-8859-1"?>
<!DOCTYPE RestingECG SYSTEM "restecg.dtd">
<RestingECG>
  <PatientDemographics>
    <PatientID>P-17</PatientID>
    <PatientAge>61</PatientAge>
    <AgeUnits>YEARS</AgeUnits>
    <DateofBirth>03-09-1950</DateofBirth>
    <Gender>FEMALE</Gender>
  </PatientDemographics>
  <TestDemographics>
    <AcquisitionTime>14:05:59</AcquisitionTime>
    <AcquisitionDate>12-31-2011</AcquisitionDate>
  </TestDemographics>{waveform("Median", counts[:300] // 2)}{waveform("Rhythm", counts)}
</RestingECG>
"""


def aecg_xml(counts: np.ndarray, *, increment: str = "0.002", scale: float = 2.5, origin: float = 0.0) -> str:
    """Returns an annotated ECG: the rhythm in twelve leads and a derived series, which is not the recording.

    Args:
        counts: `int[time, 12]`.
        increment: seconds from sample to sample.
        scale: µV of a count.
        origin: µV of a count of zero.
    """

    def sequences(samples: np.ndarray, time: str) -> str:
        return time + "".join(
            f"""
        <component><sequence>
          <code code="MDC_ECG_LEAD_{lead.upper()}" codeSystem="2.16.840.1.113883.6.24"/>
          <value xsi:type="SLIST_PQ">
            <origin value="{origin}" unit="uV"/>
            <scale value="{scale}" unit="uV"/>
            <digits>{" ".join(map(str, samples[:, column]))}</digits>
          </value>
        </sequence></component>"""
            for column, lead in enumerate(STANDARD_LEADS)
        )

    absolute = f"""
        <component><sequence>
          <code code="TIME_ABSOLUTE" codeSystem="2.16.840.1.113883.5.4"/>
          <value xsi:type="GLIST_TS">
            <head value="20081223194446.000"/>
            <increment value="{increment}" unit="s"/>
          </value>
        </sequence></component>"""
    relative = f"""
        <component><sequence>
          <code code="TIME_RELATIVE" codeSystem="2.16.840.1.113883.5.4"/>
          <value xsi:type="GLIST_PQ">
            <head value="0.000" unit="s"/>
            <increment value="{increment}" unit="s"/>
          </value>
        </sequence></component>"""
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<AnnotatedECG xmlns="urn:hl7-org:v3" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" classCode="OBS">
  <effectiveTime><low value="20081223194446.000"/></effectiveTime>
  <componentOf><timepointEvent><componentOf><subjectAssignment><subject><trialSubject>
    <id extension="20044"/>
    <subjectDemographicPerson>
      <administrativeGenderCode code="F"/>
      <birthTime value="19760101"/>
    </subjectDemographicPerson>
  </trialSubject></subject></subjectAssignment></componentOf></timepointEvent></componentOf>
  <component>
    <series classCode="OBSSER">
      <code code="RHYTHM" codeSystem="2.16.840.1.113883.5.4"/>
      <effectiveTime><low value="20081223194446.000"/></effectiveTime>
      <component><sequenceSet>{sequences(counts, absolute)}
      </sequenceSet></component>
      <derivation><derivedSeries>
        <code code="REPRESENTATIVE_BEAT" codeSystem="2.16.840.1.113883.5.4"/>
        <component><sequenceSet>{sequences(counts[:50] + 1, relative)}
        </sequenceSet></component>
      </derivedSeries></derivation>
    </series>
  </component>
</AnnotatedECG>
"""


def philips_xml(counts: np.ndarray, *, rate: int = 500, step: float = 5.0) -> str:
    """Returns a Sierra ECG document with XLI-compressed waveforms.

    Args:
        counts: `int[time, 12]`.
        rate: in Hz.
        step: µV of a count.
    """
    one, two, three, avr, avl, avf, *chest = counts.T
    stored = [
        one,
        two,
        two - one - three,
        -avr - (one + two) // 2,
        (one - three) // 2 - avl,
        (two + three) // 2 - avf,
        *chest,
    ]
    data = base64.b64encode(b"".join(map(xli_chunk, stored))).decode()
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<restingecgdata xmlns="http://www3.medical.philips.com">
  <documentinfo>
    <documenttype>SierraECG</documenttype>
    <documentversion>1.04</documentversion>
  </documentinfo>
  <dataacquisition date="2012-02-29" time="08:15:00">
    <signalcharacteristics>
      <samplingrate>{rate}</samplingrate>
      <resolution>{step:g}</resolution>
      <acquisitiontype>STD-12</acquisitiontype>
    </signalcharacteristics>
  </dataacquisition>
  <patient>
    <generalpatientdata>
      <patientid>S-5</patientid>
      <age><dateofbirth>1948-03-01</dateofbirth></age>
      <sex>Male</sex>
    </generalpatientdata>
  </patient>
  <waveforms>
    <parsedwaveforms dataencoding="Base64" compressmethod="XLI" numberofleads="12"
      leadlabels="{" ".join(STANDARD_LEADS)}" durationperchannel="{1000 * len(counts) // rate}">{data}</parsedwaveforms>
  </waveforms>
</restingecgdata>
"""


def xli_chunk(samples: np.ndarray) -> bytes:
    """Returns one compressed lead: second differences, high bytes before low bytes, under LZW."""
    second = 2 * samples[1:-1] - samples[:-2] - samples[2:]
    stored = np.concatenate([samples[:2], second[1:] + 64, [0]]).astype(">i2")
    high_then_low = stored.view(np.uint8).reshape(-1, 2).T.tobytes()
    packed = _lzw(high_then_low)
    return struct.pack("<ihh", len(packed), 0, second[0]) + packed


def _lzw(data: bytes) -> bytes:
    """Compresses by LZW with codes of ten bits, the first in the highest bits; 1023 ends it."""
    codes = {bytes([value]): value for value in range(256)}
    out, prefix = [], b""
    for value in data:
        longer = prefix + bytes([value])
        if longer in codes:
            prefix = longer
            continue
        out.append(codes[prefix])
        if len(codes) < 1023:
            codes[longer] = len(codes)
        prefix = bytes([value])
    out += [codes[prefix], 1023]
    bits = "".join(f"{code:010b}" for code in out)
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def write_dicom(
    path: Path, counts: np.ndarray, *, rate: int = 500, sensitivity: float = 2.5, baseline: float = 0.0
) -> Dataset:
    """Writes a 12-lead DICOM waveform, a median beat after it; returns the data set, to change and save again.

    Args:
        path: where to.
        counts: `int[time, 12]`.
        rate: in Hz.
        sensitivity: µV of a count.
        baseline: µV of a count of zero.
    """
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = TwelveLeadECGWaveformStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid(entropy_srcs=["ecg"])
    dataset.PatientID = "D-3"
    dataset.PatientSex = "M"
    dataset.PatientAge = "006M"
    dataset.AcquisitionDateTime = "20130125105919.25"
    dataset.WaveformSequence = [
        _group("ORIGINAL", counts, rate=rate, sensitivity=sensitivity, baseline=baseline),
        _group("DERIVED", np.tile(counts[:300] // 2, (10, 1)), rate=rate, sensitivity=sensitivity, baseline=baseline),
    ]
    dataset.save_as(path, enforce_file_format=True)
    return dataset


def _group(originality: str, counts: np.ndarray, *, rate: int, sensitivity: float, baseline: float) -> Dataset:
    group = Dataset()
    group.WaveformOriginality = originality
    group.NumberOfWaveformChannels = counts.shape[1]
    group.NumberOfWaveformSamples = len(counts)
    group.SamplingFrequency = rate
    group.ChannelDefinitionSequence = [
        _channel(lead, number, sensitivity=sensitivity, baseline=baseline)
        for lead, number in zip(STANDARD_LEADS, SCP_NUMBERS, strict=True)
    ]
    group.WaveformBitsAllocated = 16
    group.WaveformSampleInterpretation = "SS"
    group.WaveformData = counts.astype("<i2").tobytes()
    return group


def _channel(lead: str, number: int, *, sensitivity: float, baseline: float) -> Dataset:
    source = Dataset()
    source.CodeValue, source.CodingSchemeDesignator = f"2:{number}", "MDC"
    source.CodeMeaning = f"Lead {lead} (Einthoven)" if len(lead) < 3 else f"Lead {lead}"
    unit = Dataset()
    unit.CodeValue, unit.CodingSchemeDesignator, unit.CodeMeaning = "uV", "UCUM", "microvolt"
    channel = Dataset()
    channel.ChannelSourceSequence = [source]
    channel.ChannelSensitivity = sensitivity
    channel.ChannelSensitivityUnitsSequence = [unit]
    channel.ChannelSensitivityCorrectionFactor = 1
    channel.ChannelBaseline = baseline
    channel.WaveformBitsStored = 16
    return channel
