"""PCLR: recordings of one patient are positives, whatever happened between them (Diamant et al. 2022).

    python -m ecgjax.pretrain --config=configs/pclr.py --config.data.dir=DIR --workdir=runs/pclr

A batch holds two recordings of each patient, and nothing is augmented: the two differ by what changes between visits.
Expect good probes for what stays (age, sex, ejection fraction) and poor ones for acute states, such as potassium at the
visit, because these positives teach the encoder to ignore them. The only recording of a patient is drawn twice; it is
no positive of itself, and serves only as a negative of others. `train/anchors_without_positive` counts such rows. Data
sets in which few patients repeat (PTB-XL) give almost no positives; data in which no patient repeats are refused.

Deviations: patients with one recording are negatives, where the publication's patients all had two or more; all
recordings of a patient that a batch happens to hold are positives, and not only the two that were drawn together; 12
leads follow from the 8 stored ones; recordings are interpolated to 4,096 samples on the device instead of beforehand;
Adam at 1e-3, warmed up and lowered in a cosine, with batches of 512, the publication's rates having been searched for
its own data. `small`: the encoder at a quarter of its widths and half the samples, batches of 64.

References:
    Diamant et al., Patient contrastive learning, PLOS Computational Biology 18, 2022.
"""

from ml_collections import ConfigDict

from ecgjax import defaults
from ecgjax.config.variants import variant_of


def get_config(arg: str = "") -> ConfigDict:
    """Returns the pretraining config; `arg` is `""` or `"small"`."""
    _, small = variant_of(arg)
    config = defaults.get_config()
    config.encoder.name = "pclr_resnet:small" if small else "pclr_resnet"
    config.encoder.embedding_dim = 80 if small else 320
    config.sampling.name, config.sampling.records_per_patient = "patients", 2
    config.batch_size = 64 if small else 512
    config.views.num = 1
    config.objective.name = "nt_xent"
    config.objective.temperature = 0.1
    config.relation.name = "same_patient"
    config.optimizer.name, config.optimizer.weight_decay = "adam", 0.0
    return config
