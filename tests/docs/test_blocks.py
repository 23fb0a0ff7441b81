"""Every command and every piece of Python in README.md and docs/*.md has a mark, and is tested as the mark says."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ecgjax import defaults
from ecgjax.finetuning.settings import FineTuningSettings
from ecgjax.settings.sections import leaves_of
from ecgjax.studies.cross_validation import Method
from tests.docs import blocks
from tests.docs.blocks import LANGUAGES, NEEDS, Block, Mark, commands_of, fenced_blocks, pages
from tests.golden.commands import ROOT
from tests.support.forked_snippets import run_each

BLOCKS = [block for page in pages() for block in fenced_blocks(page)]
PYTHON = [block for block in BLOCKS if block.language == "python"]

#: Pages whose blocks marked `run` are run in their order by a test of their own.
RUN_IN_ORDER = {"docs/tutorial.md": "tests/docs/test_tutorial.py"}


def page_of(tmp_path, monkeypatch, text):
    monkeypatch.setattr(blocks, "ROOT", tmp_path)
    path = tmp_path / "page.md"
    path.write_text(text, encoding="utf-8")
    return path


def test_blocks_and_their_marks_are_found(tmp_path, monkeypatch):
    text = (
        "Do:\n\n<!-- needs: a cluster -->\n```bash\nmake help\n```\n\n```python\nx = 1\n```\n\n    python -m a.b --c\n"
    )
    first, second = fenced_blocks(page := page_of(tmp_path, monkeypatch, text))
    assert (first.mark, first.code, first.line) == (Mark("needs", "a cluster"), "make help\n", 5)
    assert (second.mark, second.language) == (None, "python")
    (indented,) = blocks.unmarked_commands(page)
    assert (indented.code, indented.line) == ("python -m a.b --c\n", 12)


def test_commands_of_a_block_are_those_that_a_shell_would_run():
    code = (
        "N='a=1 b=2'\n"
        "XLA_FLAGS=x python -m launch.slurm --nodes=8 -- \\\n    python -m ecgjax.pretrain --config=… …  # remark\n"
        'source a && ecgjax help | python -m ecgjax.embed [--labels=T] --where="$N"\n'
    )
    block = Block(page="p.md", line=1, language="bash", code=code)
    assert [(each.module, each.arguments, each.whole) for each in commands_of(block)] == [
        ("launch.slurm", ("--nodes=8", "--", "python", "-m", "ecgjax.pretrain", "--config=simclr:small"), False),
        ("ecgjax.pretrain", ("--config=simclr:small",), False),
        ("help", (), True),
        ("ecgjax.embed", ("--labels=T", "--where=a=1 b=2"), True),
    ]


def outputs_of_pages():
    """Files and folders below the current one that the commands of the pages write, by the command."""
    every = [each for page in pages() for block in (*fenced_blocks(page), *blocks.unmarked_commands(page))
             for each in commands_of(block)]  # fmt: skip
    for command in every:
        for argument in command.arguments:
            flag, _, value = argument.partition("=")
            # Names in capitals stand for others.
            if flag in ("--out", "--workdir") and re.fullmatch(r"[a-z][\w./-]*", value) and "://" not in value:
                yield str(command), value


def test_what_the_commands_of_the_pages_write_is_no_news_to_git():
    written = dict.fromkeys(value for _, value in outputs_of_pages())
    assert {"data/mine", "alike.parquet", "pages"} <= set(written)
    names = [*written, *(str(Path(name).with_suffix(end)) for name in written if name.endswith(".parquet")
                         for end in (".json", ".quarantine.csv"))]  # fmt: skip
    folders = [f"{name}/file" if not Path(name).suffix else name for name in names]
    done = subprocess.run(["git", "check-ignore", *folders], cwd=ROOT, capture_output=True, text=True)
    if done.returncode == 128:
        pytest.skip(f"no checkout: {done.stderr}")
    assert sorted(set(folders) - set(done.stdout.splitlines())) == []


def test_every_block_of_bash_and_python_has_a_mark():
    assert len(BLOCKS) > 40
    without = [str(block) for block in BLOCKS if block.language in LANGUAGES and block.mark is None]
    assert not without, "put one of the marks of CONTRIBUTING.md on the line before"


def test_every_mark_is_one_that_is_known():
    for block in BLOCKS:
        if block.mark is None:
            continue
        assert block.language in LANGUAGES, f"{block}: a mark stands before a block of bash or python"
        if block.mark.kind == "needs":
            assert block.mark.detail in NEEDS, f"{block}: what it needs is one of {NEEDS}"
        elif block.mark.detail:
            named = ROOT / block.mark.detail
            assert named.is_file(), f"{block}: there is no test {block.mark.detail}"
            assert block.page.rpartition("/")[2] in named.read_text(encoding="utf-8"), f"{named} does not name the page"
        elif block.mark.kind == "run" and block.language == "bash":
            assert block.page in RUN_IN_ORDER, f"{block}: no test runs the commands of this page in their order"


def test_there_is_a_mark_for_every_comment_that_looks_like_one():
    for page in pages():
        text = page.read_text(encoding="utf-8")
        looking = re.findall(r"<!-- *(?:run|parsed|needs)\b", text)
        assert len(looking) == sum(block.mark is not None for block in fenced_blocks(page)), page


def test_targets_of_make_are_there():
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    text = "\n".join([*(block.code for block in BLOCKS if block.language == "bash"), *in_sentences()])
    named = set(re.findall(r"^(?:make) ([a-z][a-z-]*)", text, re.MULTILINE))
    assert len(named) > 3
    assert named <= targets


def in_sentences():
    paths = [*pages(), ROOT / "CONTRIBUTING.md"]
    return [code for path in paths for code in re.findall(r"`([^`\n]+)`", path.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_names_that_python_imports_are_there(block):
    """Imports, and the attributes that are looked up in what they import, without running anything."""
    tree = ast.parse(block.code)
    imported = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                module = found(alias.name)
                imported[alias.asname or alias.name.partition(".")[0]] = (
                    module if alias.asname else found(alias.name.partition(".")[0])
                )
        elif isinstance(node, ast.ImportFrom):
            source = found(node.module)
            for alias in node.names:
                value = getattr(source, alias.name, None) if source else None
                value = value if value is not None or source is None else found(f"{node.module}.{alias.name}")
                assert source is None or value is not None, f"{node.module} has no {alias.name}"
                imported[alias.asname or alias.name] = value
    stored = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            first, *attributes = chain(node)
            value = None if first in stored else imported.get(first)
            for name in attributes:
                if not isinstance(value, type(sys)):
                    break
                assert hasattr(value, name) or found(f"{value.__name__}.{name}"), f"{value.__name__} has no {name}"
                value = getattr(value, name)


#: Packages that a page uses and the tests do not install.
NOT_HERE = ("torch",)


def found(name):
    """Returns a module; None of a package that is not installed for the tests."""
    if name.partition(".")[0] in NOT_HERE:
        return None
    return importlib.import_module(name)


def chain(node):
    names = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return [node.id if isinstance(node, ast.Name) else "", *reversed(names)]


def test_python_that_is_marked_to_be_run_runs(tmp_path):
    run = [block for block in PYTHON if block.mark == Mark("run") and block.page not in RUN_IN_ORDER]
    assert run
    # Each stands for itself, in an empty folder; a guide's own code is not held to strict promotion.
    done = run_each(
        {str(block): block.code for block in run}, tmp_path, imports=["ecgjax.encoders", "matplotlib.figure"]
    )
    assert not {name: each.errors for name, each in done.items() if each.status}


def test_every_command_exists_and_takes_what_the_page_gives_it():
    # A process of its own: it forks, which one in which JAX has started must not.
    done = subprocess.run(
        [sys.executable, "-m", "tests.docs.commands"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stdout + done.stderr
    assert int(re.search(r"^(\d+) commands, 0 of them wrong", done.stdout, re.MULTILINE)[1]) > 150


def test_every_setting_that_a_page_names_is_there():
    known = {*defaults.leaves(), *leaves_of(FineTuningSettings), *leaves_of(Method)}
    known |= {name[:place] for name in known for place, sign in enumerate(name) if sign == "."}
    missing = []
    for page in pages():
        for code in re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8")):
            for name in re.findall(r"(?<![\w.])config\.([a-z_0-9]+(?:\.[a-z_0-9]+)*)(?![\w.]*[A-Z…(*])", code):
                if name not in known and name not in NO_SETTINGS:
                    missing.append(f"{page.name}: config.{name}")
    assert not missing


#: What looks like a setting and is a file, or one that a page adds itself.
NO_SETTINGS = ("json", "py", "yaml", "augment.lead_gain.max_change")
