"""How a pretrained encoder is trained on with labels; `probe` begins with the head at the linear probe.

    python -m ecgjax.finetune --config.init.source=runs/simclr --config.data.dir=data/ptbxl \
        --task=superdiagnostic:NORM --workdir=runs/norm
    python -m ecgjax.finetune --config=finetune:probe --config.init.source=models/simclr --config.data.dir=data/lvef \
        --task='lvef<40' --workdir=runs/lvef

`default` is what the studies call fine-tuning: all layers, the head from zeros at ten times the encoder's rate.
`probe` suits a few hundred labels: the head begins at the linear probe of the frozen features, blocks below learn more
slowly, and training ends once validation has not improved for four looks. Expect no less than the probe's own AUROC,
because the probe is one of the states that validation chooses from. `mlp` is the second stage of published deep metric
learning (`supervised_dml.py:two_stages`): a fresh linear-BN-ReLU-dropout-linear head, and everything trained on the
task alone for 2,000 steps at one rate of 1e-4 without weight decay.
"""

from ml_collections import ConfigDict

from ecgjax.config.variants import variant_of
from ecgjax.finetuning.settings import FineTuningSettings
from ecgjax.settings.sections import config_of

VARIANTS = ("default", "probe", "mlp")


def get_config(arg: str = "") -> ConfigDict:
    """Returns the settings of `ecgjax.finetune`."""
    variant, small = variant_of(arg, VARIANTS)
    config = config_of(FineTuningSettings)
    if variant == "probe":
        config.training.head_start = "probe"
        config.training.learning_rate, config.training.head_learning_rate = 1e-4, 1e-4
        config.training.layer_decay = 0.8
        config.training.patience = 4
    if variant == "mlp":
        config.training.head, config.training.steps = "mlp", 2000
        config.training.learning_rate = config.training.head_learning_rate = 1e-4
        config.optimizer.weight_decay = 0.0
    if small:
        config.training.steps, config.training.batch_size = 100, 32
    return config
