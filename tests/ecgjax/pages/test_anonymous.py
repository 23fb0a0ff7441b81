"""A report for a double-blind review says neither who made it nor where nor when."""

import json
import socket

import pytest
from matplotlib.figure import Figure

from ecgjax.pages import traces
from ecgjax.pages.page import Folded, Page, Paragraph, Picture, Preformatted, Section, Table
from ecgjax.pages.traces import anonymous_caution, anonymous_values, without_traces
from ecgjax.pages.write import write_page
from ecgjax.system.revision import Revision

HOST, USER, COMMIT = "heart-node7", "maierh", "0123abcd" * 5
TRACES = (
    HOST, USER, COMMIT, COMMIT[:8], "2026-12-01", "12:30", "/home/", "/scratch", "gs://", "mlflow.clinic.example",
    "my folder",
)  # fmt: skip
TEXT = (
    f"python -m ecgjax.evaluate --workdir=/home/{USER}/runs/a --config.data.dir=/scratch/x,/scratch/y.z "
    f"'--out=/home/{USER}/my folder/out' on {HOST}.clinic.example at 2026-12-01T12:30:00Z, 1.12.2026, 2026/12/01, "
    f"commit {COMMIT} ({COMMIT[:8]}), gs://bucket-of-{USER}/x, http://mlflow.clinic.example:5000/1, ~/runs, "
    "'/scratch/q'"
)


@pytest.fixture(autouse=True)
def _somebody_s_machine(monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: f"{HOST}.clinic.example")
    monkeypatch.setattr(traces, "_user", lambda: USER)
    monkeypatch.setattr(traces, "code_revision", lambda: Revision(COMMIT, False))
    traces._own_names.cache_clear()
    yield
    traces._own_names.cache_clear()


def test_traces_are_replaced_by_words():
    text = without_traces(TEXT)
    assert not [trace for trace in TRACES if trace in text]
    assert "--workdir=PATH --config.data.dir=PATH,PATH '--out=PATH' on HOST" in text
    assert "DATE, DATE, DATE, commit COMMIT (COMMIT), ADDRESS, ADDRESS, PATH, 'PATH'" in text


@pytest.mark.parametrize(
    "text",
    [
        "120 ECGs/s; 3 / 4; n/a; 1 / C; 25 mm/s and 10 mm/mV; mmol/l; positive in validation / test",
        "0.744 [0.705, 0.783], +0.094, 4.12 mmol/l, 1,234 records, jax 0.9.2, root mean square",
        "https://doi.org/10.13026/kfzx-aw45 and https://physionet.org/content/ptb-xl/1.0.3/",
        "ecgjax/defaults.py runs/simclr --config=simclr:small --out=reports/a",
        "fingerprint 0123456789abcdef0123456789abcdef",
    ],
)
def test_what_is_no_trace_stays(text):
    assert without_traces(text) == text


def test_cautions_lose_the_records_that_they_quote():
    caution = "3 of 90 overlap: 3 equal ('JS01234' is record 17 of cohort; 'JS9' is of a patient of cohort)."
    assert anonymous_caution(caution) == (
        "3 of 90 overlap: 3 equal (WITHHELD is record WITHHELD of cohort; WITHHELD is of a patient of cohort)."
    )


def test_values_lose_traces_in_names_too():
    values = {"cautions": ["'r1' is there"], f"/home/{USER}/x": [TEXT, {"a": TEXT}], "number": 1.5, "none": None}
    text = json.dumps(anonymous_values(values))
    assert not [trace for trace in (*TRACES, "r1") if trace in text]
    assert '"number": 1.5' in text


def test_no_file_of_an_anonymous_page_has_a_trace(tmp_path):
    figure = Figure(figsize=(3, 2))
    figure.subplots().set_title(TEXT)
    picture = Picture(figure=figure, alt=TEXT, caption=TEXT)
    blocks = [
        Paragraph(TEXT),
        Preformatted(TEXT),
        Table(header=("a", TEXT), rows=[(TEXT, TEXT)], caption=TEXT),
        picture,
    ]
    page = Page(
        title=TEXT, verdict=TEXT, cautions=[TEXT], summary=[Paragraph(TEXT)],
        sections=[Section(TEXT, [*blocks, Folded(TEXT, blocks[:3])])],
    )  # fmt: skip
    write_page(page, tmp_path, anonymous=True)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["figure_1.svg", "report.html", "report.md"]
    for path in tmp_path.iterdir():
        content = path.read_text(encoding="utf-8").replace("<wbr>", "")
        assert not [trace for trace in TRACES if trace in content], path
    write_page(page, tmp_path)
    assert HOST in (tmp_path / "report.md").read_text(encoding="utf-8")
