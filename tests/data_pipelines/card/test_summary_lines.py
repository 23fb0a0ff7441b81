"""Tables of a build's summary are divided by their columns where they are wider than a terminal."""

from data_pipelines.card.summary_lines import aligned, fold_lines


def test_columns_that_do_not_fit_follow_below_with_the_first_repeated():
    rows = [("label", *(f"fold {number}" for number in range(12))), ("af", *("3/4000",) * 12)]
    lines = aligned(rows, indent="    ")
    assert max(map(len, lines)) <= 80
    assert len(lines) == 4
    assert [line.split()[0] for line in lines] == ["label", "af"] * 2
    assert " ".join(lines[::2]).count("fold") == 12
    assert " ".join(lines[1::2]).count("3/4000") == 12


def test_a_table_that_fits_is_one_and_a_wide_column_is_not_lost():
    rows = [("label", "fold 1"), ("af", "3/40")]
    assert aligned(rows, indent="  ") == ["  label  fold 1", "  af       3/40"]
    assert aligned([("a", "b" * 99, "c")], indent="") == [f"a  {'b' * 99}", "a  c"]


def test_a_summary_without_counts_by_fold_has_no_table():
    assert fold_lines({}) == []
