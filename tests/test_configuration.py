import pytest
from absl import flags

from configs import quickstart, simclr_ptbxl
from data_pipelines.errors import DataError
from ecgjax import configuration
from ecgjax.configuration import ConfigError


@pytest.mark.parametrize(
    "config", [simclr_ptbxl.get_config(), simclr_ptbxl.get_config("small"), quickstart.get_config()]
)
def test_resolved_config_comes_back_as_it_was(tmp_path, config):
    configuration.write_resolved(config, tmp_path)
    assert configuration.load_resolved(tmp_path).to_dict() == config.to_dict()
    assert [path.name for path in tmp_path.iterdir()] == [configuration.CONFIG_FILE]


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(ConfigError, match="is not the folder of a pretraining run"):
        configuration.load_resolved(tmp_path / "nowhere")


def test_resume_names_every_leaf_that_differs(tmp_path):
    config = simclr_ptbxl.get_config()
    configuration.check_resume(config, tmp_path)
    configuration.write_resolved(config, tmp_path)
    configuration.check_resume(config, tmp_path)
    config.batch_size = 32
    config.augment.vcg.max_angle_deg = 30.0
    config.data.train_folds = (1, 2)
    with pytest.raises(ConfigError) as error:
        configuration.check_resume(config, tmp_path)
    for part in (
        "batch_size was 64 and is 32",
        "augment.vcg.max_angle_deg was 45.0 and is 30.0",
        "data.train_folds was",
    ):
        assert part in str(error.value)


def test_where_the_data_lie_and_how_often_things_happen_may_change(tmp_path):
    config = simclr_ptbxl.get_config()
    configuration.write_resolved(config, tmp_path)
    config.data.dir = "elsewhere"
    config.data.store = "packed"
    config.log_every = 3
    config.checkpoint.every = 7
    config.probe.label = "sex"
    configuration.check_resume(config, tmp_path)


@pytest.mark.parametrize(
    ("value", "unit", "steps"),
    [(10.0, "steps", 10), (2.0, "epochs", 50), (0.5, "epochs", 13), (65.0, "examples", 17), (1.0, "examples", 1)],
)
def test_durations(value, unit, steps):
    config = simclr_ptbxl.get_config()
    config.duration.update({"value": value, "unit": unit})
    assert configuration.num_steps(config.duration, batch_size=4, examples_per_epoch=100) == steps


@pytest.mark.parametrize(
    ("value", "unit", "message"), [(1.0, "hours", "unknown; there are: steps"), (0.0, "epochs", "not a single")]
)
def test_bad_durations(value, unit, message):
    config = simclr_ptbxl.get_config()
    config.duration.update({"value": value, "unit": unit})
    with pytest.raises(ConfigError, match=message):
        configuration.num_steps(config.duration, batch_size=4, examples_per_epoch=100)


@pytest.mark.parametrize("error", [ConfigError("no such lead"), DataError("no such lead")])
def test_errors_of_the_user_print_one_line(error, capsys):
    def main(_):
        raise error

    with pytest.raises(SystemExit) as status:
        configuration.run(main, argv=["program"], flags_parser=lambda argv: flags.FLAGS(argv[:1]))
    assert status.value.code == configuration.EXIT_USER_ERROR
    assert capsys.readouterr().err == "error: no such lead\n"


def test_a_stray_argument_is_an_error(capsys):
    with pytest.raises(SystemExit) as status:
        configuration.run(lambda _: 0, argv=["program", "x"], flags_parser=lambda argv: argv)
    assert status.value.code == configuration.EXIT_USER_ERROR
    assert "unexpected argument 'x'" in capsys.readouterr().err


def test_bugs_keep_their_trace():
    def main(_):
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        configuration.run(main, argv=["program"], flags_parser=lambda argv: flags.FLAGS(argv[:1]))
