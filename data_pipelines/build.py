"""Builds a data set of ArrayRecord shards with its index from a source of recordings.

  python -m data_pipelines.build --builder=ptbxl --source=DIR --out=DIR [--source_rate_hz=500]
  python -m data_pipelines.build --builder=physionet2021 --source=DIR --out=DIR [--sets=georgia,ningbo]
  python -m data_pipelines.build --builder=code15|mimic_iv_ecg|cpsc2018 --source=DIR --out=DIR
  python -m data_pipelines.build --builder=folder --source=DIR --out=DIR [--labels=labels.csv] [--folds=stratified]
  python -m data_pipelines.build --builder=prepared --source=DATASET --out=DIR --target_rate_hz=250
  python -m data_pipelines.build --builder=simulated --num_patients=2000 --out=DIR [--beat_to_beat] [--site=SITE]

Each record is checked, taken through a --recipe (by default resampled to 250 Hz, cut or padded to 10 s, not filtered)
and stored as int16 microvolts. Of a longer recording 10 s are kept, or with --pieces all of it, as several records; the
summary says how much is kept and dropped.
Recordings that fail a check are quarantined under a reason and listed in DIR/quarantine.csv. A recording of which only
a field that is not needed cannot be read, such as its age, is stored without that field and listed in DIR/remarks.csv.
An interrupted build leaves what was at DIR as it was; the same command again goes on from the shards that it had
finished. Given again after files of the source were added, removed or changed, it says so, and --overwrite builds the
set again.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import flags

from data_pipelines.buckets.addresses import is_remote, local_path
from data_pipelines.buckets.finished_folders import finished_folder
from data_pipelines.builders.base import Source
from data_pipelines.builders.code15_wfdb import code15_source
from data_pipelines.builders.cpsc2018 import Cpsc2018Source
from data_pipelines.builders.folder import FolderSource
from data_pipelines.builders.mimic_iv_ecg import MimicIvEcgSource
from data_pipelines.builders.physionet2021 import SETS, Physionet2021Source
from data_pipelines.builders.pieces import PiecedSource
from data_pipelines.builders.prepared import PreparedSource
from data_pipelines.builders.ptbxl import PtbxlSource
from data_pipelines.builders.simulated import SimulatedSource
from data_pipelines.builders.source_folder import check_source
from data_pipelines.card.summary_lines import fold_lines, sex_lines
from data_pipelines.command import MOST_WORKERS, command, given, output_folder, print_report, progress_bar, run
from data_pipelines.errors import DataError
from data_pipelines.metadata.source_names import NO_NAME, name_notes, name_of_source
from data_pipelines.physiology.definitions import BEATS, MEDIAN_BEAT
from data_pipelines.physiology.store import measure_dataset
from data_pipelines.prepared.contradictions import contradiction_lines
from data_pipelines.prepared.dataset import CARD_FILE, REMARKS_FILE, read_card
from data_pipelines.prepared.kept_seconds import kept_sentence
from data_pipelines.prepared.quarantine import quarantine_lines
from data_pipelines.prepared.remarks import remark_lines
from data_pipelines.prepared.shared_contents import shared_sentence
from data_pipelines.prepared.stratified_folds import DEALINGS
from data_pipelines.readers.formats import FORMATS
from data_pipelines.shards.beam import BeamWorkers, local_options
from data_pipelines.shards.calibration_report import calibration_lines
from data_pipelines.shards.dataset_build import ShardMaker, build_dataset
from data_pipelines.shards.making import LocalProcesses
from data_pipelines.shards.source_listing import LISTING_FILE, open_listing
from data_pipelines.signals.recipe import BASELINES, CUTS, PADS, RECIPES, SignalRecipe
from data_pipelines.simulation.cohort import DEFAULT_BEAT_TO_BEAT_SHARE
from data_pipelines.simulation.sites import SITES, site_named
from data_pipelines.statements.declared import ORIENTATIONS, Declared
from data_pipelines.system.counted import counted
from data_pipelines.system.visible_text import visible

_OUT = flags.DEFINE_string("out", None, "Directory to write; must not exist, or be a finished data set.")
_RECIPE = flags.DEFINE_enum(
    "recipe", "plain", sorted(RECIPES), "What is done to the signals; the flags below change single steps of it."
)
# All named recipes have the same rate, lengths, cut and pad, so that the flags can say what they are by default.
_PLAIN = RECIPES["plain"]
_TARGET_RATE_HZ = flags.DEFINE_integer(
    "target_rate_hz",
    None,
    f"Rate to store, Hz, by default {_PLAIN.sampling_rate_hz}.",
    lower_bound=50,
    upper_bound=10_000,
)
_SECONDS = flags.DEFINE_float(
    "seconds",
    None,
    f"Length to store, s, by default {_PLAIN.seconds:g}: longer recordings are cut, shorter ones padded.",
)
_CHANGES = {
    "sampling_rate_hz": _TARGET_RATE_HZ,
    "seconds": _SECONDS,
    "min_seconds": flags.DEFINE_float(
        "min_seconds", None, f"Quarantine recordings shorter than this, s, by default {_PLAIN.min_seconds:g}."
    ),
    "notch_hz": flags.DEFINE_float("notch_hz", None, "Take out this mains frequency: 50 or 60."),
    "highpass_hz": flags.DEFINE_float("highpass_hz", None, "High-pass filter: 0.5 takes out most wander."),
    "lowpass_hz": flags.DEFINE_float("lowpass_hz", None, "Low-pass filter: 40 takes out most muscle noise."),
    "baseline": flags.DEFINE_enum("baseline", None, BASELINES, "Subtract a running median, or keep the baseline."),
    "cut": flags.DEFINE_enum("cut", None, CUTS, f"Which part of a longer recording to keep, by default {_PLAIN.cut}."),
    "pad": flags.DEFINE_enum("pad", None, PADS, f"Where to add zeros to a shorter recording, by default {_PLAIN.pad}."),
}
_PIECES = flags.DEFINE_boolean(
    "pieces",
    False,
    "[all but prepared and simulated] Cut longer recordings into as many records of --seconds as they hold, instead of "
    "keeping one of each.",
)
_MAX_QUARANTINED = flags.DEFINE_float(
    "max_quarantined", 0.5, "Fail if more than this share of the recordings cannot be stored.", 0.0, 1.0
)
_OVERWRITE = flags.DEFINE_boolean("overwrite", False, "Replace the data set at --out once the new one is whole.")
_NUM_WORKERS = flags.DEFINE_integer(
    "num_workers", os.cpu_count() or 1, "Processes that read recordings.", lower_bound=1, upper_bound=MOST_WORKERS
)

_BEAM = flags.DEFINE_string(
    "beam",
    None,
    "Build with this Apache Beam runner, such as DirectRunner or DataflowRunner; workers must see --source and --out.",
)
_BEAM_OPTIONS = flags.DEFINE_list(
    "beam_options", [], "Beam's own options, as name=value,name=value; see its documentation of the runner."
)

_PHYSIOLOGY = flags.DEFINE_boolean(
    "physiology", False, "Measure intervals, amplitudes and rhythm of every record too (data_pipelines.measure)."
)
_MEDIAN_BEAT = flags.DEFINE_boolean(
    "median_beat", False, "Measure the median beat of every record too (data_pipelines.measure --on=median_beat)."
)

_SOURCE = flags.DEFINE_string("source", None, "[all but simulated] Directory of the recordings.")
_SOURCE_RATE_HZ = flags.DEFINE_integer("source_rate_hz", 500, "[ptbxl] Which published copy to read: 100 or 500 Hz.")
_SETS = flags.DEFINE_list("sets", [], f"[physionet2021] Which of its sets to take, by default all: {', '.join(SETS)}.")

_LABELS = flags.DEFINE_string(
    "labels",
    None,
    "[folder] CSV or Parquet table with columns record, patient_id and optionally age, sex, fold, report, any numbers.",
)
_PATIENT_FIELD = flags.DEFINE_string(
    "patient_field", None, "[folder] Field of a file's own metadata that holds the patient id, such as 'Patient ID'."
)
_FORMATS = flags.DEFINE_list("formats", list(FORMATS), "[folder] Which formats to read.")
_DECLARED_RATE_HZ = flags.DEFINE_float(
    "declared_rate_hz",
    None,
    "[folder] Rate of files of bare samples (NumPy, text, HDF5, MATLAB) that do not say it. A file that says "
    "otherwise, by "
    "any common name (docs/running.md), is quarantined. WFDB, DICOM and XML describe themselves: no declaration is "
    "for them.",
)
_DECLARED_UNIT = flags.DEFINE_string(
    "declared_unit", None, "[folder] Unit of such files: mV, uV or V. Whole numbers under a gain are counts of it."
)
_DECLARED_LEADS = flags.DEFINE_list("declared_leads", [], "[folder] Names of their leads, in order.")
_DECLARED_ORIENTATION = flags.DEFINE_enum(
    "declared_orientation", None, ORIENTATIONS, "[folder] Which axis of their matrices is time, where both could be."
)
_SEX_CODING = flags.DEFINE_list(
    "sex_coding",
    [],
    "[folder] Meaning of values of sex that are no words, each as VALUE=male, =female or =unknown: 1=male,2=female.",
)
_MISSING_IDS = flags.DEFINE_list(
    "missing_ids",
    [],
    "[folder] Patient ids that are nobody's, such as 0,99999, beside those that always are (NA, Unknown, Anonymous).",
)
_NAME = flags.DEFINE_string(
    "name",
    None,
    "[folder] Name of the data set, by which its patients are known again: lower case letters, digits and _. Without, "
    "one is made of the name and place of --source.",
)

_FOLDS = flags.DEFINE_enum(
    "folds",
    None,
    DEALINGS,
    "[folder, prepared] How patients are dealt to folds 1 to 10: by a hash of their id, as folder does where its table "
    "has no folds; or stratified, so that every label is as frequent in all.",
)

_NUM_PATIENTS = flags.DEFINE_integer(
    "num_patients", 2000, "[simulated] Size of the cohort.", lower_bound=1, upper_bound=100_000_000
)
_SEED = flags.DEFINE_integer("seed", 0, "[simulated] Seed of the cohort.", lower_bound=0, upper_bound=2**63 - 1)
_BEAT_TO_BEAT = flags.DEFINE_boolean(
    "beat_to_beat",
    False,
    "[simulated] Let beats differ from each other, with labels of how they do: what no median beat tells "
    "(docs/simulator.md).",
)
_BEAT_TO_BEAT_SHARE = flags.DEFINE_float(
    "beat_to_beat_share",
    None,
    "[simulated] With --beat_to_beat, share of the signatures of LVEF, potassium and wedge pressure that lies "
    "between beats, by default a third.",
    lower_bound=0.0,
    upper_bound=1.0,
)
_SITE = flags.DEFINE_string(
    "site",
    None,
    f"[simulated] Let the patients be recorded at another place, where ages, shares of disease, noise, recorder and "
    f"electrodes differ (docs/simulator.md): {', '.join(SITES)}. By default the cohort has no site.",
)

# A request has these flags only where they are given, so that data sets built before there were these flags, which have
# none of them, still match.
_LATER_FLAGS = frozenset({"sex_coding", "missing_ids", "folds", "beat_to_beat", "beat_to_beat_share", "site"})

# Simulated signals are not filtered by the pipeline, so only these steps of a recipe apply to them.
_CHANGES_OF_SIMULATED = {"sampling_rate_hz", "seconds"}


def _make_shards() -> ShardMaker:
    if _BEAM.value is None:
        if _BEAM_OPTIONS.value:
            raise DataError("--beam_options means nothing without --beam=RUNNER")
        return LocalProcesses(_NUM_WORKERS.value)
    own = [f"--{option.removeprefix('--')}" for option in _BEAM_OPTIONS.value]
    # The user's own options come last, so that they win over those for this machine.
    return BeamWorkers(runner=_BEAM.value, options=(*local_options(_BEAM.value, num_workers=_NUM_WORKERS.value), *own))


def _physionet2021(folder: Path, recipe: SignalRecipe) -> Source:
    return Physionet2021Source(folder, sets=_SETS.value, recipe=recipe, num_workers=_NUM_WORKERS.value)


def _folder(folder: Path, recipe: SignalRecipe) -> Source:
    return FolderSource(
        folder,
        labels=local_path(_LABELS.value, flag="labels") if _LABELS.value else None,
        patient_field=_PATIENT_FIELD.value,
        name=_name(),
        formats=_FORMATS.value,
        sex_coding=_SEX_CODING.value,
        missing_ids=_MISSING_IDS.value,
        folds=_FOLDS.value,
        declared=Declared(
            sampling_rate_hz=_DECLARED_RATE_HZ.value,
            unit=_DECLARED_UNIT.value,
            leads=tuple(_DECLARED_LEADS.value) or None,
            orientation=_DECLARED_ORIENTATION.value,
        ),
        recipe=recipe,
        num_workers=_NUM_WORKERS.value,
    )


def _name() -> str:
    """Returns the name of a folder's data set: the one given, that of the one at --out, or one made from the source."""
    if _NAME.value is not None:
        return _NAME.value
    out = Path(given(_OUT))
    # A data set that was built before names were made of the source keeps its own, so that it is found finished.
    has_card = (out / CARD_FILE).is_file() and not _OVERWRITE.value
    if has_card and read_card(out).get("request", {}).get("name") == NO_NAME:
        return NO_NAME
    return name_of_source(Path(_SOURCE.value) if _SOURCE.value else _source_directory())


