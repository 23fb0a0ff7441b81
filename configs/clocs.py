"""CLOCS: other parts of the time and other leads of a recording are positives (Kiyasseh et al. 2021).

    python -m ecgjax.pretrain --config=configs/clocs.py:cmsc --config.data.dir=DIR --workdir=runs/cmsc
    python -m ecgjax.pretrain --config=configs/clocs.py:cmlc --config.data.dir=DIR --workdir=runs/cmlc
    python -m ecgjax.pretrain --config=configs/clocs.py:cmsmlc --config.data.dir=DIR --workdir=runs/cmsmlc

Both halves of every recording, every lead by itself through one network, nothing augmented: a recording becomes 24
rows. `cmsc` holds the halves of one lead against each other, `cmlc` the leads of one half, `cmsmlc` all of them.
Patients' other recordings are positives too, by the method, and stay in the denominators.

Deviations: the average over all view pairs, where the authors' code keeps the last pair only (a recording drawn twice
counts as two of its patient's, but never as a pair with what shows the same half and lead); all 12 leads where the
paper takes four of them, and every one of them in every batch. Halves are interpolated to the published 2,500 samples
(5 s at 500 Hz); at 250 Hz `--config.encoder.input_samples=1250` takes them as they are, at half the cost and with half
the places. `small`: batches of 32; the network is small as published.
"""

from ml_collections import ConfigDict

from ecgjax import defaults
from ecgjax.config.variants import variant_of

RELATIONS = {"cmsc": "other_segment", "cmlc": "other_lead", "cmsmlc": "other_segment_or_lead"}


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config; `arg` is one of `cmsc`, `cmlc` and `cmsmlc`, with or without `,small`."""
    variant, small = variant_of(arg, tuple(RELATIONS))
    config = defaults.get_config()
    config.encoder.name = "clocs_cnn:small" if small else "clocs_cnn"
    config.encoder.input_samples = 2500
    config.batch_size = 32 if small else 256
    config.views.segments, config.views.num = 2, 1
    config.objective.name = "clocs"
    config.objective.temperature = 0.1
    config.relation.name = RELATIONS[variant]
    config.optimizer.name, config.optimizer.weight_decay = "adam", 0.0
    config.optimizer.learning_rate, config.optimizer.schedule = 1e-4, "constant"
    return config
