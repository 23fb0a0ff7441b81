"""Numbers and names agree with their nouns and verbs."""

from data_pipelines.system.counted import counted, named


def test_one_thing_is_singular_and_any_other_number_plural():
    assert [counted(number, "query", "queries") for number in (0, 1, 2)] == ["0 queries", "1 query", "2 queries"]
    assert [counted(number, "record") for number in (1, 3)] == ["1 record", "3 records"]


def test_names_agree_with_their_verb():
    assert named(["V2"], "lead", "is flat", "are flat") == "lead V2 is flat"
    assert named(["V2", "V4"], "lead", "is flat", "are flat") == "leads V2, V4 are flat"
    assert named(["V2"], "lead") == "lead V2"