# Functions that make a source of a folder, by the name of the builder. A simulated cohort has no folder.
_MAKERS: dict[str, Callable[[Path, SignalRecipe], Source]] = {
    "ptbxl": lambda folder, recipe: PtbxlSource(folder, source_rate_hz=_SOURCE_RATE_HZ.value, recipe=recipe),
    "physionet2021": _physionet2021,
    "code15": lambda folder, recipe: code15_source(folder, recipe=recipe),
    "mimic_iv_ecg": lambda folder, recipe: MimicIvEcgSource(folder, recipe=recipe),
    "cpsc2018": lambda folder, recipe: Cpsc2018Source(folder, recipe=recipe),
    "folder": _folder,
    "prepared": lambda folder, recipe: PreparedSource(folder, recipe=recipe, folds=_FOLDS.value),
}

_OF_DECLARED = ("declared_rate_hz", "declared_unit", "declared_leads", "declared_orientation")
_OF_FOLDER = ("labels", "patient_field", "name", "formats", *_OF_DECLARED, "sex_coding", "missing_ids", "folds")

# Names of the flags that only some builders have. Their order is that of a request on the card.
_BUILDERS: dict[str, tuple[str, ...]] = {
    "ptbxl": ("source", "source_rate_hz", "pieces"),
    "physionet2021": ("source", "sets", "pieces"),
    "code15": ("source", "pieces"),
    "mimic_iv_ecg": ("source", "pieces"),
    "cpsc2018": ("source", "pieces"),
    "folder": ("source", "pieces", *_OF_FOLDER),
    "prepared": ("source", "folds"),
    "simulated": ("num_patients", "seed", "beat_to_beat", "beat_to_beat_share", "site"),
}

