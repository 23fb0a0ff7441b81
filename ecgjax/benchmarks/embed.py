"""Speed of the two steps between a pretrained encoder and a probe: embedding recordings and fitting the probe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from data_pipelines.benchmarks import harness
from data_pipelines.records import SignalFormat
from ecgjax.benchmarks import step_ceilings
from ecgjax.benchmarks.training_step import describe, with_data
from ecgjax.data.recordings import open_recordings
from ecgjax.encoders import PRECISIONS, cost
from ecgjax.evaluation.features import frozen_encoder
from ecgjax.evaluation.features.features import map_records
from ecgjax.evaluation.models.fitted import Examples
from ecgjax.evaluation.models.kinds import KINDS
from ecgjax.evaluation.models.linear import fit_linear
from ecgjax.training.settings import PretrainingSettings

#: Numbers of recordings embedded in each repetition and at a time, and of labels that the timed probe is fitted on and
#: selected by.
NUM_EMBEDDED = 2048
BATCH_SIZE = 256
NUM_LABELS, NUM_VALIDATION = 1000, 2000


def measure(
    settings: PretrainingSettings,
    *,
    simulated_format: SignalFormat = SignalFormat(sampling_rate_hz=250, num_samples=2500),  # noqa: B008
) -> dict[str, Any]:
    """Times a random encoder, from stored signals to embeddings, and the fit of a probe over all its L2 strengths.

    Args:
        settings: Settings of a pretraining run; if they name no data set, one is simulated.
        simulated_format: Rate and length of the simulated recordings.

    Returns:
        Values for JSON: `ecgs_per_sec` with reading; `read_frac`, the share of the time that reading alone takes;
        `flops_per_sec` of the encoder's products, and `matrix_product_flops_per_sec` of the same run to compare with;
        and `probe_s`, the seconds of a logistic regression on `NUM_LABELS` embeddings.
    """
    with with_data(settings.data, None, simulated_format) as data:
        recordings = open_recordings(data)
        # Speed does not depend on the weights, so that no checkpoint is needed.
        encoder = frozen_encoder.random_encoder(settings.encoder, layer="features", seed=0)
        # A small data set is read repeatedly; its signals then come from memory.
        records = np.resize(np.arange(recordings.index.num_records), NUM_EMBEDDED)

        def mapped(function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
            return map_records(
                function, records, read=recordings.store.read, batch_size=BATCH_SIZE, title="", progress=False
            )

        product = step_ceilings.matrix_product(PRECISIONS[settings.encoder.precision])
        embeddings = mapped(encoder.embed)
        rng = np.random.default_rng(0)
        features = rng.standard_normal((NUM_LABELS + NUM_VALIDATION, embeddings.shape[1])).astype(np.float32)
        labels = (features[:, 0] + rng.standard_normal(len(features)) > 1).astype(np.int64)

        def fit() -> None:
            fit_linear(
                Examples(
                    kind=KINDS["binary"],
                    train=features[:NUM_LABELS],
                    targets=labels[:NUM_LABELS],
                    val=features[NUM_LABELS:],
                    val_targets=labels[NUM_LABELS:],
                )
            )

        seconds = harness.take_turns(
            {
                "embed": lambda: mapped(encoder.embed),
                "read": lambda: mapped(lambda signals: signals[:, 0, 0]),
                "product": product.run,
                "probe": fit,
            }
        )
        shape = (recordings.format.num_samples, settings.encoder.num_leads)
        macs = cost.macs(encoder.split, shape)
        rate = 2.0 * macs * NUM_EMBEDDED / seconds["embed"]
        product_rate = product.amount / seconds["product"]
        return {
            **describe(settings.encoder, recordings),
            "layer": encoder.layer,
            "features": embeddings.shape[1],
            "macs_a_record": macs,
            "ecgs_per_sec": NUM_EMBEDDED / seconds["embed"],
            "read_frac": seconds["read"] / seconds["embed"],
            "flops_per_sec": rate,
            "matrix_product_flops_per_sec": product_rate,
            "of_matrix_product": rate / product_rate,
            "probe_s": seconds["probe"],
            "probe_labels": NUM_LABELS,
            "probe_validation": NUM_VALIDATION,
        }
