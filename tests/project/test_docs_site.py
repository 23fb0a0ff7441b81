"""The documentation as a site: every page and link of it, and the reference of the public functions."""

import html.parser
import os
import subprocess
import sys
from pathlib import Path

import pytest

import ecgjax

ROOT = Path(__file__).parents[2]


class Page(html.parser.HTMLParser):
    """Ids of a page, and what it loads from elsewhere."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.loaded = set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids.add(given.get("id"))
        if tag in ("script", "img", "iframe", "link") and given.get("rel") not in ("canonical", "next", "prev"):
            self.loaded.append(given.get("src") or given.get("href") or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", f"--site-dir={folder}"],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "WARNING" not in done.stderr
    return folder


@pytest.mark.slow
def test_every_page_is_in_the_site_and_loads_nothing_from_elsewhere(site):
    for source in (ROOT / "docs").rglob("*.md"):
        name = source.relative_to(ROOT / "docs").with_suffix("")
        path = site / "index.html" if name.name == "index" else site / name / "index.html"
        assert path.is_file()
        assert not [address for address in Page(path).loaded if address.startswith(("http:", "https:", "//"))]


@pytest.mark.slow
def test_the_reference_has_the_public_names(site):
    ids = {each for path in (site / "reference").rglob("index.html") for each in Page(path).ids}
    for name, module in ecgjax._MODULES.items():
        assert f"{module}.{name}" in ids
