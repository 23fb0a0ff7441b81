"""Draws a recording before and after each augmentation, one picture an augmentation.

    python -m ecgjax.preview_views --out=DIR
    python -m ecgjax.preview_views --out=DIR --dataset=data/ptbxl --record=ID --config=configs/simclr.py

Without --dataset the recordings are SIMULATED. Settings are those of --config (all of them, enabled or not), else the
published ones; `views.png` has the views that the config gives. Each picture has two draws beside the original; what is
moved towards another recording goes towards --partner, whatever its label.
"""

from __future__ import annotations

from data_pipelines.system import stop_signals
from ecgjax.system.host_memory import keep_freed_memory

if __name__ == "__main__":
    keep_freed_memory()  # This must come before the imports below, which start threads.
    stop_signals.listen()

from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from ml_collections.config_flags import config_flags

from data_pipelines.buckets.finished_folders import finished_folder
from data_pipelines.command import output_folder
from data_pipelines.packing.bucket_copy import dataset_folder
from data_pipelines.paper.page import save_png
from data_pipelines.prepared.chosen_records import chosen_records
from data_pipelines.prepared.dataset import open_dataset
from data_pipelines.simulation.cohort import Cohort, CohortConfig
from data_pipelines.storage.store import open_store
from ecgjax import defaults, leads
from ecgjax.augmentations.geodesic import towards_others
from ecgjax.augmentations.views import AUGMENTATIONS, RESTORE, Recorded, Views
from ecgjax.config import run_config
from ecgjax.errors import ConfigError
from ecgjax.keys import row_keys
from ecgjax.settings.leaf import Arguments
from ecgjax.studies.report.figures import augmented_views

_DRAWS = 2
_RATE_HZ = 250
# Slices of the recording and of its partner in the signals that are read.
_PARTS = (slice(0, 1), slice(1, 2))


class Recording:
    """A recording to draw, from a data set or simulated, and another one that it is moved towards.

    Attributes:
        title: Name of the recording.
        partner_title: Name of the partner.
        signal: Signals of the recording and its partner, `int16[2, time, 8]`, in µV.
        recorded: First recorded sample and number of recorded samples of each, `i32[2]`; other samples are padding.
        rate_hz: Sampling rate in Hz.
    """

    def __init__(self, dataset: str | None, record: str | None, partner: str | None, *, seed: int):
        """Reads or simulates the two recordings.

        Args:
            dataset: Folder of a prepared data set; None for simulated recordings.
            record: Id of a record of the data set; None for its first.
            partner: Id of another record of the data set; None for the one after `record`.
            seed: Seed of simulated recordings.

        Raises:
            DataError: The data set cannot be opened, or has no such record.
        """
        if dataset is None:
            cohort = Cohort(CohortConfig(seed=seed, num_patients=2, sampling_rate_hz=_RATE_HZ))
            records = cohort.simulate(0, cohort.num_records)
            other = int(np.argmax(records.patient != records.patient[0]))
            self.signal, self.rate_hz = jnp.asarray(records.signal[[0, other]]), _RATE_HZ
            self.title, self.partner_title = "SIMULATED", "another, SIMULATED"
            columns = (np.zeros(2), np.full(2, self.signal.shape[1]))
        else:
            dataset = dataset_folder(dataset, flag="dataset")
            opened = open_dataset(dataset)
            number = 0 if record is None else int(chosen_records(opened, [record], flag="record")[0])
            other = (number + 1) % opened.index.num_records
            if partner is not None:
                other = int(chosen_records(opened, [partner], flag="partner")[0])
            numbers = np.array([number, other])
            self.signal = jnp.asarray(open_store(dataset).read(numbers))
            self.rate_hz = opened.format.sampling_rate_hz
            self.title, self.partner_title = (
                f"{opened.card['name']} {opened.index.record_id[number]}" for number in numbers
            )
            columns = (opened.index.valid_start[numbers], opened.index.valid_samples[numbers])
        self.recorded = Recorded(*(jnp.asarray(values, jnp.int32) for values in columns))

    def draw(self, augment: Mapping[str, Arguments], path: Path, *, seed: int) -> None:
        """Writes a picture of the recording, of its views, and of its partner if the views are moved towards it.

        Args:
            augment: Arguments of every augmentation, by its name.
            path: Path of the picture; its name without suffix is the title of the views.
            seed: Seed of the draws.

        Raises:
            ConfigError: The settings do not fit each other (`Views`) or the recording, such as its sampling rate.
        """
        views = Views(augment, num_views=_DRAWS, rate_hz=self.rate_hz)
        keys = row_keys(seed, 0, jnp.zeros(1, jnp.int32), stream="views")
        recorded, others_recorded = (Recorded(*(column[part] for column in self.recorded)) for part in _PARTS)
        signal, others = (self.signal[part] for part in _PARTS)
        towards = None
        if views.moves_between_recordings:
            towards = towards_others(
                signal, others, recorded=recorded, others_recorded=others_recorded, rate_hz=self.rate_hz
            )
        drawn = np.asarray(jax.jit(views)(keys, signal, recorded=recorded, towards=towards))
        columns = [(f"{path.stem}, draw {number + 1}", drawn[:, number]) for number in range(_DRAWS)]
        if towards is not None:
            columns.append((f"towards {self.partner_title}", np.asarray(leads.prepare(others))))
        figure = augmented_views(
            np.asarray(leads.prepare(signal)), columns, sampling_rate_hz=self.rate_hz, titles=[self.title]
        )
        save_png(figure, path)


