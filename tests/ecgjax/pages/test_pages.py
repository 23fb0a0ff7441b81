"""Pages: everything escaped, nothing loaded, the same in HTML and Markdown."""

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import image
from matplotlib.figure import Figure

from ecgjax.pages import images
from ecgjax.pages.html import to_html
from ecgjax.pages.images import image_of
from ecgjax.pages.markdown import format_table
from ecgjax.pages.page import Folded, Page, Paragraph, Picture, Preformatted, Section, Table
from ecgjax.pages.provenance import configuration_section
from ecgjax.pages.write import write_page

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=http://evil.example/x.png onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</style></title><b>bold</b>",
    "a & b &lt; c",
    "null\x00 bell\x07 lone \ud800 surrogate",
    "```\n![x](http://evil.example/y.png)\n|pipe|",
    "{{x}} ${y} %s \\",
]

#: Tags that are never closed, of those that a page has.
_VOID = {"meta", "link", "img", "wbr"}


class _Parsed(HTMLParser):
    """A page as a browser sees it: its tags with their attributes, and its text outside of the style sheet."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self._open = [], "", []
        self.feed(text)
        self.close()
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag, attrs):
        assert len({name for name, _ in attrs}) == len(attrs), "an attribute stands twice"
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open[-1:] != ["style"]:
            self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def _figure(points=3, *, width=5.0, height=4.0):
    figure = Figure(figsize=(width, height))
    figure.subplots().plot(np.random.default_rng(0).normal(size=points), "o")
    return figure


def _written(page):
    pictures = [block for section in page.sections for block in section.blocks if isinstance(block, Picture)]
    return to_html(page, images={picture: image_of(picture) for picture in pictures})


def _page_of(text):
    return Page(
        title=text,
        cautions=[text],
        summary=[Paragraph(text)],
        sections=[
            Section(
                text,
                [
                    Preformatted(text),
                    Table(header=("name", text), rows=[(text, "1"), ("x", text)], caption=text),
                    Picture(figure=_figure(), alt=text, caption=text),
                    Folded(text, [Paragraph(text)]),
                ],
            ),
            Section("last", [Paragraph("end")]),
        ],
    )


@pytest.fixture(scope="module")
def plain():
    return _Parsed(_written(_page_of("plain")))


@pytest.mark.parametrize("text", HOSTILE)
def test_what_texts_hold_is_text(text, plain):
    parsed = _Parsed(_written(_page_of(text)))
    # The same tags with the same attributes as for a harmless text, but for those that show it.
    assert [tag for tag, _ in parsed.tags if tag != "wbr"] == [tag for tag, _ in plain.tags]
    for attributes, expected in zip(parsed.all("img"), plain.all("img"), strict=True):
        assert attributes.keys() == expected.keys()
    shown = re.sub(r"[\x00\x07\ud800]", "\N{REPLACEMENT CHARACTER}", text)
    assert parsed.all("img")[0]["alt"] == shown
    # Title, heading, caution, summary, contents, section, pre, header, two cells, caption twice, fold and in it.
    assert parsed.text.count(shown) == plain.text.count("plain") == 14


def test_nothing_is_loaded_and_nothing_runs():
    text = _written(_page_of(HOSTILE[1]))
    parsed = _Parsed(text)
    assert not {"script", "iframe", "object", "embed", "form", "base", "video", "audio"} & {
        tag for tag, _ in parsed.tags
    }
    for tag, attributes in parsed.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "srcset", "poster", "data", "action", "background"):
            assert attributes.get(name, "data:").startswith("data:")
        if "href" in attributes:
            assert attributes["href"].startswith("#" if tag == "a" else "data:")
        assert "url(" not in attributes.get("style", "")
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    policies = [each["content"] for each in parsed.all("meta") if each.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_contents_lead_to_the_sections():
    parsed = _Parsed(_written(_page_of("x")))
    ids = [attributes["id"] for attributes in parsed.all("section")]
    assert len(set(ids)) == 2
    assert [attributes["href"] for attributes in parsed.all("a")] == [f"#{each}" for each in ids]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in parsed.all("meta")


def test_numbers_stand_to_the_right():
    rows = [
        ("a", "+0.1 [0, 1]", "0.5 (C = 1)"),
        ("b", "−2", "n/a"),
        ("c", "", "text"),
        ("d", "1e-05", "1 of 2"),
        ("e", "3, 1 without", "0"),
    ]
    text = to_html(
        Page(title="t", summary=[Table(header=("model", "AUROC", "words"), rows=rows)]),
        images={},
    )
    assert '<th scope="col" class="number">AUROC</th>' in text
    assert '<td class="number short">−2</td>' in text
    assert '<th scope="col">words</th>' in text
    assert '<th scope="row">a</th>' in text


def test_a_picture_is_small_and_the_same_every_time():
    picture = Picture(figure=_figure(3), alt="points")
    small = image_of(picture)
    assert (small.kind, small.width, small.height) == ("svg", 480, 384)
    assert ElementTree.fromstring(small.data).tag == "{http://www.w3.org/2000/svg}svg"
    assert small.data == image_of(Picture(figure=_figure(3), alt="points")).data
    many = Picture(figure=_figure(20_000), alt="points", dpi=50, scale=0.5)
    large = image_of(many)
    assert (large.kind, large.width, large.height) == ("png", 240, 192)
    assert image.imread(io.BytesIO(large.data)).shape[:2] == (200, 250)
    assert len(large.data) < images.MAX_SVG_BYTES


def test_files_of_a_page(tmp_path):
    picture = Picture(figure=_figure(), alt="the [first] one", caption="A caption.")
    page = Page(
        title="A | B",
        cautions=["Careful."],
        sections=[
            Section("One", [picture, Picture(figure=_figure(4), alt="other", vector=False)]),
            Section("Two", [Table(header=("a", "b"), rows=[("x|y", "<i>")]), picture, Preformatted("a\n```\nb")]),
            Section("Three", [Folded("more <b>", [Picture(figure=_figure(5), alt="inside")])]),
        ],
    )
    written = write_page(page, tmp_path, stem="study")
    names = ["figure_1.svg", "figure_2.png", "figure_3.svg", "study.html", "study.md"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    text = written.markdown.read_text(encoding="utf-8")
    for part in (
        "# A | B",
        "> **Careful.**",
        "## One",
        r"![the \[first\] one](figure_1.svg)",
        "*A caption.*",
        "![other](figure_2.png)",
        r"| x\|y | &lt;i> |",
        "````\na\n```\nb\n````",
        "<details><summary>more &lt;b></summary>",
        "![inside](figure_3.svg)",
    ):
        assert part in text
    assert text.count("(figure_1.svg)") == 2
    sources = [each["src"] for each in _Parsed(written.html.read_text(encoding="utf-8")).all("img")]
    assert len(sources) == 4
    assert sources[0] == sources[2] != sources[1]
    assert base64.b64decode(sources[0].partition("base64,")[2]) == image_of(picture).data


def test_blocks_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="a row of 1 cells in a table of 2 columns"):
        Table(header=("a", "b"), rows=[("x",)])
    with pytest.raises(ValueError, match="needs an alternative text"):
        Picture(figure=_figure(), alt=" ")
    with pytest.raises(ValueError, match="needs columns"):
        Table(header=(), rows=[])


def test_table_is_aligned():
    lines = format_table(("a", "bb"), [("long cell", "1"), ("x", "22")]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1] == "|-----------|----|"


def test_what_is_not_default_comes_first():
    config = {"a": 1, "b": {"c": (1, 2), "d": float("nan"), "e": 1.5}, "new": "x"}
    section = configuration_section(config, default={"a": 1, "b": {"c": [1, 2], "d": float("nan"), "e": 2.0}})
    said, changed, folded = section.blocks
    assert said.text == "2 of 5 settings are not as in ecgjax/defaults.py:"
    assert changed.rows == [("b.e", "1.5", "2.0"), ("new", "'x'", "(none)")]
    assert [name for name, _ in folded.blocks[0].rows] == ["a", "b.c", "b.d", "b.e", "new"]
    assert "All settings are as in" in configuration_section({"a": 1}, default={"a": 1, "b": 2}).blocks[0].text


@pytest.mark.parametrize(
    ("cell", "breaks"),
    [
        ("a.b_c", 0),
        ("probe.finetune.head_learning_rate", 4),
        ("0123456789abcdef0123456789abcdef", 1),
        ("two words, each of them short enough", 0),
        ("/" * 30, 0),
    ],
)
def test_long_names_may_break_and_stay_what_they_are(cell, breaks):
    parsed = _Parsed(to_html(Page(title="t", summary=[Table(header=("setting",), rows=[(cell,)])]), images={}))
    assert cell in parsed.text
    assert len(parsed.all("wbr")) == breaks


def test_the_example_of_the_docs_runs_as_it_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[3] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    (example,) = [code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "write_page" in code]
    exec(example, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figure_1.svg", "report.html", "report.md"]
    assert _Parsed(Path("report.html").read_text(encoding="utf-8")).all("img")[0]["alt"].startswith("AUROC over")
