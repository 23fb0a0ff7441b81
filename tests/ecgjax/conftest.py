"""Shared by the tests of ecgjax: few batches that batch norm is recalibrated on."""

import pytest

from ecgjax.evaluation.features import frozen_encoder


@pytest.fixture(scope="session", autouse=True)
def few_batches_recalibrate():
    """Four batches, where a study takes 64 of up to 256 recordings: its test of them sets the number back.

    Without LLVM's optimisation, 64 take longer than all else of an export or an evaluation.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frozen_encoder, "RECALIBRATION_BATCHES", 4)
        yield
