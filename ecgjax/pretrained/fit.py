"""Whether the recordings of an evaluation are what an encoder was pretrained to take, and whether they are the same."""

from __future__ import annotations

from ecgjax.data.moved import in_words
from ecgjax.data.recordings import Recordings
from ecgjax.errors import ConfigError
from ecgjax.model.preprocessor import difference, remedy_for
from ecgjax.pretrained.source import EncoderSource


def check_fits(source: EncoderSource, recordings: Recordings) -> None:
    """Refuses recordings of another rate or length than an encoder was pretrained on.

    For an exported model, which states its preparation as part of what it is, other filters are refused too.

    Args:
        source: Pretrained encoder.
        recordings: Recordings of the evaluation.

    Raises:
        ConfigError: The recordings do not fit the encoder; the message says how they are converted.
    """
    there, here = source.format, recordings.format
    if there is not None and there != here:
        raise ConfigError(
            f"{_flag(source)}={source.place} was pretrained on {there.num_samples} samples at {there.sampling_rate_hz} "
            f"Hz, and {recordings.name} has {here.num_samples} at {here.sampling_rate_hz} Hz: convert it with python "
            f"-m data_pipelines.build --builder=prepared --source={recordings.datasets[0].directory} "
            f"--target_rate_hz={there.sampling_rate_hz} --seconds={there.num_samples / there.sampling_rate_hz:g} "
            "--out=DIR"
        )
    if source.run is not None or source.preprocessor is None:
        return
    recipe = source.preprocessor.recipe
    for dataset in recordings.datasets:
        if unlike := difference(dataset.card["recipe"], recipe):
            raise ConfigError(
                f"--model={source.place}: the records of {dataset.card['name']} in {dataset.directory} were prepared "
                f"{unlike}; {remedy_for(recipe, str(dataset.directory))}"
            )


def _flag(source: EncoderSource) -> str:
    return "--workdir" if source.run is not None else "--model"


def other_data(source: EncoderSource, recordings: Recordings) -> tuple[str, ...]:
    """Returns a caution where other data sets lie in the folders that a run was pretrained on.

    Args:
        source: Pretrained encoder, of a run.
        recordings: Recordings that lie there now.
    """
    known = source.known_sets
    if not known or {each.fingerprint for each in known} == set(recordings.fingerprints):
        return ()
    return (
        f"The folders that the encoder was pretrained on held {in_words(known)} then and hold {recordings.name} "
        f"(fingerprint {', '.join(recordings.fingerprints)}) now, which are other recordings.",
    )
