"""Draws a recording before and after each augmentation, one picture an augmentation.

    python -m ecgjax.augmentations --out=DIR
    python -m ecgjax.augmentations --out=DIR --dataset=data/ptbxl --record=ID --config=configs/simclr.py

Without --dataset the recording is SIMULATED. Settings are those of --config (all of them, enabled or not), else the
published ones; `views.png` has the views that the config gives. Each picture has two draws beside the original.
"""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from ml_collections import ConfigDict
from ml_collections.config_flags import config_flags

from data_pipelines.dataset import open_dataset
from data_pipelines.inspect import chosen_records
from data_pipelines.paper_page import save_png
from data_pipelines.simulator import Cohort, CohortConfig
from data_pipelines.store import open_store
from ecgjax import configuration, leads
from ecgjax.augmentations.views import AUGMENTATIONS, RESTORE, Recorded, Views, default_config
from ecgjax.errors import ConfigError
from ecgjax.evaluation.figures import augmented_views
from ecgjax.keys import row_keys

_DRAWS = 2
_RATE_HZ = 250


class Recording:
    """What is drawn: a recording of a data set, or a simulated one.

    Attributes:
        title: its name.
        signal: `int16[1, time, 8]`, µV.
        recorded: which samples are no padding, `i32[1]`.
        rate_hz: samples per second.
    """

    def __init__(self, dataset: str | None, record: str | None, *, seed: int):
        """Reads it.

        Raises:
            DataError: the data set cannot be opened, or has no such record.
        """
        if dataset is None:
            cohort = Cohort(CohortConfig(seed=seed, num_patients=1, sampling_rate_hz=_RATE_HZ))
            self.signal, self.rate_hz, self.title = cohort.simulate(0, 1).signal, _RATE_HZ, "SIMULATED"
            start, samples = 0, self.signal.shape[1]
        else:
            opened = open_dataset(dataset)
            number = 0 if record is None else int(chosen_records(opened, [record])[0])
            self.signal = open_store(dataset).read(np.array([number]))
            self.rate_hz = opened.format.sampling_rate_hz
            self.title = f"{opened.card['name']} {opened.index.record_id[number]}"
            start, samples = opened.index.valid_start[number], opened.index.valid_samples[number]
        self.recorded = Recorded(*(jnp.asarray([value], jnp.int32) for value in (start, samples)))

    def draw(self, augment: ConfigDict, path: Path, *, seed: int) -> None:
        """Writes a picture of the recording and of its views.

        Raises:
            ConfigError: the settings do not fit each other or the recording.
        """
        views = Views(augment, num_views=_DRAWS, rate_hz=self.rate_hz)
        keys = row_keys(seed, 0, jnp.zeros(1, jnp.int32), stream="views")
        drawn = np.asarray(jax.jit(views)(keys, jnp.asarray(self.signal), recorded=self.recorded))
        figure = augmented_views(
            np.asarray(leads.prepare(jnp.asarray(self.signal))),
            [(f"{path.stem}, draw {number + 1}", drawn[:, number]) for number in range(_DRAWS)],
            sampling_rate_hz=self.rate_hz,
            titles=[self.title],
        )
        save_png(figure, path)


def one_enabled(augment: ConfigDict, name: str) -> ConfigDict:
    """The settings with one augmentation enabled, on all views and with certainty, and no other."""
    alone = augment.copy_and_resolve_references()
    for other in alone:
        alone[other].enabled = other == name
    alone[name].views = ()
    if "p" in alone[name]:
        alone[name].p = 1.0
    return alone


def main(_: list[str]) -> None:
    """Draws what the flags ask for."""
    values = flags.FLAGS
    if values.record is not None and values.dataset is None:
        raise ConfigError("--record names a recording of a data set; give --dataset=DIR as well")
    augment = default_config()
    if values.config is not None:
        augment.update(values.config.augment)
    out = Path(values.out)
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out={out} exists and is no directory; name another")
    out.mkdir(parents=True, exist_ok=True)
    recording = Recording(values.dataset, values.record, seed=values.seed)
    for name in AUGMENTATIONS:
        try:
            recording.draw(one_enabled(augment, name), out / f"{name}.png", seed=values.seed)
        except ConfigError as error:
            print(f"{name}: {error}")
            continue
        print(out / f"{name}.png")
    if any(settings.enabled for name, settings in augment.items() if name != RESTORE):
        recording.draw(augment, out / "views.png", seed=values.seed)
        print(out / "views.png")


def define_flags() -> None:
    """Defines the flags of the command; not at import, where they would meet those of other commands."""
    config_flags.DEFINE_config_file("config", None, "Config file whose settings are drawn.", lock_config=True)
    flags.DEFINE_string("out", None, "Directory for the pictures; made where needed.")
    flags.DEFINE_string("dataset", None, "Directory of a prepared data set.")
    flags.DEFINE_string("record", None, "Id of a record of --dataset; without, its first.")
    flags.DEFINE_integer("seed", 0, "Of the draws and of the simulated recording.", lower_bound=0)
    flags.mark_flags_as_required(["out"])


if __name__ == "__main__":
    define_flags()
    configuration.run(main)
