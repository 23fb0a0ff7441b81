"""Settings of a fine-tuning run, section by section."""

from __future__ import annotations

import dataclasses

from ecgjax.data.settings import DataSettings
from ecgjax.optim.settings import OptimizerSettings
from ecgjax.placement.settings import MeshSettings
from ecgjax.processes.watchdog import WatchdogSettings
from ecgjax.settings.bounds import BELOW_ONE, ONE_OR_MORE, POSITIVE, PROBABILITY, SEED, SHARE, ZERO_OR_MORE, between
from ecgjax.settings.leaf import leaf, section
from ecgjax.settings.probe import FineTuneSettings, ProbeSettings
from ecgjax.training.checkpoints.checkpoint_settings import CheckpointSettings
from ecgjax.training.compilation.compile_cache import AUTO
from ecgjax.training.debugging.debug_settings import DebugSettings
from ecgjax.training.profiling.profile_settings import ProfileSettings
from ecgjax.training.settings import ResumeSettings


@dataclasses.dataclass(frozen=True, kw_only=True)
class StartSettings:
    """`config.init`: the pretrained encoder that training begins at."""

    source: str | None = leaf(None, "Run's workdir or exported model whose encoder is trained on.")
    step: int | None = leaf(None, "Step of the source's checkpoint; None for the latest.", bound=ONE_OR_MORE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class UpdateSettings:
    """`config.optimizer`: what AdamW does beside the rates of `config.training`."""

    warmup_fraction: float | None = leaf(
        None, "Share of the run that warm-up takes before the cosine; None for .1.", bound=PROBABILITY
    )
    final_fraction: float = leaf(0.0, "Share of the peak rate at the end of the cosine.", bound=PROBABILITY)
    weight_decay: float = leaf(1e-2, "Rate of weight decay.", bound=ZERO_OR_MORE)
    clip_norm: float | None = leaf(None, "Greatest norm of the gradient over all parameters.", bound=POSITIVE)
    ema_decay: float | None = leaf(
        None, "Decay of averaged weights, which looks at validation and the model then use.", bound=BELOW_ONE
    )

    @property
    def shared(self) -> OptimizerSettings:
        """The same as settings of an optimiser, of which `FineTuning` takes these leaves over."""
        return OptimizerSettings(
            warmup_fraction=self.warmup_fraction,
            final_fraction=self.final_fraction,
            weight_decay=self.weight_decay,
            clip_norm=self.clip_norm,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class FineTuningSettings:
    """All settings of a fine-tuning run."""

    seed: int = leaf(0, "Seed of the head, of the order of records, and of the labels that are drawn.", bound=SEED)
    task: str = leaf("", "Question, such as 'lvef<40', 'superdiagnostic:*' or a quantity such as 'age_years'.")
    label_fraction: float = leaf(1.0, "Share of the labelled training patients.", bound=SHARE)
    init: StartSettings = section(StartSettings)
    data: DataSettings = section(DataSettings)
    training: FineTuneSettings = section(lambda: ProbeSettings().finetune)
    optimizer: UpdateSettings = section(UpdateSettings)
    overlaps: str = leaf(
        "refuse",
        "What is done about validation and test records that were pretrained on.",
        choices=("refuse", "drop", "mark"),
    )
    mesh: MeshSettings = section(MeshSettings)
    log_every: int = leaf(10, "Steps between lines of metrics.", bound=ONE_OR_MORE)
    checkpoint: CheckpointSettings = section(CheckpointSettings)
    resume: ResumeSettings = section(ResumeSettings)
    compile_cache: str = leaf(
        AUTO,
        'Folder of compiled programs, which a restart takes over: "workdir" for WORKDIR/compile_cache, "auto" for that '
        "on GPUs and TPUs and none on CPUs; empty for none.",
    )
    watchdog: WatchdogSettings = section(WatchdogSettings)
    debug: DebugSettings = section(DebugSettings)
    profile: ProfileSettings = section(ProfileSettings)
    trackers: tuple[str, ...] = leaf(
        (), 'Services that are told the metrics too, such as ("wandb",).', choices=("wandb", "mlflow")
    )
    bootstrap: int = leaf(2000, "Resamples of the test patients for intervals.", bound=between(100, 10**6))
    groups: tuple[str, ...] = leaf(
        ("sex", "age"), 'Groups of test patients: any scalar or class of the data set too, "=site", or "dataset".'
    )
    with_signatures: bool = leaf(
        False,
        "Whether the signatures of the records that the model has seen leave with it, by which evaluations find them.",
    )


#: Leaves, or beginnings of their paths, that may differ when a run is resumed, beside those of every run: where the
#: encoder lies, whose weights are compared, and how the result is told.
MAY_CHANGE = ("init.source", "bootstrap", "groups", "with_signatures")
