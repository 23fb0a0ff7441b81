"""Settings of the data: which recordings are read, how they are drawn, and which columns are used beside signals."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ecgjax.settings.bounds import ONE_OR_MORE, POSITIVE, SHARE, ZERO_OR_MORE
from ecgjax.settings.leaf import Arguments, leaf

#: Column that holds the targets of each task, by the task's name.
TASK_COLUMNS: Mapping[str, str] = {"binary": "label", "regression": "label", "measurements": "measured"}


def folders_of(text: str) -> tuple[str, ...]:
    """Returns the folders that a setting names, with commas between; a part without a name is an empty text."""
    return tuple(part.strip() for part in text.split(","))


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSettings:
    """`config.data`: the recordings of a run."""

    dir: str = leaf("", "Folder of a data set made by python -m data_pipelines.build, or several with commas between.")
    weights: tuple[float, ...] = leaf(
        (), "Shares of several data sets in every batch; without, every recording comes equally often.", bound=POSITIVE
    )
    store: str = leaf(
        "auto", 'Storage; "auto" is the packed copy where there is one.', choices=("auto", "packed", "arrayrecord")
    )
    allow_bad_shards: bool = leaf(False, "Whether rows of shards that cannot be read are left out instead of an error.")
    links: str = leaf(
        "", "File that python -m data_pipelines.link wrote; without, only equal recordings are kept apart."
    )
    train_folds: tuple[int, ...] = leaf((1, 2, 3, 4, 5, 6, 7, 8), "Folds that are trained on.")
    val_folds: tuple[int, ...] = leaf((9,), "Folds that choices are made on.")
    test_folds: tuple[int, ...] = leaf((10,), "Folds that results are told for.")

    @property
    def directories(self) -> tuple[str, ...]:
        """Folders of the data sets."""
        return folders_of(self.dir)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """`config.sampling`: how recordings are drawn."""

    name: str = leaf(
        "records",
        'Unit that is drawn; "patients" with several recordings of each, "neighbours" two that are near each other.',
        choices=("records", "patients", "neighbours"),
    )
    records_per_patient: int = leaf(2, 'Recordings of each patient by "patients".', bound=ONE_OR_MORE)
    balance: str = leaf(
        "",
        "Question of which every batch holds as many recordings of each answer, such as 'lvef<40', "
        "'superdiagnostic:NORM', or a label of whole numbers, each a class of its own; empty for none.",
    )
    shuffle: str = leaf(
        "full",
        'Where the next recording may lie: anywhere ("full"), or within a window of blocks that follow each other on '
        'the disk ("blocks"), for disks that are slow at random.',
        choices=("full", "blocks"),
    )
    block: int = leaf(256, 'Recordings of a block of "blocks".', bound=ONE_OR_MORE)
    window: int = leaf(32, 'Blocks of a window of "blocks".', bound=ONE_OR_MORE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ColumnSettings:
    """`config.columns`: metadata that some relations, miners and heads use beside patient and signal."""

    task: str = leaf(
        "",
        "Question whose answers are the labels: 'lvef<40', 'superdiagnostic:NORM', or a quantity or whole-numbered "
        "classes by the label's name, such as 'wedge_pressure'.",
    )
    label_fraction: float = leaf(1.0, "Share of the labelled training patients whose labels are used.", bound=SHARE)
    class_width: float | None = leaf(
        None,
        "Width of the classes that relations and miners see a quantity as, in its unit; None for its values.",
        bound=POSITIVE,
    )
    measured_on: str = leaf(
        "beats",
        'What config.task.name=measurements was measured on: every beat of lead II ("beats"), or the median beat, with '
        'amplitudes in every lead ("median_beat").',
        choices=("beats", "median_beat"),
    )
    measurements: tuple[str, ...] = leaf(
        (),
        'Measurements that config.task.name=measurements predicts, or groups of them, as ("intervals","rate"); empty '
        "for all.",
    )
    without_measurements: tuple[str, ...] = leaf((), "Measurements, or groups of them, that are left out of these.")
    components: int = leaf(50, "Principal components of physiology; 0 for all measurements.", bound=ZERO_OR_MORE)
    clusters: int = leaf(40, "Clusters of wave attributes.", bound=ONE_OR_MORE)
    signal_distance: str = leaf("l1", "Distance in signal space.", choices=("l1", "l2", "dtw"))
    signal_downsample: int = leaf(10, "Samples averaged into one before signals are compared.", bound=ONE_OR_MORE)
    signal_radius: int | None = leaf(None, 'Half width of the band of "dtw", in averaged samples.', bound=ZERO_OR_MORE)
    signal_farthest: int = leaf(2, "Number of farthest signals that a negative is drawn from.", bound=ONE_OR_MORE)
    neighbour_space: str = leaf(
        "signal",
        "Space in which python -m data_pipelines.neighbours has found the nearest recordings.",
        choices=("signal", "median_beat"),
    )
    neighbours: int | None = leaf(None, "Nearest of the stored neighbours that count; None for all.", bound=ONE_OR_MORE)
    paired: str = leaf(
        "", "Folder of another modality's embeddings for each data set (data_pipelines.physiology.paired_embeddings)."
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ColumnUse:
    """Metadata that a pretraining uses beside patient and signal, and the methods that use it.

    Attributes:
        settings: Settings of the columns.
        methods: Names of the relation, the miner and the loss; None where there is none.
        augment: Settings of the augmentations by name.
        task: Name of the task that is predicted beside the objective; empty for none.
        balance: Question of balanced batches; empty for none.
    """

    settings: ColumnSettings
    methods: tuple[str | None, ...]
    augment: Mapping[str, Arguments]
    task: str = ""
    balance: str = ""
