"""Lists kinds of files that are not read, each with a way to convert its recordings into a form that is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

_EXPORT = "export them from the recorder's software as DICOM, HL7 aECG or MUSE XML"

#: Kinds of files that users are likely to have: advice on what to do with them, as a sentence, and their suffixes in
#: lower case.
KINDS: Mapping[str, tuple[str, str]] = {
    "EDF or BDF": (
        "convert each with edf2mit of the WFDB Software Package, or read it with pyedflib and save an .npz with "
        "'signal', 'fs', 'leads' and 'unit'",
        ".edf .bdf .rec .gdf",
    ),
    "SCP-ECG": (
        "convert them to DICOM or HL7 aECG with ECG Toolkit (ecgtoolkit-cs), or read them with BioSig",
        ".scp .scpecg",
    ),
    "ISHNE or another Holter format": (
        "read them with ishneholterlib or BioSig and save an .npz with 'signal', 'fs', 'leads' and 'unit'",
        ".ecg .hol .nat .raw",
    ),
    "MFER": ("read them with BioSig, or export them from the recorder's software as DICOM", ".mwf .mfer"),
    "archives": (
        "unpack them and give the folder (unzip FILE, tar -xf FILE, 7z x FILE)",
        ".zip .tar .gz .tgz .bz2 .tbz .xz .txz .7z .rar .zst .z .iso",
    ),
    "pictures or scans of ECGs": (
        f"they hold no samples: {_EXPORT}, or digitise them first",
        ".pdf .png .jpg .jpeg .jpe .tif .tiff .bmp .gif .svg .webp .heic .jp2 .ps .eps",
    ),
    "tables and objects of data analysis": (
        "save each recording as .npy, .npz or .csv; a table of labels is given with --labels. A pickle runs "
        "code when it is opened: open only your own",
        ".parquet .feather .arrow .pkl .pickle .joblib .p .pt .pth .rds .rda .rdata .sav .dta .sas7bdat "
        ".tfrecord .tfrecords .sqlite .db .json .jsonl",
    ),
    "Excel or another spreadsheet": (
        "save each sheet of samples as .csv; a table of labels is saved as .csv and given with --labels",
        ".xlsx .xls .xlsm .xlsb .ods .numbers",
    ),
    "text": (
        "if each row is a sample and each column a lead, rename them to .csv (or .tsv with tabs)",
        ".txt .asc .ascii .prn",
    ),
    "WFDB signals without their header": ("copy the .hea of each record beside it", ".dat"),
    "WFDB annotations": (
        "they are no signals and are not needed",
        ".atr .qrs .ann .ecgatr .pwave .qrsc .xws .st .apn .at_ .q1c .pu",
    ),
    "files of a laboratory's recorder (BrainVision, BIOPAC, LabChart, Spike2, TDMS, ABF …)": (
        "read them with Neo, MNE or BioSig and save an .npz with 'signal', 'fs', 'leads' and 'unit'",
        ".vhdr .vmrk .eeg .acq .adicht .adibin .smr .smrx .tdms .abf .lvm .cnt .set .fif .mef .mefd .nwb",
    ),
    "HL7 version 2 messages": (f"{_EXPORT}; a message holds a report, seldom samples", ".hl7"),
    "sound or video": (
        "save the samples of each as .npz with 'signal', 'fs', 'leads' and 'unit'",
        ".wav .flac .mp3 .mp4 .avi .mov",
    ),
    "programs, pages and documents": (
        "they are no recordings",
        ".py .ipynb .m .r .sh .bat .exe .dll .md .html .htm .rtf .doc .docx .ppt .pptx .log .yaml .yml "
        ".toml .ini .cfg .js .css .sha256 .md5",
    ),
}

_KIND_OF_SUFFIX = {suffix: name for name, (_, suffixes) in KINDS.items() for suffix in suffixes.split()}

_MOST_SUFFIXES = 12


def kind_of_suffix(suffix: str) -> str | None:
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
        if suffix in _KIND_OF_SUFFIX:
            of_kind.setdefault(_KIND_OF_SUFFIX[suffix], Counter())[suffix] += count
    ordered = sorted(of_kind.items(), key=lambda item: -item[1].total())
    return [f"{counts_in_words(found)}: {name}; {KINDS[name][0]}" for name, found in ordered]
