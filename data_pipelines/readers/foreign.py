"""Lists kinds of files that are not read, each with a way to convert its recordings into a form that is."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True, kw_only=True)
class ForeignKind:
    """A kind of file that is not read.

    Attributes:
        name: Name of the kind.
        remedy: Advice on what to do with such files, as a sentence.
        suffixes: Suffixes of the kind, in lower case and separated by spaces.
    """

    name: str
    remedy: str
    suffixes: str


_EXPORT = "export them from the recorder's software as DICOM, HL7 aECG or MUSE XML"

#: Kinds of files that users are likely to have.
KINDS = (
    ForeignKind(
        name="EDF or BDF",
        remedy="convert each with edf2mit of the WFDB Software Package, or read it with pyedflib and save an .npz with "
        "'signal', 'fs', 'leads' and 'unit'",
        suffixes=".edf .bdf .rec .gdf",
    ),
    ForeignKind(
        name="SCP-ECG",
        remedy="convert them to DICOM or HL7 aECG with ECG Toolkit (ecgtoolkit-cs), or read them with BioSig",
        suffixes=".scp .scpecg",
    ),
    ForeignKind(
        name="ISHNE or another Holter format",
        remedy="read them with ishneholterlib or BioSig and save an .npz with 'signal', 'fs', 'leads' and 'unit'",
        suffixes=".ecg .hol .nat .raw",
    ),
    ForeignKind(
        name="MFER",
        remedy="read them with BioSig, or export them from the recorder's software as DICOM",
        suffixes=".mwf .mfer",
    ),
    ForeignKind(
        name="archives",
        remedy="unpack them and give the folder (unzip FILE, tar -xf FILE, 7z x FILE)",
        suffixes=".zip .tar .gz .tgz .bz2 .tbz .xz .txz .7z .rar .zst .z .iso",
    ),
    ForeignKind(
        name="pictures or scans of ECGs",
        remedy=f"they hold no samples: {_EXPORT}, or digitise them first",
        suffixes=".pdf .png .jpg .jpeg .jpe .tif .tiff .bmp .gif .svg .webp .heic .jp2 .ps .eps",
    ),
    ForeignKind(
        name="tables and objects of data analysis",
        remedy="save each recording as .npy, .npz or .csv; a table of labels is given with --labels. A pickle runs "
        "code when it is opened: open only your own",
        suffixes=".parquet .feather .arrow .pkl .pickle .joblib .p .pt .pth .rds .rda .rdata .sav .dta .sas7bdat "
        ".tfrecord .tfrecords .sqlite .db .json .jsonl",
    ),
    ForeignKind(
        name="Excel or another spreadsheet",
        remedy="save each sheet of samples as .csv; a table of labels is saved as .csv and given with --labels",
        suffixes=".xlsx .xls .xlsm .xlsb .ods .numbers",
    ),
    ForeignKind(
        name="text",
        remedy="if each row is a sample and each column a lead, rename them to .csv (or .tsv with tabs)",
        suffixes=".txt .asc .ascii .prn",
    ),
    ForeignKind(
        name="WFDB signals without their header",
        remedy="copy the .hea of each record beside it",
        suffixes=".dat",
    ),
    ForeignKind(
        name="WFDB annotations",
        remedy="they are no signals and are not needed",
        suffixes=".atr .qrs .ann .ecgatr .pwave .qrsc .xws .st .apn .at_ .q1c .pu",
    ),
    ForeignKind(
        name="files of a laboratory's recorder (BrainVision, BIOPAC, LabChart, Spike2, TDMS, ABF …)",
        remedy="read them with Neo, MNE or BioSig and save an .npz with 'signal', 'fs', 'leads' and 'unit'",
        suffixes=".vhdr .vmrk .eeg .acq .adicht .adibin .smr .smrx .tdms .abf .lvm .cnt .set .fif .mef .mefd .nwb",
    ),
    ForeignKind(
        name="HL7 version 2 messages",
        remedy=f"{_EXPORT}; a message holds a report, seldom samples",
        suffixes=".hl7",
    ),
    ForeignKind(
        name="sound or video",
        remedy="save the samples of each as .npz with 'signal', 'fs', 'leads' and 'unit'",
        suffixes=".wav .flac .mp3 .mp4 .avi .mov",
    ),
    ForeignKind(
        name="programs, pages and documents",
        remedy="they are no recordings",
        suffixes=".py .ipynb .m .r .sh .bat .exe .dll .md .html .htm .rtf .doc .docx .ppt .pptx .log .yaml .yml "
        ".toml .ini .cfg .js .css .sha256 .md5",
    ),
)

_KIND_OF_SUFFIX: Mapping[str, ForeignKind] = {suffix: kind for kind in KINDS for suffix in kind.suffixes.split()}

_MOST_SUFFIXES = 12


def kind_of_suffix(suffix: str) -> ForeignKind | None:
    """Returns the kind that a suffix in lower case stands for, without opening a file; None where it is unknown."""
    return _KIND_OF_SUFFIX.get(suffix)


def counts_in_words(counts: Mapping[str, int]) -> str:
    """Returns the number of files with each suffix, the most frequent first: `41 .edf, 3 .scp`."""
    ordered = Counter(counts).most_common()
    words = ", ".join(f"{count:,} {suffix}" for suffix, count in ordered[:_MOST_SUFFIXES])
    rest = sum(count for _, count in ordered[_MOST_SUFFIXES:])
    return f"{words}, {rest:,} of other kinds" if rest else words


def remedies(counts: Mapping[str, int]) -> list[str]:
    """Returns a sentence for every foreign kind among files, on what it is and what to do; the most frequent is first.

    Args:
        counts: Number of files by suffix.
    """
    of_kind: dict[str, Counter[str]] = {}
    for suffix, count in counts.items():
        kind = kind_of_suffix(suffix)
        if kind is not None:
            of_kind.setdefault(kind.name, Counter())[suffix] += count
    known = {kind.name: kind for kind in KINDS}
    ordered = sorted(of_kind, key=lambda name: -of_kind[name].total())
    return [f"{counts_in_words(of_kind[name])}: {name}; {known[name].remedy}" for name in ordered]