def one_enabled(augment: Mapping[str, Arguments], name: str) -> dict[str, Arguments]:
    """Returns the settings with only the augmentation `name` enabled, which acts on all views with certainty."""
    alone: dict[str, Arguments] = {other: {**settings, "enabled": other == name} for other, settings in augment.items()}
    # A picture of a draw that did not act would show nothing.
    certain: Arguments = {"p": 1.0} if "p" in augment[name] else {}
    return alone | {name: {**alone[name], "views": (), **certain}}


def main(_: list[str]) -> None:
    """Draws the pictures that the flags ask for."""
    values = flags.FLAGS
    for name in ("record", "partner"):
        if values[name].value is not None and values.dataset is None:
            raise ConfigError(f"--{name} names a recording of a data set; give --dataset=DIR as well")
    augment = defaults.settings_of(defaults.get_config() if values.config is None else values.config).augment
    with finished_folder(values.out) as folder:
        _draw_all(augment, output_folder("out", folder))


def _draw_all(augment: Mapping[str, Arguments], out: Path) -> None:
    values = flags.FLAGS
    out.mkdir(parents=True, exist_ok=True)
    recording = Recording(values.dataset, values.record, values.partner, seed=values.seed)
    for name in AUGMENTATIONS:
        try:
            recording.draw(one_enabled(augment, name), out / f"{name}.png", seed=values.seed)
        # The other augmentations are drawn even if this recording does not suit one.
        except ConfigError as error:
            print(f"{name}: {error}")
            continue
        print(out / f"{name}.png")
    if any(settings["enabled"] for name, settings in augment.items() if name != RESTORE):
        recording.draw(augment, out / "views.png", seed=values.seed)
        print(out / "views.png")


def define_flags() -> None:
    """Defines the flags of the command in a function, because at import they would meet those of other commands."""
    config_flags.DEFINE_config_file("config", None, "Config file whose settings are drawn.", lock_config=True)
    flags.DEFINE_string("out", None, "Directory for the pictures; made where needed.")
    flags.DEFINE_string("dataset", None, "Directory of a prepared data set.")
    flags.DEFINE_string("record", None, "Id of a record of --dataset; without, its first.")
    flags.DEFINE_string("partner", None, "Id of another record, to be moved towards; without, the one after --record.")
    flags.DEFINE_integer(
        "seed", 0, "Of the draws and of the simulated recording.", lower_bound=0, upper_bound=2**31 - 1
    )
    flags.mark_flags_as_required(["out"])


if __name__ == "__main__":
    define_flags()
    run_config.run(main)
