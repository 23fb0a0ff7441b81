"""Deep metric learning for hemodynamics, without labels (Jeong, Stultz and Ghassemi 2023, arXiv 2308.04650).

    python -m ecgjax.pretrain --config=configs/dml_hemodynamics.py:l1 --config.data.dir=DIR --workdir=runs/dml
    python -m ecgjax.pretrain --config=configs/dml_hemodynamics.py:dtw --config.data.dir=DIR --workdir=runs/dml_dtw

The positive of a recording is the nearest other recording of the batch in signal space, by L1 or by dynamic time
warping (DTW) in a band of half a second. The negative is a random one of the other recordings
(`--config.miner.among_farthest=True`: of the two farthest). The triplet loss squares Euclidean distances and has margin
.2. Nothing is augmented. Expect an encoder that orders recordings by rhythm and gross shape; with batches of 64 the
nearest recording is rarely near. Nearest of the whole data set, after `python -m data_pipelines.neighbours`:
`--config.relation.name=nearest_in_dataset --config.sampling.name=neighbours --config.miner.name=random`. Labels come in
with `supervised_dml`.

Deviations: rows of one patient are never negatives (the authors' code does not look), and positives are the nearest,
where their miner takes the two farthest; signals are compared at a tenth of the rate, all eight stored leads, so that
DTW of a batch takes milliseconds; DTW itself, where they also train a surrogate of it. Adam's L2 term concerns kernels,
where theirs concerns every parameter (`--config.optimizer.decayed=all`). Flags set their other losses, each in their
form: `--config.objective.name=angular --config.objective.l2_form=norm` with margin, distance and miner set to None
(without `l2_form` the L2 term squares the norm); or `--config.objective.name=margin
--config.objective.learn="('beta',)" --config.objective.distance=euclidean_on_sphere --config.objective.margin=None`.
Recordings are expected at 250 Hz (`--target_rate_hz=250`). `small`: the encoder at a quarter of its widths.
"""

from ml_collections import ConfigDict

from ecgjax import defaults
from ecgjax.config.variants import variant_of


def get_config(arg: str = "") -> ConfigDict:
    """Returns the pretraining config; `arg` is `l1` (the default) or `dtw`, with or without `,small`."""
    distance, small = variant_of(arg, ("l1", "dtw"))
    config = defaults.get_config()
    config.encoder.name = "resnet18:small" if small else "resnet18"
    config.batch_size = 64
    config.views.num = 1
    config.objective.name = "triplet"
    config.objective.margin, config.objective.distance = 0.2, "squared_euclidean"
    config.relation.name = "nearest_signal"
    config.miner.name = "signal_distance"
    config.columns.signal_distance = distance
    config.columns.signal_radius = 12 if distance == "dtw" else None
    config.optimizer.name, config.optimizer.weight_decay = "adam", 0.1
    config.optimizer.learning_rate, config.optimizer.schedule = 1e-4, "constant"
    return config
