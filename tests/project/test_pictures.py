"""The pictures of docs/how_it_works.md show the code as it is, and every place that they and the page name is there."""

import importlib.util
import re
import xml.etree.ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def draw():
    """The script that draws them."""
    spec = importlib.util.spec_from_file_location("draw", ROOT / "docs/pictures/draw.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["house.svg", "batch.svg"])
def test_a_picture_is_what_the_script_draws_today(draw, name):
    drawn = draw.PICTURES[name]()
    assert drawn == (ROOT / "docs/pictures" / name).read_text(encoding="utf-8"), "run python docs/pictures/draw.py"
    xml.etree.ElementTree.fromstring(drawn)


def test_every_station_names_a_module_that_is_there(draw):
    assert not [module for *_, module in draw._STATIONS if not (ROOT / module).exists()]


def test_every_folder_of_the_code_is_a_room_of_the_house(draw):
    picture = draw.house()
    folders = [path.name for package in ("data_pipelines", "ecgjax") for path in (ROOT / package).iterdir()]
    folders = [name for name in folders if not name.startswith("__") and "." not in name]
    assert len(folders) > 20
    assert not [name for name in folders if f">{name}/<" not in picture]


def test_the_page_names_places_that_are_there():
    text = (ROOT / "docs/how_it_works.md").read_text(encoding="utf-8")
    places = re.findall(r"`((?:ecgjax|data_pipelines|tests|docs)/[\w/.]+)`", text)
    assert len(places) > 20
    assert not [place for place in places if not (ROOT / place).exists()]
    assert len(re.findall(r"^\| [a-z, ]+ \| ", text.partition("## Glossary")[2], re.MULTILINE)) >= 20
