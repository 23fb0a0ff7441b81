"""Files that say everything themselves, each saying what `meaning_book.Book` tells it to: WFDB, DICOM, three of XML."""

import re
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from data_pipelines.records import FEMALE, MALE, SEX_UNKNOWN, STANDARD_LEADS, STORED_LEADS
from tests.data_pipelines.readers.vendor_files import SCP_NUMBERS, aecg_xml, muse_xml, philips_xml, write_dicom
from tests.fuzzing.meaning_arrays import NUM_SAMPLES, Written, counts_of, spelled_leads
from tests.fuzzing.meaning_book import Book

#: Texts of a field and what they mean; None is that it is not known.
SEXES = (("Male", MALE), ("M", MALE), ("male", MALE), ("F", FEMALE), ("Female", FEMALE), ("FEMALE", FEMALE),
         ("Unknown", SEX_UNKNOWN), ("U", SEX_UNKNOWN), ("O", SEX_UNKNOWN), ("1", SEX_UNKNOWN), ("2", SEX_UNKNOWN),
         ("", SEX_UNKNOWN), ("?", SEX_UNKNOWN))  # fmt: skip
AGES = (("61", 61.0), ("61.5", 61.5), ("0", 0.0), ("89+", 89.0), (">89", 90.0), ("300", 90.0), ("NaN", None),
        ("", None), ("unknown", None), ("999", None), ("-1", None), ("sixty", None), ("18 months", 1.5),
        ("104", 104.0))  # fmt: skip
PATIENTS = (("P-17", "P-17"), ("000123", "000123"), ("123", "123"), ("NA", None), ("unknown", None), ("-", None),
            ("", None), ("None", None), ("ANONYMOUS", None), ("nan", None), ("0", None), ("P 17", "P 17"))  # fmt: skip


def wfdb(book: Book, folder: Path) -> Written:
    """A header with signals of 16 bits."""
    true, zero = book.pick((1.0, 2.5, 4.88)), book.pick((0, 0, 0, 64, -300))
    counts = counts_of(true, zero)
    rate, step = book.rate("record line"), book.step("gain", true)
    names = spelled_leads(book, book.leads("signal lines"))
    baseline = book.zero("baseline", zero) if zero else 0
    unit, factor = book.pick((("mV", 1e3), ("uV", 1.0), ("mV", 1e3), ("V", 1e6)))
    gain = f"{factor / step:.17g}"
    shown = f"{gain}({baseline})/{unit}" if zero or book.chance(0.5) else f"{gain}/{unit}"
    length = book.pick((f" {NUM_SAMPLES}", f" {NUM_SAMPLES}", f" {NUM_SAMPLES} 12:30:00 1/1/2020", ""))
    spelled_rate = book.pick((f"{rate}", f"{rate}.0", f"{rate}/{rate}", f"{rate}/{rate}(0)"))
    lines = [f"a 12 {spelled_rate}{length}"]
    for column, name in enumerate(names):
        checksum = int(counts[:, column].sum(dtype=np.int64)) & 0xFFFF
        checksum = checksum - 0x10000 if checksum > 0x7FFF else checksum
        lines.append(f"a.dat 16 {shown} 16 0 {counts[0, column]} {checksum} 0 {name}")
    mark = book.pick(("#", "# "))
    for title, field, options in (("Age", "age", AGES), ("Sex", "sex", SEXES), ("Patient ID", "patient", PATIENTS)):
        text = book.other(field, f"comment {title}", options[0], options[1:])
        lines.append(f"{mark}{title}: {text}".rstrip())
    (folder / "a.hea").write_text("\n".join(lines) + "\n")
    (folder / "a.dat").write_bytes(counts.astype("<i2").tobytes())
    return Written("a", counts.astype(np.float64))


def dicom(book: Book, folder: Path) -> Written:
    """A waveform with its sensitivities, codes and the patient's elements."""
    true = book.pick((2.5, 1.25, 5.0))
    counts = counts_of(true)
    rate, step = book.rate("SamplingFrequency"), book.step("ChannelSensitivity", true)
    unit, factor = book.pick((("uV", 1.0), ("mV", 1e-3), ("V", 1e-6), ("uV", 1.0)))
    dataset = write_dicom(folder / "a.dcm", counts, rate=rate)
    leads, by_meaning = book.leads("codes of channels"), book.chance(0.3)
    meant = book.leads("meanings of codes", free_text=True) if not by_meaning and book.chance(0.5) else leads
    correction = book.pick((1, 1, 2, 0.5))
    for channel, lead, meaning in zip(_channels(dataset), leads, meant, strict=True):
        _name(channel.ChannelSourceSequence[0], lead, meaning, by_meaning=by_meaning)
        channel.ChannelSensitivity = f"{step * factor / correction:.10g}"
        channel.ChannelSensitivityCorrectionFactor = correction
        channel.ChannelSensitivityUnitsSequence[0].CodeValue = unit
    dataset.PatientID = book.other("patient", "PatientID", PATIENTS[0], PATIENTS[1:])
    coded = [(text, sex) for text, sex in SEXES if len(text) < 2]
    dataset.PatientSex = book.other("sex", "PatientSex", coded[0], coded[1:])
    ages = (("061Y", 61.0), ("006M", 0.5), ("012W", 12 * 7 / 365.25), ("020D", 20 / 365.25), ("", None), ("089Y", 89.0))
    dataset.PatientAge = book.other("age", "PatientAge", ages[0], ages[1:])
    dataset.save_as(folder / book.pick(("a.dcm", "a")), enforce_file_format=True)
    if (folder / "a").is_file():
        (folder / "a.dcm").unlink()
    return Written("a", counts.astype(np.float64))


def _channels(dataset: Dataset) -> list[Dataset]:
    return list(dataset.WaveformSequence[0].ChannelDefinitionSequence)


