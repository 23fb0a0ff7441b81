"""All wrong command lines, and the data and runs that they name."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from data_pipelines.prepared.dataset import CARD_FILE
from data_pipelines.system.digests import DIGESTS_FILE
from ecgjax.config.run_config import CONFIG_FILE, checkpoint_dir
from ecgjax.export.file_names import WEIGHTS_FILE
from tests.golden.commands import ROOT
from tests.project import (
    wrong_lines_of_data,
    wrong_lines_of_launch,
    wrong_lines_of_models,
    wrong_lines_of_pretraining,
    wrong_lines_of_studies,
)
from tests.support.forked_commands import Line, Running, run_module

#: What is run by a user without rights, where the tests are run by root.
_UNPRIVILEGED = ("{locked}", "{read_only}")

_OFTEN = wrong_lines_of_data.OFTEN | wrong_lines_of_pretraining.OFTEN

_OF_COMMAND = {
    **wrong_lines_of_data.OF_COMMAND,
    **wrong_lines_of_pretraining.OF_COMMAND,
    **wrong_lines_of_studies.OF_COMMAND,
    **wrong_lines_of_models.OF_COMMAND,
    **wrong_lines_of_launch.OF_COMMAND,
}

LINES: dict[str, list[Line]] = {
    command: [
        Line(
            command=command,
            arguments=tuple(shlex.split(arguments)),
            told=told,
            unprivileged=any(name in arguments for name in _UNPRIVILEGED),
            often=(arguments, *told) in _OFTEN.get(command, ()),
        )
        for arguments, *told in rows
    ]
    for command, rows in _OF_COMMAND.items()
}

TINY = ROOT / "tests" / "support" / "tiny_config.py"

#: Patients of the data set, and the rate it is stored at.
_PATIENTS, _RATE_HZ = 60, 100


def make_what_they_need(lines: Sequence[Line], folder: Path) -> dict[str, str]:
    """Makes what lines name.

    Args:
        lines: that are going to be run.
        folder: everything is made in it.

    Returns:
        Name → path.
    """
    given = " ".join(argument for line in lines for argument in line.arguments)
    made: dict[str, str] = {"tiny": str(TINY)}

    def make(name: str) -> Path:
        if name not in made:
            path = folder / _FILE_NAMES.get(name, name)
            _MAKERS[name](path, make)
            made[name] = str(path)
        return Path(made[name])

    for name in _MAKERS:
        if "{" + name + "}" in given:
            make(name)
    return made


def _run(folder: Path, command: str, *arguments: str) -> None:
    _forked(folder, lambda: run_module(command, arguments), f"{command} {shlex.join(arguments)}")


def _forked(folder: Path, work: Callable[[], int], what: str) -> None:
    process = Running(work, folder.with_name(f"{folder.name}.making"))
    status = os.waitstatus_to_exitcode(os.waitpid(process.pid, 0)[1])
    if status:
        raise RuntimeError(f"{what}: status {status}\n{process.outcome(status).errors}")


def _simulate(path: Path, *, patients: int, seed: int, rate_hz: int) -> None:
    size = (f"--num_patients={patients}", f"--seed={seed}", f"--target_rate_hz={rate_hz}")
    _run(path, "data_pipelines.build", "--builder=simulated", f"--out={path}", "--num_workers=1", *size)


Make = Callable[[str], Path]


def _pretrain(path: Path, make: Make) -> None:
    steps = ("--config.duration.value=2", "--config.checkpoint.every=1", "--config.eval_every=0")
    _run(path, "ecgjax.pretrain", f"--config={TINY}", f"--config.data.dir={make('data')}", *steps, f"--workdir={path}")


def _copy(path: Path, origin: Path, change: Callable[[Path], None]) -> None:
    shutil.copytree(origin, path)
    change(path)


def _of_data(change: Callable[[Path], None]) -> Callable[[Path, Make], None]:
    return lambda path, make: _copy(path, make("data"), change)


def _of_run(change: Callable[[Path], None]) -> Callable[[Path, Make], None]:
    return lambda path, make: _copy(path, make("run"), change)


def _written(text: str | bytes) -> Callable[[Path, Make], None]:
    return lambda path, make: path.write_bytes(text if isinstance(text, bytes) else text.encode()) and None


def _folder(mode: int) -> Callable[[Path, Make], None]:
    return lambda path, make: path.mkdir(mode=mode)


def _halve(name: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        data = (path / name).read_bytes()
        (path / name).write_bytes(data[: len(data) // 2])

    return change


def _with_text(name: str, text: str) -> Callable[[Path], None]:
    return lambda path: (path / name).write_text(text, encoding="utf-8") and None


def _other_layout(path: Path) -> None:
    card = json.loads((path / CARD_FILE).read_text(encoding="utf-8"))
    (path / CARD_FILE).write_text(json.dumps({**card, "layout_version": 99}), encoding="utf-8")


def _not_simulated(path: Path) -> None:
    card = json.loads((path / CARD_FILE).read_text(encoding="utf-8"))
    (path / CARD_FILE).write_text(json.dumps({**card, "simulated": False}), encoding="utf-8")
    (path / DIGESTS_FILE).unlink()


def _without_shards(path: Path) -> None:
    for shard in path.glob("*.array_record*"):
        shard.unlink()


def _read_only(path: Path) -> None:
    path.chmod(0o555)


def _export(path: Path, make: Make) -> None:
    _run(path, "ecgjax.export", f"--workdir={make('run')}", f"--out={path}", "--formats=onnx")


def _of_model(change: Callable[[Path], None]) -> Callable[[Path, Make], None]:
    return lambda path, make: _copy(path, make("model"), change)


def _weights_alone(path: Path) -> None:
    for file in path.iterdir():
        if file.name != WEIGHTS_FILE:
            file.unlink()


def _other_model_version(path: Path) -> None:
    config = json.loads((path / CONFIG_FILE).read_text(encoding="utf-8"))
    (path / CONFIG_FILE).write_text(json.dumps({**config, "format_version": 99}), encoding="utf-8")


def _damage_checkpoints(path: Path) -> None:
    for file in checkpoint_dir(path).rglob("*"):
        if file.is_file():
            file.write_bytes(b"damaged")


def _recordings(path: Path, make: Make) -> None:
    from tests.support.fixtures import twelve_lead_mv, write_wfdb

    for number in range(3):
        write_wfdb(path, f"recording{number}", twelve_lead_mv(seed=number))


def _embeddings(**how: object) -> Callable[[Path, Make], None]:
    from tests.ecgjax.search_index.made_up_tables import directions, write_embeddings

    # Threads of pyarrow must not begin in this process, which is forked again.
    return lambda path, make: _forked(path, lambda: write_embeddings(path, directions(9), **how) and 0, path.name)


def _index(path: Path, make: Make) -> None:
    _run(path, "ecgjax.search", "build", f"--embeddings={make('embeddings')}", f"--out={path}")


_FILE_NAMES = {
    "embeddings": "embeddings.parquet",
    "others_embeddings": "others_embeddings.parquet",
    "leads_embeddings": "leads_embeddings.parquet",
    "file": "file.txt",
    "binary": "binary.csv",
    "labels": "labels.csv",
    "no_bytes": "no_bytes.csv",
    "broken_config": "broken.py",
    "no_get_config": "no_get_config.py",
}

_MAKERS: dict[str, Callable[[Path, Make], None]] = {
    "file": _written("not what was asked for\n"),
    "binary": _written(bytes(range(256)) * 8),
    "no_bytes": _written(""),
    "labels": _written("record,patient_id\nrecording0,a\nrecording1,b\nrecording2,b\n"),
    "broken_config": _written("def get_config(:\n"),
    "no_get_config": _written("WIDTHS = (4, 8)\n"),
    "empty": _folder(0o755),
    "locked": _folder(0),
    "ecgs": _recordings,
    "data": lambda path, make: _simulate(path, patients=_PATIENTS, seed=0, rate_hz=_RATE_HZ),
    "other": lambda path, make: _simulate(path, patients=40, seed=1, rate_hz=2 * _RATE_HZ),
    "few": lambda path, make: _simulate(path, patients=3, seed=2, rate_hz=_RATE_HZ),
    "damaged": _of_data(_halve(CARD_FILE)),
    "damaged_digests": _of_data(_with_text(DIGESTS_FILE, "no digests\n")),
    "other_layout": _of_data(_other_layout),
    "not_simulated": _of_data(_not_simulated),
    "no_shards": _of_data(_without_shards),
    "read_only": _of_data(_read_only),
    "embeddings": _embeddings(),
    "others_embeddings": _embeddings(digest="b" * 64),
    "leads_embeddings": _embeddings(dimension=6),
    "index": _index,
    "half_index": lambda path, make: _copy(path, make("index"), _halve("embeddings.npy")),
    "half_index_file": lambda path, make: _copy(path, make("index"), _halve("index.json")),
    "run": _pretrain,
    "model": _export,
    "lone_weights": _of_model(_weights_alone),
    "other_model_version": _of_model(_other_model_version),
    "half_weights": _of_model(_halve(WEIGHTS_FILE)),
    "finished": _of_run(lambda path: None),
    "half_config": _of_run(_halve(CONFIG_FILE)),
    "list_config": _of_run(_with_text(CONFIG_FILE, "[1, 2]")),
    "bare_config": _of_run(_with_text(CONFIG_FILE, "{}")),
    "no_config": _of_run(lambda path: (path / CONFIG_FILE).unlink()),
    "no_checkpoints": _of_run(lambda path: shutil.rmtree(checkpoint_dir(path))),
    "damaged_checkpoints": _of_run(_damage_checkpoints),
}