_BUILDER = flags.DEFINE_enum("builder", None, list(_BUILDERS), "What kind of source to read.")


def _make_source(recipe: SignalRecipe) -> Source:
    if given(_BUILDER) == "simulated":
        form = recipe.signal_format
        return SimulatedSource(
            num_patients=_NUM_PATIENTS.value,
            seed=_SEED.value,
            signal_format=form,
            beat_to_beat_share=_beat_to_beat_share(),
            site=_SITE.value,
        )
    source = _MAKERS[given(_BUILDER)](_source_directory(), recipe)
    return PiecedSource(source, num_workers=_NUM_WORKERS.value) if _PIECES.value else source


def _beat_to_beat_share() -> float | None:
    """Returns the share of the signatures that lies between beats; None for a cohort whose beats are copies."""
    if not _BEAT_TO_BEAT.value:
        if _BEAT_TO_BEAT_SHARE.value is not None:
            raise DataError("--beat_to_beat_share means nothing without --beat_to_beat; add it, or leave the share out")
        return None
    return DEFAULT_BEAT_TO_BEAT_SHARE if _BEAT_TO_BEAT_SHARE.value is None else _BEAT_TO_BEAT_SHARE.value


def _source_directory() -> Path:
    if _SOURCE.value is None:
        raise DataError(f"--builder={_BUILDER.value} needs --source=DIR, the directory of the recordings")
    path = Path(_SOURCE.value)
    check_source(path, _SOURCE.value, builder=given(_BUILDER))
    return path


