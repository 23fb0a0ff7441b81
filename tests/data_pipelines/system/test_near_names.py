"""Names that are asked for are spelt much like the one that does not exist."""

from data_pipelines.system.near_names import meant, meant_or_else, nearest_first


def test_names_that_are_as_much_alike_are_named_and_others_left_out():
    known = ["temperature", "temperature_of_room", "temper", "alpha"]
    assert meant("temprature", known) == "; did you mean temperature?"
    assert meant("widht", ["width", "widths", "height"], prefix="c.") == "; did you mean c.width, c.widths?"


def test_nothing_is_asked_where_no_name_is_alike():
    assert meant("xyzzy", ["temperature", "alpha"]) == ""


def test_names_that_have_the_words_of_the_one_asked_for_come_first():
    known = ["label_nor", "label_form:PVC", "label_superdiagnostic:NORM", "record"]
    assert nearest_first("label_norm", known) == ["label_superdiagnostic:NORM", "label_nor", "label_form:PVC", "record"]


def test_what_follows_a_question_is_a_sentence_of_its_own():
    assert meant_or_else("agee", ["age", "sex"], "it has age, sex") == "; did you mean age? It has age, sex"
    assert meant_or_else("xyzzy", ["age", "sex"], "it has age, sex") == "; it has age, sex"
