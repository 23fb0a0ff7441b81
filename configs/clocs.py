"""CLOCS: other time segments and other leads of a recording are positives (Kiyasseh et al. 2021).

    python -m ecgjax.pretrain --config=configs/clocs.py:cmsc --config.data.dir=DIR --workdir=runs/cmsc
    python -m ecgjax.pretrain --config=configs/clocs.py:cmlc --config.data.dir=DIR --workdir=runs/cmlc
    python -m ecgjax.pretrain --config=configs/clocs.py:cmsmlc --config.data.dir=DIR --workdir=runs/cmsmlc

Every recording is cut into two halves, every lead goes by itself through the same network, and nothing is augmented: a
recording becomes 24 embeddings. Positive pairs of a recording are the two halves of one lead (`cmsc`), two leads of one
half (`cmlc`), or any two of its embeddings (`cmsmlc`). Other recordings of the same patient are positives too, as
published, and stay in the denominators.

Deviations: the loss is averaged over all view pairs, where the authors' code keeps the last pair only (a recording that
a batch holds twice counts as two recordings of its patient, but embeddings of the same half and lead of it are never a
pair); every batch holds all 12 leads, where the paper takes four. Halves are interpolated to the published 2,500
samples (5 s at 500 Hz); at 250 Hz `--config.encoder.input_samples=1250` leaves their length, at half the cost and with
half as many output positions. `small`: batches of 32; the network is small as published.
"""

from ml_collections import ConfigDict

from ecgjax import defaults
from ecgjax.config.variants import variant_of

RELATIONS = {"cmsc": "other_segment", "cmlc": "other_lead", "cmsmlc": "other_segment_or_lead"}


def get_config(arg: str = "") -> ConfigDict:
    """Returns the pretraining config; `arg` is `cmsc` (the default), `cmlc` or `cmsmlc`, with or without `,small`."""
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
