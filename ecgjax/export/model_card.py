"""The file `README.md` of an exported model: its card, with the front matter that model hubs read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from data_pipelines.system.counted import counted
from data_pipelines.system.visible_text import visible
from ecgjax.export.evaluations import Evaluation, Evaluations
from ecgjax.export.file_names import CONFIG_FILE, ONNX_FILE, PREPROCESSOR_FILE, SAMPLE_FILE, STABLEHLO_FILE
from ecgjax.export.file_names import WEIGHTS_FILE as WEIGHTS
from ecgjax.export.head_section import head_lines
from ecgjax.export.licence_terms import NOT_STATED, is_share_alike
from ecgjax.export.trained_for import objective_words, trained_for
from ecgjax.leakage.trained_on import RECORDS_FILE
from ecgjax.pages.markdown import format_table

_LIMITS = """This is a research model and not a medical device: nobody has examined or approved it for diagnosis, for \
treatment or for any decision about a patient. It gives numbers that describe a recording, and no finding. It is meant \
for probes, fine-tuning and search on 12-lead ECGs that are prepared as its training data were; other devices, rates, \
lengths, ages and hospitals than those of the training may be described badly, without a sign of it. Test it on \
labelled recordings of your own patients before anything rests on it."""

_LOADING = f"""```python
import ecgjax, numpy as np
model = ecgjax.load(".")  # this folder
x = np.load("{SAMPLE_FILE}")["signals"]  # or recordings of yours, [n, time, lead], at any rate, in any unit
embeddings = model.embed(x, rate_hz=RATE, unit="uV", leads=model.leads)
```"""

_PREDICTING = """answers = model.predict(x, rate_hz=RATE, unit="uV", leads=model.leads)
```"""

_FILES = {
    WEIGHTS: "weights and batch-norm statistics, with a digest in its header",
    ONNX_FILE: "the encoder's function for any runtime of ONNX, from `int16[batch, time, 8]` in µV",
    STABLEHLO_FILE: "the same for JAX alone",
    SAMPLE_FILE: "three SIMULATED recordings and what the encoder gives for them",
    CONFIG_FILE: "what the encoder is, how it was trained, and the digest of every file",
    PREPROCESSOR_FILE: "how a recording is prepared",
    RECORDS_FILE: "signatures of the records that were trained on, by which copies are found: no ids, but whoever has "
    "an id can try it against the hashes",
}


def model_card(
    description: Mapping[str, Any], preprocessor: Mapping[str, Any], evaluations: Evaluations, *, files: Sequence[str]
) -> str:
    """Returns the card as Markdown.

    Args:
        description: Content of `config.json`, in which the files may still be missing.
        preprocessor: Content of `preprocessor_config.json`.
        evaluations: Evaluations of the checkpoint.
        files: Names of the files of the folder.
    """
    head = description.get("head")
    loading = _LOADING if head is None else _LOADING.removesuffix("```") + _PREDICTING
    datasets = _datasets(description)
    sections = [
        ("Load it", [loading.replace("RATE", f"{preprocessor['sampling_rate_hz']}")]),
        *([] if head is None else [("What it answers", head_lines(head))]),
        ("Encoder", _encoder(description, preprocessor)),
        ("Training", _training(description)),
        ("Data", [_data_table(datasets)]),
        ("Preparation", [f"{number}. {step}" for number, step in enumerate(preprocessor["recipe_steps"], 1)]),
        ("Results", _results(evaluations, description["statistics"])),
        ("Intended use and limits", [_LIMITS]),
        ("Licence, citation and terms of the data", _terms(datasets)),
        ("Files", [f"- `{name}`: {words}." for name, words in _FILES.items() if name in files]),
    ]
    if description["stablehlo"]:
        sections[-1][1].append(f"\nOf `{STABLEHLO_FILE}`: {description['stablehlo']['shelf_life']}.")
    text = "\n\n".join(f"## {title}\n\n" + "\n".join(lines) for title, lines in sections)
    return f"{_front_matter(description, evaluations)}\n{_opening(description, evaluations)}\n\n{text}\n"


