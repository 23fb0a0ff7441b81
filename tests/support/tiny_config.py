"""The smallest run that has everything: what the tests of whole runs train."""

from ml_collections import ConfigDict

from configs import simclr


def get_config() -> ConfigDict:
    config = simclr.get_config()
    config.encoder.widths = (4, 8)  # two stages compile in half the time of four
    config.encoder.kernel = 3
    config.encoder.embedding_dim = 8
    config.encoder.dropout = 0.2
    config.batch_size = 8
    config.duration.value, config.duration.unit = 120.0, "steps"
    config.log_every = 1
    config.pictures = 0  # drawing takes as long as the training
    config.eval_every = 25
    config.eval_batches = 1
    config.checkpoint.every = 10
    return config