def _request(builder: str, recipe: SignalRecipe) -> dict[str, Any]:
    """Returns the flags that determine what is stored, by name; raises `DataError` for flags of other builders."""
    own = _BUILDERS[builder]
    for name in sorted({*itertools.chain(*_BUILDERS.values())} - {*own}):
        if flags.FLAGS[name].present:
            remedy = "; deal the finished data set anew with --builder=prepared" if name == "folds" else ""
            raise DataError(f"--{name} means nothing to --builder={builder}; leave it out{remedy}")
    if builder == "simulated":
        for flag in (*(_CHANGES[field] for field in _CHANGES.keys() - _CHANGES_OF_SIMULATED), _RECIPE):
            if flag.present:
                raise DataError(f"--{flag.name} means nothing to --builder=simulated; leave it out")
        if _SITE.value is not None:
            site_named(_SITE.value)
    request: dict[str, Any] = {"builder": builder, "recipe": recipe.to_json()}
    values = {name: flags.FLAGS[name].value for name in own}
    request |= {
        name: value for name, value in values.items() if name not in _LATER_FLAGS or value != flags.FLAGS[name].default
    }
    if not request.get("pieces"):
        request.pop("pieces", None)  # Requests of data sets built before there were pieces have no such entry.
    elif _CHANGES["cut"].present:
        message = "--cut means nothing with --pieces, which keeps all parts of a recording; leave one of them out"
        raise DataError(message)
    if builder == "folder":
        request["name"] = _name()
    if builder == "simulated" and (share := _beat_to_beat_share()) is not None:
        # The share itself and not only that it is the default one, which may be another some day.
        request["beat_to_beat_share"] = share
    # Whole paths, so that the same folder named from elsewhere makes the same request.
    paths = {name: str(Path(request[name]).resolve()) for name in ("source", "labels") if request.get(name)}
    if builder == "prepared":
        # Other contents at the same place make another request.
        paths["source_fingerprint"] = read_card(_source_directory())["fingerprint"]
    if request.get("labels") and Path(request["labels"]).is_file():
        # A table that was edited since makes another request: its old labels must not pass for the new ones.
        with Path(request["labels"]).open("rb") as file:
            paths["labels_digest"] = hashlib.file_digest(file, "sha256").hexdigest()
    return request | paths


