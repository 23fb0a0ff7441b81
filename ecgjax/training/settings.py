"""Settings of a pretraining run, section by section."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ecgjax.augmentations.views import leaves_by_name
from ecgjax.data.settings import ColumnSettings, ColumnUse, DataSettings, SamplingSettings
from ecgjax.encoders.settings import EncoderSettings
from ecgjax.objectives.settings import MinerSettings, ObjectiveSettings, RelationSettings
from ecgjax.optim.settings import OptimizerSettings
from ecgjax.placement.settings import MeshSettings
from ecgjax.processes.watchdog import WatchdogSettings
from ecgjax.settings.bounds import ONE_OR_MORE, POSITIVE, SEED, ZERO_OR_MORE, between
from ecgjax.settings.health import HealthSettings
from ecgjax.settings.initialisation import InitSettings
from ecgjax.settings.leaf import Arguments, leaf, section
from ecgjax.settings.sections import arguments_by_name
from ecgjax.training.checkpoints.checkpoint_settings import CheckpointSettings
from ecgjax.training.compilation.compile_cache import AUTO
from ecgjax.training.debugging.debug_settings import DebugSettings
from ecgjax.training.profiling.profile_settings import ProfileSettings
from ecgjax.training.tasks.task_settings import TaskSettings


@dataclasses.dataclass(frozen=True, kw_only=True)
class DurationSettings:
    """`config.duration`: the length of a run."""

    value: float = leaf(100.0, "Length of the run in its unit.", bound=POSITIVE)
    unit: str = leaf("epochs", "Unit of the length.", choices=("epochs", "steps", "examples"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViewSettings:
    """`config.views`: numbers of segments and views that every recording becomes."""

    num: int = leaf(2, "Views of each segment.", bound=between(1, 256))
    segments: int = leaf(1, "Adjacent parts that a recording is cut into.", bound=between(1, 3600))


@dataclasses.dataclass(frozen=True, kw_only=True)
class TilingSettings:
    """`config.tiling`: split of the pairs of the global batch into tiles and over devices."""

    form: str = leaf("gathered", "Form of the pass.", choices=("gathered", "dense", "ring"))
    chunk: int | None = leaf(None, "Keys of a tile; None chooses by backend.", bound=ONE_OR_MORE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReconstructionSettings:
    """`config.reconstruction`: weights of reconstructing the views before masking, beside the objective."""

    weight: float = leaf(0.0, "Weight of the squared error.", bound=ZERO_OR_MORE)
    peak_weight: float = leaf(0.0, "Weight of the squared error about R peaks.", bound=ZERO_OR_MORE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MicroBatchSettings:
    """`config.micro_batch`: encoding of a batch in parts, which takes less memory."""

    parts: int = leaf(
        1, "Parts of a batch, encoded one after the other and again for the gradient: exact.", bound=ONE_OR_MORE
    )
    batch_norm: str = leaf("refuse", 'Batch norm; "per_part" has statistics of a part.', choices=("refuse", "per_part"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResumeSettings:
    """`config.resume`: what may differ between a run and its resumption."""

    allow: str = leaf("", 'Leaves or sections that may differ, with commas, as "data,batch_size,seed"; empty for none.')


@dataclasses.dataclass(frozen=True, kw_only=True)
class NonfiniteSettings:
    """`config.nonfinite`: what becomes of a run whose loss or gradient is not finite."""

    action: str = leaf(
        "stop", 'Answer; "skip" leaves such an update out, up to the numbers below.', choices=("stop", "skip")
    )
    most_in_a_row: int = leaf(10, "Updates in a row that may be left out.", bound=ZERO_OR_MORE)
    most_in_all: int = leaf(100, "Updates of the whole run that may be left out.", bound=ZERO_OR_MORE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MethodSettings:
    """The sections of a config that together name a loss.

    Attributes:
        objective: Settings of the loss.
        relation: Settings of the loss's relation.
        miner: Settings of the loss's miner.
    """

    objective: ObjectiveSettings
    relation: RelationSettings
    miner: MinerSettings

    @property
    def names(self) -> tuple[str | None, ...]:
        """Names of relation, miner and loss."""
        return self.relation.name, self.miner.name, self.objective.name


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProjectionSettings:
    """`config.second.head`: the head through which the second objective reads the encoder's features."""

    hidden: int | None = leaf(None, "Width of a hidden layer with ReLU; None for a linear head.", bound=ONE_OR_MORE)
    dim: int = leaf(128, "Numbers that the head makes of the features of a signal.", bound=ONE_OR_MORE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SecondSettings(MethodSettings):
    """`config.second`: a second objective, of the encoder's features through a head; none unless its loss is named."""

    objective: ObjectiveSettings = section(ObjectiveSettings)
    relation: RelationSettings = section(RelationSettings)
    miner: MinerSettings = section(MinerSettings)
    head: ProjectionSettings = section(ProjectionSettings)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainingSettings:
    """All settings of a pretraining, with those of its logging, evaluation and checkpoints."""

    seed: int = leaf(0, "Seed of initialisation, order and augmentation.", bound=SEED)
    data: DataSettings = section(DataSettings)
    sampling: SamplingSettings = section(SamplingSettings)
    batch_size: int = leaf(64, "Recordings of the global batch.", bound=between(1, 2**20))
    duration: DurationSettings = section(DurationSettings)
    encoder: EncoderSettings = section(EncoderSettings)
    init: InitSettings = section(InitSettings)
    views: ViewSettings = section(ViewSettings)
    augment: Mapping[str, Arguments] = arguments_by_name(leaves_by_name)
    objective: ObjectiveSettings = section(ObjectiveSettings)
    relation: RelationSettings = section(RelationSettings)
    miner: MinerSettings = section(MinerSettings)
    second: SecondSettings = section(SecondSettings)
    tiling: TilingSettings = section(TilingSettings)
    columns: ColumnSettings = section(ColumnSettings)
    task: TaskSettings = section(TaskSettings)
    reconstruction: ReconstructionSettings = section(ReconstructionSettings)
    micro_batch: MicroBatchSettings = section(MicroBatchSettings)
    optimizer: OptimizerSettings = section(OptimizerSettings)
    mesh: MeshSettings = section(MeshSettings)
    log_every: int = leaf(10, "Steps between lines of metrics.", bound=ONE_OR_MORE)
    pictures: int = leaf(
        2, "Training records whose views are drawn for TensorBoard when a run begins; 0 for none.", bound=between(0, 16)
    )
    eval_every: int = leaf(100, "Steps between evaluations of the loss on validation; 0 for none.", bound=ZERO_OR_MORE)
    eval_batches: int = leaf(4, "Validation batches of such an evaluation.", bound=ONE_OR_MORE)
    health: HealthSettings = section(HealthSettings)
    checkpoint: CheckpointSettings = section(CheckpointSettings)
    compile_cache: str = leaf(
        AUTO,
        'Folder of compiled programs, which a restart takes over: "workdir" for WORKDIR/compile_cache, "auto" for that '
        "on GPUs and TPUs and none on CPUs; empty for none.",
    )
    nonfinite: NonfiniteSettings = section(NonfiniteSettings)
    watchdog: WatchdogSettings = section(WatchdogSettings)
    resume: ResumeSettings = section(ResumeSettings)
    debug: DebugSettings = section(DebugSettings)
    profile: ProfileSettings = section(ProfileSettings)
    trackers: tuple[str, ...] = leaf(
        (), 'Services that are told the metrics too, such as ("wandb",).', choices=("wandb", "mlflow")
    )

    @property
    def method(self) -> MethodSettings:
        """Sections that together name the loss."""
        return MethodSettings(objective=self.objective, relation=self.relation, miner=self.miner)

    @property
    def methods(self) -> tuple[MethodSettings, ...]:
        """Sections of every objective: the first and, where it is named, the second."""
        return (self.method,) if self.second.objective.name is None else (self.method, self.second)

    @property
    def chosen_by_health(self) -> bool:
        """Whether the best checkpoint is chosen by the health metric, and so by labels."""
        return bool(self.health.task) and self.checkpoint.best.startswith("eval/knn_")

    @property
    def column_use(self) -> ColumnUse:
        """Columns of metadata that the run uses beside patient and signal, and the methods that use them."""
        return ColumnUse(
            settings=self.columns,
            methods=tuple(name for method in self.methods for name in method.names),
            augment=self.augment,
            task=self.task.name,
            balance=self.sampling.balance,
        )