def _name(code: Dataset, lead: str, meaning: str, *, by_meaning: bool) -> None:
    number = dict(zip(STANDARD_LEADS, SCP_NUMBERS, strict=True)).get(lead)
    if by_meaning or number is None:
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "L1", "99LOCAL", f"Lead {lead}"
    else:
        code.CodeValue, code.CodeMeaning = f"2:{number}", f"Lead {meaning}"


def muse(book: Book, folder: Path) -> Written:
    """GE's XML, with eight leads."""
    true = book.pick((4.88, 2.5, 5.0))
    counts = counts_of(true)[:, [STANDARD_LEADS.index(lead) for lead in STORED_LEADS]]
    rate, step = book.rate("SampleBase"), book.step("LeadAmplitudeUnitsPerBit", true)
    text = muse_xml(counts, rate=rate, step="STEP")
    unit, factor = book.pick((("MICROVOLTS", 1.0), ("MILLIVOLTS", 1e-3), ("MICROVOLTS", 1.0)))
    text = text.replace("STEP", f"{step * factor:.10g}").replace("MICROVOLTS", unit)
    if book.chance(0.3):
        exponent = book.pick((-1, 1, 2))
        text = text.replace(f"<SampleBase>{rate}<", f"<SampleBase>{rate / 10**exponent:g}<")
        text = text.replace("<SampleExponent>0<", f"<SampleExponent>{exponent}<")
    names = iter(book.leads("LeadID", STORED_LEADS) * 2)
    text = re.sub(r"<LeadID>\w+<", lambda match: f"<LeadID>{next(names)}<", text)
    sex = book.other("sex", "Gender", ("FEMALE", FEMALE), SEXES)
    text = text.replace(">FEMALE<", f">{sex}<")
    ages = (("61", 61.0), ("7", 7.0), ("", None), ("89+", 89.0), ("104", 104.0))
    if book.chance(0.5):
        text = text.replace(">YEARS<", ">MONTHS<")
        ages = (("61", 61 / 12), ("7", 7 / 12), ("18", 1.5))
    else:
        text = re.sub(r"<DateofBirth>.*</DateofBirth>", "", text)
    text = text.replace("<PatientAge>61<", f"<PatientAge>{book.other('age', 'PatientAge', ages[0], ages[1:])}<")
    patient = book.other("patient", "PatientID", PATIENTS[0], PATIENTS[1:])
    (folder / "a.xml").write_text(text.replace(">P-17<", f">{patient}<"), encoding="iso-8859-1")
    return Written("a", counts.astype(np.float64))


def philips(book: Book, folder: Path) -> Written:
    """Philips' XML; its length in milliseconds also says its rate."""
    true = book.pick((5.0, 2.5, 4.0))
    counts = counts_of(true * 2) * 2
    rate = book.rate("samplingrate")
    book.fixed("rate", "durationperchannel", 500)
    text = philips_xml(counts, step=book.step("resolution", true))
    text = text.replace("<samplingrate>500<", f"<samplingrate>{rate}<")
    leads = book.leads("leadlabels")
    text = text.replace(f'leadlabels="{" ".join(STANDARD_LEADS)}"', f'leadlabels="{" ".join(leads)}"')
    sex = book.other("sex", "sex", ("Male", MALE), SEXES)
    text = text.replace("<sex>Male<", f"<sex>{sex}<")
    ages = (("61", 61.0), ("0", 0.0), ("89+", 89.0), ("", None))
    age = book.other("age", "years", ages[0], ages[1:])
    text = text.replace("<age><dateofbirth>1948-03-01</dateofbirth></age>", f"<age><years>{age}</years></age>")
    patient = book.other("patient", "patientid", PATIENTS[0], PATIENTS[1:])
    (folder / "a.xml").write_text(text.replace(">S-5<", f">{patient}<"))
    return Written("a", counts.astype(np.float64))


def aecg(book: Book, folder: Path) -> Written:
    """HL7's XML."""
    true, zero = book.pick((2.5, 5.0, 1.0)), book.pick((0, 0, 40))
    counts = counts_of(true, zero)
    rate, step = book.rate("increment"), book.step("scale", true)
    baseline = book.zero("origin", zero) if zero else 0
    unit, factor = book.pick((("uV", 1.0), ("mV", 1e-3), ("uV", 1.0)))
    seconds, milli = book.pick((("s", 1.0), ("ms", 1e3)))
    text = aecg_xml(counts, increment=f"{milli / rate:.12g}", scale="SCALE", origin=f"{-baseline * step * factor:.10g}")
    text = text.replace("SCALE", f"{step * factor:.10g}").replace('unit="uV"', f'unit="{unit}"')
    text = text.replace('unit="s"', f'unit="{seconds}"')
    names = iter(book.leads("codes of leads") * 2)
    text = re.sub(r"MDC_ECG_LEAD_\w+", lambda match: f"MDC_ECG_LEAD_{next(names).upper()}", text)
    sex = book.other("sex", "administrativeGenderCode", ("F", FEMALE), (("M", MALE), ("UN", SEX_UNKNOWN), ("1", -1)))
    text = text.replace('GenderCode code="F"', f'GenderCode code="{sex}"')
    births = (("19760101", 32.0), ("19480101", 60.0), ("1976", 32.0), ("", None), ("20300101", None))
    birth = book.other("age", "birthTime", births[0], births[1:])
    text = text.replace('birthTime value="19760101"', f'birthTime value="{birth}"')
    patient = book.other("patient", "trialSubject id", PATIENTS[0], PATIENTS[1:])
    (folder / "a.xml").write_text(text.replace('extension="20044"', f'extension="{patient}"'))
    return Written("a", counts.astype(np.float64))
