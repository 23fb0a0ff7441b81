"""How frozen encoders are cross-validated on a small data set; it is fixed before any label of it is looked at.

    python -m ecgjax.cross_validate --workdir=runs/a --workdir=runs/b --dataset=data/ptbxl --task=NORM --task=female \
        --task=superdiagnostic --fractions=.1,.5,1 --seeds=3 --out=runs/cv

With five hundred records expect intervals of ±.03 to ±.06 about an AUROC, and half of that about a paired difference.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Returns the settings of `ecgjax.cross_validate`."""
    config = ConfigDict()
    config.outer_folds = 5  # of patients; a seed is another division
    config.inner_folds = 5  # of the patients that are left, to choose a strength by
    config.strengths = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # inverse L2 strengths C of a logistic regression
    config.min_positives = 10  # positive, and negative, records that a yes or no needs
    config.layer = "features"  # pooled activations; or "embedding", after the last layer
    config.readouts = ()  # of every encoder, beside the logistic regression on the layer: docs/evaluation.md lists them
    config.grid = ()  # random encoders of which the best on inner folds is tested, such as ("resnet18:small seed=1",)
    config.resamples = 2000  # of the patients, for intervals
    return config