def _listed_folder() -> Path | None:
    """Returns the folder whose files are listed, so that later additions are noticed; None where there is none."""
    # Of a prepared data set no listing is needed, since its fingerprint is part of the request.
    if _SOURCE.value is None or _BUILDER.value == "prepared" or not Path(_SOURCE.value).is_dir():
        return None
    return Path(_SOURCE.value)


def _not_compared(out: Path) -> str:
    """Returns a clause on why a finished data set was not compared with its source; empty if it was."""
    if given(_BUILDER) in ("simulated", "prepared"):
        return ""
    if _listed_folder() is None:
        return f"; --source={_SOURCE.value} is not there, so whether it has changed is not known"
    if open_listing(out / LISTING_FILE) is None:
        return "; it was built before files of the source were listed, so what was added since is not noticed"
    return ""


def summary(card: dict[str, Any], out: Path) -> str:
    """Returns the summary that a build prints at its end.

    Args:
        card: Card of the data set.
        out: Directory of the data set.
    """
    counts, form = card["summary"], card["signal_format"]
    quarantined = sum(counts["quarantined"].values())
    of_folder = card.get("request", {}).get("builder") == "folder"
    lines = [
        f"{out}: {card['name']}{' (SIMULATED)' if card['simulated'] else ''}, {form['num_samples']} samples at "
        f"{form['sampling_rate_hz']} Hz",
        f"  recipe              {card['recipe']['name']}, version {card['recipe']['version']}",
        f"  recordings in       {_recordings_in(counts)}",
        f"  stored              {counts['stored']} of {counted(card['num_patients'], 'patient')} in "
        f"{counted(len(card['shards']), 'shard')}",
        f"  quarantined         {quarantined}" + (", listed in quarantine.csv" if quarantined else ""),
        *(f"    {line}" for line in quarantine_lines(counts["quarantined"], out, of_folder=of_folder)),
        *_remark_lines(counts),
        *sex_lines(counts),
        f"  equal content       {counted(len(counts['duplicates']), 'record')} marked as duplicates",
        *(f"    {visible(record)} = {visible(first)}" for record, first in counts["duplicates"][:20]),
        *([f"    … and {len(counts['duplicates']) - 20} more"] if len(counts["duplicates"]) > 20 else []),
        *(f"  {visible(shared_sentence(entry))}" for entry in counts.get("shared_contents", ())),
        # Earlier data sets have no such counts.
        *([f"  seconds             {kept_sentence(counts['seconds'])}"] if counts.get("seconds") else []),
        *contradiction_lines(counts.get("contradictions")),
        *_quality_lines(counts),
        *calibration_lines(counts.get("calibration")),
        *map(visible, fold_lines(counts)),
        *(f"  doubt: {visible(doubt)}" for doubt in counts.get("doubts", ())),
        *(f"  note: {visible(note)}" for note in [*counts["notes"], *name_notes(card)]),
        f"  fingerprint         {card['fingerprint']}",
    ]
    return "\n".join(lines)


