"""Philips' older documents, spare channels and other sample formats; XML that is made to harm its reader."""

import base64
import re

import numpy as np
import pytest

from data_pipelines.errors import RecordError
from data_pipelines.readers.xml.hl7_aecg import read_aecg
from data_pipelines.readers.xml.muse import read_muse
from data_pipelines.readers.xml.philips import read_philips
from data_pipelines.records import STANDARD_LEADS
from tests.data_pipelines.readers.vendor_files import counts_of, philips_xml, xli_chunk

COUNTS = counts_of(microvolts=5)
LATER = philips_xml(COUNTS)


def replaced(text, *changes):
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text


# A 1.03 document has neither leadlabels nor numberofleads, and another name for the size of a step.
EARLIER = replaced(
    LATER,
    ("<documentversion>1.04<", "<documentversion>1.03<"),
    ("<resolution>5</resolution>", "<signalresolution>5</signalresolution>"),
    (' numberofleads="12"', ' compressflag="True" nbitspersample="16"'),
    (f'leadlabels="{" ".join(STANDARD_LEADS)}" ', ""),
    ("<acquisitiontype>", "<signaloffset>0</signaloffset><signalsigned>True</signalsigned><acquisitiontype>"),
)


def with_chunks(text, change):
    """Changes the bytes of the compressed waveforms."""
    (data,) = re.findall(r">([A-Za-z0-9+/=]{100,})<", text)
    return text.replace(data, base64.b64encode(change(base64.b64decode(data))).decode())


def read(folder, text):
    path = folder / "record.xml"
    path.write_text(text, encoding="utf-8")
    return read_philips(path)


def test_version_1_03(tmp_path):
    recording = read(tmp_path, EARLIER)
    np.testing.assert_array_equal(recording.signal, COUNTS * 5.0)
    assert recording.channels == STANDARD_LEADS
    assert recording.sampling_rate_hz == 500.0


@pytest.mark.parametrize("text", [EARLIER, LATER])
def test_spare_channels_beyond_the_named_are_left_out(tmp_path, text):
    spare = xli_chunk(np.zeros(len(COUNTS), np.int64)) * 4
    recording = read(tmp_path, with_chunks(text, lambda data: data + spare))
    np.testing.assert_array_equal(recording.signal, COUNTS * 5.0)


def without_the_last_lead(data):
    return data[: -len(xli_chunk(COUNTS[:, -1]))]


@pytest.mark.parametrize(
    ("text", "reason", "message"),
    [
        (with_chunks(EARLIER, without_the_last_lead), "header_disagrees", "11 compressed leads where it names 12"),
        (with_chunks(LATER, lambda data: data * 2), "header_disagrees", "24 compressed leads where it names 12"),
        (replaced(EARLIER, ("signalresolution>", "gain>")), "missing_metadata", "signalcharacteristics/resolution"),
        (
            replaced(EARLIER, ("<acquisitiontype>STD-12</acquisitiontype>", "")),
            "missing_metadata",
            "no leadlabels, and acquisitiontype is ''",
        ),
        (
            replaced(EARLIER, ('compressflag="True"', 'compressflag="False"')),
            "unreadable_header",
            "compressed by 'none'",
        ),
        (
            replaced(EARLIER, ('nbitspersample="16"', 'nbitspersample="24"')),
            "unreadable_header",
            "nbitspersample is 24",
        ),
        (replaced(EARLIER, ("<signaloffset>0", "<signaloffset>64")), "unreadable_header", "signaloffset is 64"),
        (replaced(EARLIER, ("<signaloffset>0", "<signaloffset>none")), "unreadable_header", "signaloffset is 'none'"),
        (replaced(EARLIER, ("<signalsigned>True", "<signalsigned>False")), "unreadable_header", "signalsigned is 'Fal"),
    ],
)
def test_other_sample_formats_and_counts(tmp_path, text, reason, message):
    with pytest.raises(RecordError, match=message) as caught:
        read(tmp_path, text)
    assert caught.value.reason == reason
    assert "record.xml" in str(caught.value)


@pytest.mark.parametrize("read_document", [read_muse, read_philips, read_aecg])
def test_a_billion_laughs(tmp_path, read_document):
    entities = "".join(f'<!ENTITY e{n + 1} "{f"&e{n};" * 10}">' for n in range(9))
    path = tmp_path / "record.xml"
    path.write_text(f'<!DOCTYPE a [<!ENTITY e0 "ha">{entities}]><a>&e9;</a>')
    with pytest.raises(RecordError, match=r"record\.xml: defines an entity") as caught:
        read_document(path)
    assert caught.value.reason == "unreadable_header"