def _datasets(description: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Returns the data sets of the pretraining and then those of the labels, each once."""
    labelled = (description.get("head") or {}).get("data", [])
    return [*description["data"], *(each for each in labelled if each not in description["data"])]


def _front_matter(description: Mapping[str, Any], evaluations: Evaluations) -> str:
    tags = ["ecg", "electrocardiogram", "self-supervised-learning", "jax", str(description["architecture"])]
    datasets = _datasets(description)
    tags += ["simulated-data"] if any(dataset["simulated"] for dataset in datasets) else []
    metrics = dict.fromkeys(metric for evaluation in evaluations.shown for metric in evaluation.metrics)
    matter = {
        "license": "other",
        "license_name": "see-licence-citation-and-terms-of-the-data",
        "library_name": "ecgjax",
        "tags": tags,
        "datasets": list(dict.fromkeys(dataset["name"] for dataset in datasets)),
        "metrics": list(metrics),
    }
    # Every value of JSON is one of YAML.
    return "\n".join(["---", *(f"{name}: {json.dumps(value)}" for name, value in matter.items()), "---"])


def _opening(description: Mapping[str, Any], evaluations: Evaluations) -> str:
    datasets, head = _datasets(description), description.get("head")
    simulated = list(dict.fromkeys(dataset["name"] for dataset in datasets if dataset["simulated"]))
    title = f"# ECG encoder {description['architecture']}"
    if head is not None:
        title += f" with an answer to {visible(head['question'])}"
    if not simulated:
        return title
    judged = dict.fromkeys(evaluation.data for evaluation in evaluations.shown if not evaluation.simulated)
    if judged:
        trained = f"The encoder was pretrained on SIMULATED recordings ({' and '.join(map(visible, simulated))})"
        return f"**{trained}; the numbers are of {' and '.join(map(visible, judged))}'s own records.**\n\n{title}"
    if all(dataset["simulated"] for dataset in datasets):
        which = "All recordings that it was trained on are"
    else:
        which = f"The recordings of {' and '.join(simulated)}, which it was trained on among others, are"
    return f"**SIMULATED DATA. {which} simulated: no result says anything about patients.**\n\n{title}"


def _encoder(description: Mapping[str, Any], preprocessor: Mapping[str, Any]) -> list[str]:
    leads, rate = preprocessor["encoder_leads"], preprocessor["sampling_rate_hz"]
    size = " × ".join(map(str, description["output_shape"]))
    norms = {
        "recalibrated": "set anew on unaugmented training recordings, as `python -m ecgjax.evaluate` sets them",
        "running": "those of training, of augmented views; evaluations set them anew, so that results differ",
        "none": "none, for the encoder has no batch norm",
    }
    weights = f"{description['weights']} of {counted(description['training']['steps'], 'step')}"
    if description.get("head") is not None:
        norms["running"] = "those of the training with labels"
        steps = counted(description["training"]["steps"], "step")
        weights = f"{description['weights']}, after {steps} of pretraining"
    return [
        f"- Output: the layer `{description['layer']}`, {size} numbers a recording; tokens have "
        f"{description['token_dimension']}, and the pool is: {description['pool']}.",
        f"- Input: {preprocessor['seconds']:g} s at {rate} Hz ({preprocessor['num_samples']:,} samples), int16 in µV, "
        f"the leads {' '.join(preprocessor['leads'])}; the encoder derives {' '.join(leads)} of them, in mV.",
        f"- Weights: {weights}.",
        f"- Batch-norm statistics: {norms[description['statistics']]}.",
    ]


def _training(description: Mapping[str, Any]) -> list[str]:
    training = description["training"]
    dirty = {True: ", with changes that are in no commit", False: "", None: ""}[training["git_dirty"]]
    return [
        *_begun_from(training.get("begun_from")),
        *_objectives(training),
        f"- Records seen: {training['exposures']:,} ({counted(training['steps'], 'step')} of "
        f"{training['batch_size']:,}), {training['epochs']:.4g} epochs.",
        f"- Revision of the code: {training['git_revision']}{dirty}. Every setting stands in `{CONFIG_FILE}`.",
    ]


def _objectives(training: Mapping[str, Any]) -> list[str]:
    """Returns a line on what was trained for, and one on a second objective with a weight."""
    leaves = {**training.get("settings", {}), **_leaves_of(training["objective"])}
    # The second objective has a line of its own, which says what becomes of its head.
    lines = [f"- Objective: {visible(trained_for({**leaves, 'second.objective.name': None}))}."]
    second = training.get("second_objective")
    if second is not None and second["loss"].get("weight") != 0:
        named = visible(objective_words(_leaves_of(second)))
        lines.append(f"- Second objective: {named}; its head is no part of the model.")
    return lines


def _leaves_of(objective: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Returns loss, relation and miner by their paths in the config."""
    paths = {"loss": "objective", "relation": "relation", "miner": "miner"}
    return {f"{paths[part]}.{name}": value for part in paths for name, value in objective[part].items()}


def _begun_from(said: Mapping[str, Any] | None) -> list[str]:
    """Returns a line for every encoder that training went on from, the latest first."""
    lines: list[str] = []
    while said is not None:
        labels = f", which was pretrained with labels ({', '.join(said['labels'])})" if said["labels"] else ""
        listed = "" if said["listed"] else "; its pretraining records are not listed"
        lines.append(
            visible(
                f"- {'Began' if not lines else 'That one began'} with the weights of the encoder {said['name']} "
                f"(step {said['step']:,}, digest {said['weights_digest']}){labels}{listed}."
            )
        )
        said = said["begun_from"]
    return lines


def _data_table(data: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (
            visible(f"{dataset['name']}{' (SIMULATED)' if dataset['simulated'] else ''}{_by(dataset)}"),
            f"{dataset['records']:,}",
            f"{dataset['patients']:,}",
            dataset["fingerprint"],
            visible(dataset["build_command"]),
        )
        for dataset in data
    ]
    return format_table(("data set", "records", "patients", "fingerprint", "built by"), rows)


def _by(dataset: Mapping[str, Any]) -> str:
    return f", by {dataset['begun_from']}" if "begun_from" in dataset else ""


def _results(evaluations: Evaluations, statistics: str) -> list[str]:
    lines = [line for evaluation in evaluations.shown for line in _result(evaluation)]
    if not lines:
        lines = ["No evaluation of this checkpoint was made (`python -m ecgjax.evaluate` makes one)."]
    elif statistics == "running":
        lines.append("All of them are with recalibrated batch-norm statistics, and not with the exported ones.")
    if evaluations.of_others:
        lines.append(f"\nEvaluations of other checkpoints or layers, which are not shown: {evaluations.of_others}.")
    if evaluations.unreadable:
        lines.append(f"\nEvaluations that cannot be read: {evaluations.unreadable}.")
    return lines


def _result(evaluation: Evaluation) -> list[str]:
    simulated = ", SIMULATED" if evaluation.simulated else ""
    lines = [
        visible(
            f"{evaluation.question}, on {evaluation.records:,} test records of {evaluation.patients:,} patients of "
            f"{evaluation.data}{simulated}; intervals are of 95 %, over patients:"
        ),
        "",
        format_table(("model", "metric", "value"), [tuple(map(visible, row)) for row in evaluation.rows]),
        "",
    ]
    if not evaluation.same_statistics:
        lines += ["Batch norm was recalibrated on other records there than for this export.", ""]
    if evaluation.cautions:
        lines += [f"The report has cautions about these numbers ({evaluation.cautions}): read them there.", ""]
    return lines


def _terms(data: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [
        visible(
            f"- {dataset['name']}: licence {dataset['licence']}; terms: {dataset['terms']}; citation: "
            f"{dataset['citation']}"
        )
        for dataset in data
    ]
    # A data set that two trainings have seen has one licence.
    lines = list(dict.fromkeys(lines))
    alike = list(dict.fromkeys(dataset["name"] for dataset in data if is_share_alike(dataset["licence"])))
    if alike:
        lines.append(
            f"\nSHARE-ALIKE: the licence of {' and '.join(map(visible, alike))} asks that what is derived from the "
            "data is passed on under the same licence. Whether weights are derived from it is for a lawyer to say."
        )
    if any(dataset["licence"] == NOT_STATED for dataset in data):
        lines.append("\nWhere a licence is not stated, nothing here allows to pass the model on.")
    lines.append("\nThe licence of the weights themselves is for whoever publishes them to state, within these terms.")
    return lines
