"""SimCLR: a recording's views against those of other patients (Chen et al. 2020), on VCG views (Gopal et al. 2021).

    python -m data_pipelines.build --builder=ptbxl --source=DIR --out=data/ptbxl --target_rate_hz=250
    python -m ecgjax.pretrain --config=configs/simclr.py --config.data.dir=data/ptbxl --workdir=runs/simclr
    python -m ecgjax.evaluate --workdir=runs/simclr
    python -m ecgjax.pretrain --config=configs/simclr.py:patients --config.data.dir=data/ptbxl --workdir=runs/patients

After pretraining on all of PTB-XL expect a linear probe well above the random encoder's; a few hundred records are too
few to show it. Views rotate and scale the heart's dipole (vectorcardiogram, VCG), so that the encoder learns less of
what amplitudes tell (hypertrophy) than with masks alone (`--config.augment.vcg.enabled=False`).

Deviations from the publication, which is about photographs: the encoder is the ResNet-18 of `dml_hemodynamics`, whose
last layer is the projection; other recordings of the same patient are no negatives; AdamW instead of LARS, for batches
of 64. `patients`, which is ours: beside the views of a recording, a patient's recordings are positives of a second loss
on the features, with a head of its own (docs/objectives.md); batches hold pairs of recordings of one patient. `small`:
the encoder at a quarter of its widths.
"""

from ml_collections import ConfigDict

from ecgjax import defaults
from ecgjax.config.variants import variant_of


def get_config(arg: str = "") -> ConfigDict:
    """Returns the pretraining config; `arg` is `""` or `"patients"`, with or without `"small"`."""
    variant, small = variant_of(arg, ("", "patients"))
    config = defaults.get_config()
    config.encoder.name = "resnet18:small" if small else "resnet18"
    config.augment.random_crop.enabled = True
    config.augment.vcg.enabled = True
    config.augment.time_mask.enabled = True
    config.objective.name = "nt_xent"
    config.objective.temperature = 0.1
    config.relation.name = "same_record"
    if variant == "patients":
        config.sampling.name = "patients"
        config.second.objective.name = "nt_xent"
        config.second.objective.temperature = 0.1
        config.second.relation.name = "same_patient"
        config.second.head.hidden = 512
    return config
