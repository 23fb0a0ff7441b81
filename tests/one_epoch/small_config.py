"""A SimCLR of an encoder small enough for a million recordings to be read in minutes."""

from ml_collections import ConfigDict

from configs import simclr


def get_config() -> ConfigDict:
    config = simclr.get_config()
    config.encoder.widths = (8, 16)
    config.encoder.kernel = 5
    config.encoder.embedding_dim = 32
    config.augment.vcg.enabled = False  # Views cost more than this encoder.
    config.data.train_folds, config.data.val_folds, config.data.test_folds = tuple(range(1, 11)), (), ()
    config.batch_size = 512
    config.duration.value, config.duration.unit = 1.0, "epochs"
    config.log_every = 20
    config.pictures = 0
    config.eval_every = 0
    config.checkpoint.every = 200
    return config
