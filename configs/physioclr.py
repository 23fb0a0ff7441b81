"""PhysioCLR: recordings of similar physiology are positives; signals are reconstructed (Maghsoodi et al. 2025).

    python -m data_pipelines.build … --target_rate_hz=500 --physiology
    python -m ecgjax.pretrain --config=configs/physioclr.py --config.data.dir=DIR --workdir=runs/physioclr

A recording has two adjacent segments of 5 s. Each is used as it is and with its heartbeats shuffled, with leads dropped
at random, which makes four embeddings a recording. Positives of a recording are its other embeddings, and recordings
whose standardised physiology has a cosine of at least .25 with its own; the others are negatives. The loss adds .2
times the reconstruction error and .1 times the error about R peaks. Expect the encoder to learn first what the measured
physiology holds.

Deviations, with reasons: the contrastive term is the multi-positive one with the sum outside the log and without the
anchor among its positives, the published one being unbounded and saturated; adjacent segments are those of the
recording and not the next row of the batch; each of the two segments is shuffled; the learning rate warms up and falls
in a cosine; reconstruction is in units of each signal's deviation, since the encoder's first normalisation removes the
amplitude; the peak term is within 50 ms of each R peak; the principal components are of the measurements that this
project stores; weight decay concerns kernels (`--config.optimizer.decayed=all`: every parameter, as PyTorch's Adam
does); of the leads that are dropped at random one always stays; recordings with a constant lead are flagged by the
build and not dropped. One batch of 1,024 with all its negatives, encoded in 16 parts, where four devices of 64 and four
accumulated gradients saw 64 negatives each. `small`: 3 layers of 96, batches of 32.

References:
    Maghsoodi et al., PhysioCLR, 2025 (arXiv 2509.08116).
"""

from ml_collections import ConfigDict

from ecgjax import defaults
from ecgjax.config.variants import variant_of


def get_config(arg: str = "") -> ConfigDict:
    """Returns the pretraining config; `arg` is `""` or `"small"`."""
    _, small = variant_of(arg)
    config = defaults.get_config()
    config.encoder.name = "physio_transformer:small" if small else "physio_transformer"
    config.encoder.decoder = True
    config.batch_size = 32 if small else 1024
    config.micro_batch.parts = 1 if small else 16
    config.views.segments, config.views.num = 2, 2
    config.augment.heartbeat_shuffle.enabled, config.augment.heartbeat_shuffle.views = True, (1,)
    config.augment.lead_mask.enabled = True
    config.objective.name = "nt_xent"
    config.objective.temperature, config.objective.positives = 0.1, "outside"
    config.relation.name, config.relation.min_cosine = "similar_physiology", 0.25
    config.reconstruction.weight, config.reconstruction.peak_weight = 0.2, 0.1
    config.optimizer.name, config.optimizer.weight_decay = "adam", 0.01
    config.optimizer.learning_rate, config.optimizer.b2 = 5e-5, 0.98
    config.duration.value = 200.0
    return config
