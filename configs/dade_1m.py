"""Contrastive pretraining on a million ECGs with TemporalNet (Dade et al. 2026, Heart Rhythm O2).

    python -m ecgjax.pretrain --config=configs/dade_1m.py --config.data.dir=DIR --workdir=runs/dade
    python -m ecgjax.pretrain --config=configs/dade_1m.py:dual --config.data.dir=DIR --workdir=runs/dade_dual
    python -m ecgjax.pretrain --config=configs/dade_1m.py:intersegment --config.data.dir=DIR --workdir=runs/dade_32

Two crops of 5 s are cut from every recording; the dipole is rotated and scaled, and half of each lead is masked. One
network embeds each of the eight leads (`single`), or one embeds {I, II, V5, V6} and another {V1–V4} (`dual`). All pairs
of a recording's embeddings are positives: 120 pairs of 16 (`single`), 6 pairs of 4 (`dual`), and 496 pairs of 32 where
both halves of every recording take the place of crops (`intersegment`). Other recordings of the same patient are
further positives, and rare, because recordings are drawn, not patients.

Deviations: the loss is averaged over all view pairs, where the authors' code keeps the last one; views rotate the
dipole by the residual form (`ecgjax.augmentations.dipole.vcg`). The published batch of 512 makes 1,024 views of 14 GMAC
each: many devices, or `--config.micro_batch.parts` with `--config.micro_batch.batch_norm=per_part`. `small`: widths 4
to 16, batches of 16.
"""

from ml_collections import ConfigDict

from ecgjax import defaults
from ecgjax.config.variants import variant_of


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config; `arg` is `single` (the default), `dual` or `intersegment`, with or without `,small`."""
    variant, small = variant_of(arg, ("single", "dual", "intersegment"))
    config = defaults.get_config()
    config.encoder.name = "temporal_net_dual" if variant == "dual" else "temporal_net"
    config.encoder.name += ":small" if small else ""
    config.encoder.num_leads = 8
    config.batch_size = 16 if small else 512
    if variant == "intersegment":
        config.views.segments = 2
    else:
        config.augment.random_crop.enabled = True
    config.augment.vcg.enabled = True
    config.augment.time_mask.enabled = True
    config.objective.name = "clocs"
    config.objective.temperature = 0.1
    config.relation.name = "same_record"
    config.optimizer.name, config.optimizer.weight_decay = "adam", 0.0
    config.optimizer.learning_rate, config.optimizer.eps = 1e-4, 1e-4
    config.optimizer.schedule, config.optimizer.clip_norm = "constant", 1.0
    config.duration.value = 210.0
    return config
