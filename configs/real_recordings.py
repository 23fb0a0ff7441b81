r"""Five systems pretrained without PTB-XL, whose frozen encoders are cross-validated on 500 of its records.

    build() { python -m data_pipelines.build --out=data/$1 --target_rate_hz=100 --physiology --median_beat "${@:2}"; }
    build simulated --builder=simulated --num_patients=5600
    build code15 --builder=code15 --source=CODE15
    build cinc --builder=physionet2021 --source=CINC --sets=cpsc,georgia,chapman_shaoxing,ningbo
    build georgia --builder=physionet2021 --source=GEORGIA
    build ptbxl --builder=ptbxl --source=PTBXL
    python -m data_pipelines.link --dataset=data/ptbxl --out=data/ptbxl.npz
    for system in simclr dml physioclr dade waves; do
        python -m ecgjax.pretrain --config=configs/real_recordings.py:$system --workdir=runs/real/$system \
            --config.data.dir=data/simulated,data/code15,data/cinc,data/georgia; done
    python -m ecgjax.cross_validate --dataset=data/ptbxl --links=data/ptbxl.npz --out=runs/real/cv \
        --workdir=runs/real/simclr --workdir=runs/real/dml --workdir=runs/real/physioclr --workdir=runs/real/dade \
        --workdir=runs/real/waves --task=NORM --task=female --task=superdiagnostic --fractions=.1,.5,1 --seeds=3

docs/results.md has the results. All but the number of steps was fixed, here and in `cross_validation`, before a label
of PTB-XL was looked at: the systems are as published, in their small form; batches have 64 recordings, half simulated
and half real; the four share the learning rate and schedule of the ablations on simulated data. `waves` came later: it
predicts measured intervals and amplitudes, as simulated recordings chose it (docs/results.md), at the rate that was
chosen there. With 200 steps, as first tested, SimCLR was below a random encoder on PTB-XL and on CODE-15; 1,000 were
chosen on CODE-15's sex. PTB-XL's records within the CinC sets are left out by name, and `cross_validate` refuses a
record whose copy or patient an encoder has seen.
"""

from ml_collections import ConfigDict

from ecgjax.config import recipes
from ecgjax.config.variants import variant_of

SYSTEMS = {
    "simclr": "simclr:small",
    "dml": "dml_hemodynamics:l1,small",
    "physioclr": "physioclr:small",
    "dade": "dade_1m:single,small",
    "waves": "measured_waves:alone,small",
}


def get_config(arg: str = "") -> ConfigDict:
    """Returns the pretraining config of a system; `arg` is a key of `SYSTEMS`, by default the first."""
    system, _ = variant_of(arg, tuple(SYSTEMS))
    config = recipes.load_recipe(SYSTEMS[system])
    config.data.weights = (0.5, 0.35, 0.08, 0.07)  # simulated, and three real data sets
    config.batch_size = 64
    config.duration.value, config.duration.unit = 1000.0, "steps"
    config.optimizer.learning_rate, config.optimizer.schedule = 1e-3, "warmup_cosine"
    if system == "waves":
        config.optimizer.learning_rate = 3e-3
    else:
        config.columns.signal_downsample = 4  # of 100 Hz: 25 Hz, as the publication's setting leaves of 250
    config.eval_every, config.eval_batches, config.log_every = 100, 2, 20
    config.checkpoint.every, config.checkpoint.keep = 100, 1
    return config
