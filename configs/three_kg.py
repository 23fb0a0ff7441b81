"""3KG: views of one patient's recordings, with the dipole rotated and scaled (Gopal et al. 2021, arXiv 2106.04452).

    python -m ecgjax.pretrain --config=configs/three_kg.py --config.data.dir=DIR --workdir=runs/three_kg

The loss compares every ordered pair of one patient's embeddings with the embeddings of other patients alone. Where few
patients repeat, expect what `simclr` gives. Rotating and scaling the dipole removes amplitudes (hypertrophy).

Deviations: leads follow from the rotated VCG by the residual form, which is exact at zero strength, instead of through
the dipole alone, which loses a tenth of the signal; time masks are those of `dade_1m`, a window a lead; the encoder is
the ResNet-18 of `dml_hemodynamics`; Adam at 1e-3, warmed up and lowered in a cosine, are this project's. `small`: a
quarter of its widths, batches of 64.
"""

from ml_collections import ConfigDict

from ecgjax import defaults
from ecgjax.config.variants import variant_of


def get_config(arg: str = "") -> ConfigDict:
    """Returns the pretraining config; `arg` is `""` or `"small"`."""
    _, small = variant_of(arg)
    config = defaults.get_config()
    config.encoder.name = "resnet18:small" if small else "resnet18"
    config.batch_size = 64 if small else 256
    config.augment.random_crop.enabled = True
    config.augment.vcg.enabled = True
    config.augment.time_mask.enabled = True
    config.objective.name = "three_kg"
    config.objective.temperature = 0.1
    config.relation.name = "same_patient"
    config.optimizer.name, config.optimizer.weight_decay = "adam", 0.0
    return config
