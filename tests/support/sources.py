"""Sources of pretrained encoders whose weights stand for a run's, which has no checkpoint."""

from pathlib import Path

from ecgjax import defaults
from ecgjax.evaluation.features import frozen_encoder
from ecgjax.pretrained.source import EncoderSource


def open_stand_in(place, *, step=None, layer=None):
    """Opens a run as `open_source` does, with whatever encoder `load_encoder` returns."""
    settings = defaults.settings_of_run(place)
    return EncoderSource(
        place=Path(place),
        encoder=frozen_encoder.load_encoder(place, step=step, layer=layer),
        settings=settings.encoder,
        statistics="running",
        format=None,
        data=(),
        weights_digest="0" * 32,
        run=settings,
    )
