"""Every leaf of a pretraining config, at values that no method asks to be otherwise.

The configs of methods begin with it and set what is theirs. It is none itself: no objective is named here.
"""

from ml_collections import ConfigDict, config_dict

from ecgjax import encoders, optim
from ecgjax.augmentations import views
from ecgjax.finetuning import trainer
from ecgjax.objectives.objective import default_config
from ecgjax.training import heads


def get_config() -> ConfigDict:
    """Returns the leaves."""
    config = ConfigDict()
    config.seed = 0

    config.data = ConfigDict()
    config.data.dir = ""  # a data set made by python -m data_pipelines.build, or several with commas between
    config.data.weights = ()  # shares of several data sets in every batch; without, every recording comes equally often
    config.data.store = "auto"  # the packed copy where there is one, else ArrayRecord
    config.data.allow_bad_shards = False  # True: rows of shards that cannot be read are left out instead of an error
    config.data.links = ""  # what python -m data_pipelines.link wrote; without, only equal recordings are kept apart
    config.data.train_folds = (1, 2, 3, 4, 5, 6, 7, 8)
    config.data.val_folds = (9,)
    config.data.test_folds = (10,)

    config.sampling = ConfigDict()
    config.sampling.name = "records"  # or "patients": records_per_patient of each
    config.sampling.records_per_patient = 2
    config.sampling.balance = ConfigDict()
    config.sampling.balance.label = ""  # as much of every class of this label in every batch
    config.sampling.balance.rule = "present"  # or "below", "above" a threshold; or "classes", whole numbers
    config.sampling.balance.threshold = config_dict.placeholder(float)
    config.batch_size = 64  # recordings of the global batch
    config.duration = ConfigDict({"value": 100.0, "unit": "epochs"})  # or steps, or examples

    # Every setting of every encoder is a leaf; None is the encoder's own, published default.
    config.encoder = encoders.default_config()
    config.encoder.embedding_dim = 128

    config.views = ConfigDict()
    config.views.num = 2  # of each segment
    config.views.segments = 1  # adjacent parts that a recording is cut into

    # Every augmentation with its published settings; docs/augmentations.md tells what each changes.
    config.augment = views.default_config()

    # Every setting of every loss, relation and miner is a leaf; None is the method's own default.
    config.objective, config.relation, config.miner = default_config()
    config.objective.learn = ()  # settings to learn, such as ("temperature",)
    config.objective.weight = 1.0

    config.tiling = ConfigDict()  # how pairs of the global batch are gone through
    config.tiling.form = "gathered"  # or dense, ring
    config.tiling.chunk = config_dict.placeholder(int)  # keys a tile; None chooses by backend

    config.columns = ConfigDict()  # of what some relations and miners look at
    config.columns.label = ""  # a scalar, or a class of a task
    config.columns.rule = "values"  # as they are; or "present", or "below", "above" a threshold
    config.columns.threshold = config_dict.placeholder(float)
    config.columns.components = 50  # principal components of physiology; 0 for all measurements
    config.columns.clusters = 40  # of wave attributes
    config.columns.signal_distance = "l1"  # or "l2", "dtw": in signal space
    config.columns.signal_downsample = 10  # samples averaged into one before signals are compared
    config.columns.signal_radius = config_dict.placeholder(int)  # of the band of "dtw", in such samples
    config.columns.signal_farthest = 2
    config.columns.paired = (
        ""  # folder of another modality's embeddings, see data_pipelines.physiology.paired_embeddings
    )

    config.task = heads.default_config()  # a label predicted beside the objective: "binary" or "regression"

    config.reconstruction = ConfigDict()  # of the views before they were masked, beside the objective
    config.reconstruction.weight = 0.0
    config.reconstruction.peak_weight = 0.0  # about R peaks

    config.micro_batch = ConfigDict()
    config.micro_batch.parts = 1  # encoded one after the other and again for the gradient: exact, in less memory
    config.micro_batch.batch_norm = "refuse"  # or "per_part": statistics of a part instead of the batch's

    config.optimizer = optim.default_config()
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 1e-2

    config.mesh = ConfigDict()
    config.mesh.model = 1  # devices that share every row of the batch; the others divide its rows
    config.mesh.sharding = "replicated"  # every device holds all parameters
    # Exceptions from that, "REGEX=AXIS,AXIS": the first that is found in a parameter's path lays out its dimensions; an
    # empty axis leaves a dimension whole.
    config.mesh.rules = ()

    config.log_every = 10
    config.eval_every = 100
    config.eval_batches = 4
    config.checkpoint = ConfigDict()
    config.checkpoint.every = 100
    config.checkpoint.keep = 2

    config.probe = ConfigDict()
    config.probe.label = "superdiagnostic:NORM"  # or "superdiagnostic:*", all classes
    config.probe.rule = "present"  # or "below", "above" a threshold; or "values", a quantity
    config.probe.threshold = config_dict.placeholder(float)
    config.probe.label_fraction = 1.0
    config.probe.seed = 0
    config.probe.layer = "features"  # pooled activations; or "embedding", after the last layer
    config.probe.overlaps = "refuse"  # if tested records were pretrained on; or "drop" them, or "mark" the report
    config.probe.bootstrap = 2000
    config.probe.groups = ("sex", "age")  # of patients: any scalar or class of the data set too, "=site", or "dataset"
    config.probe.prevalence = config_dict.placeholder(float)  # at which PPV and NPV are told beside the records' own
    config.probe.treat_at = (0.1, 0.2)  # probabilities from which one would treat, at which net benefit is told
    config.probe.shuffles = 10
    # Training with labels; of each, `metric` is metric learning beside the task.
    config.probe.supervised = trainer.default_config()  # from random initialisation
    config.probe.finetune = trainer.default_config()  # and from a checkpoint
    config.probe.finetune.learning_rate = 3e-4
    config.probe.finetune.head_learning_rate = 3e-3
    return config
