"""The pictures of docs/how_it_works.md show the code as it is, and every place that they and the page name is there."""

import re
import xml.etree.ElementTree
from pathlib import Path

import pytest

from tests.docs.scripts import picture_script

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def draw():
    """The script that draws them."""
    return picture_script("draw")


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


def test_the_glossary_is_in_alphabetical_order_and_says_one_sentence_of_each_term():
    text = (ROOT / "docs/glossary.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", text, re.MULTILINE)[1:]
    terms = [term.casefold() for term, _ in rows]
    assert len(terms) > 50
    assert terms == sorted(terms)
    assert len({*terms}) == len(terms)
    assert not [term for term, meaning in rows if ". " in meaning]