def _remark_lines(counts: dict[str, Any]) -> list[str]:
    if not (counted := counts.get("remarks")):  # Earlier data sets have no remarks.
        return []
    total = sum(entry["records"] for entry in counted.values())
    heading = f"  remarks             {total}, on records that are stored; listed in {REMARKS_FILE}"
    return [heading, *(f"    {line}" for line in remark_lines(counted))]


def _recordings_in(counts: dict[str, Any]) -> str:
    recordings, records = counts.get("recordings_in", counts["records_in"]), counts["records_in"]
    return str(records) if recordings == records else f"{recordings}, as {counted(records, 'record')}"


def _quality_lines(counts: dict[str, Any]) -> list[str]:
    flagged = [f"{name} {count}" for name, count in counts["quality"].items() if count]
    clipped = f" ({counted(counts['clipped_samples'], 'sample')} clipped)" if counts["clipped_samples"] else ""
    return [f"  doubtful            {', '.join(flagged) or 'none'}{clipped}"]


@command
def main() -> None:
    """Runs the build that the flags ask for."""
    if is_remote(given(_OUT)) and _BEAM.value:
        raise DataError(f"--out={_OUT.value}: workers of Beam share a directory; mount the bucket, and name its path")
    with finished_folder(given(_OUT)) as out:
        _build(output_folder("out", out))


def _build(out: Path) -> None:
    changes = {field: flag.value for field, flag in _CHANGES.items() if flag.value is not None}
    recipe = RECIPES[_RECIPE.value].changed(**changes)
    # After the build there is a card in any case.
    existed = (out / CARD_FILE).exists() and not _OVERWRITE.value
    card = build_dataset(
        functools.partial(_make_source, recipe),
        out,
        request=_request(given(_BUILDER), recipe),
        make_shards=_make_shards(),
        max_quarantined=_MAX_QUARANTINED.value,
        overwrite=_OVERWRITE.value,
        progress=progress_bar,
        source_folder=_listed_folder(),
    )
    for definition, asked in ((BEATS, _PHYSIOLOGY.value), (MEDIAN_BEAT, _MEDIAN_BEAT.value)):
        if asked:
            with progress_bar("measuring", card["num_records"]) as tell:
                measure_dataset(out, num_workers=_NUM_WORKERS.value, definition=definition, progress=tell)
    if existed:
        print_report(f"finished already, nothing to do (--overwrite builds it again){_not_compared(out)}")
    print_report(summary(card, out))


if __name__ == "__main__":
    run(main, required=["builder", "out"])
