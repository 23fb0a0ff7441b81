import re

from ecgjax.pages.terminal import COLUMNS, terminal_table
from ecgjax.pages.write import write_page
from ecgjax.training.run_time.account import account_of
from ecgjax.training.run_time.time_page import duration, kinds_table, starts_table, summary_of, time_page
from tests.ecgjax.training.run_time.test_account import KILLED, event

RESUMED = [
    event(1150.0, 1160.0, "train", 20, 20, init=10),
    event(1150.0, 1190.0, "finished", 20, 35, init=10, step=28, save=2),
]


def test_a_page_has_a_bar_and_a_row_for_each_start(tmp_path):
    account = account_of([*KILLED, *RESUMED])
    written = write_page(time_page(account, title="simclr"), tmp_path)
    html, markdown = written.html.read_text(), written.markdown.read_text()
    assert html.count("<figure") == 1
    rows = [line for line in markdown.splitlines() if line.startswith("| 1970-01-01")]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [row[1:3] for row in cells] == [["0 to 30", "10"], ["20 to 35", "0"]]
    assert [row[-1] for row in cells] == ["killed, or still running", "finished"]
    assert "its clock" not in html


def test_tables_of_an_account_fit_a_terminal():
    account = account_of([*KILLED, *RESUMED])
    for table in (starts_table(account), kinds_table(account)):
        text = terminal_table(table.header, table.rows)
        assert max(map(len, text.splitlines())) <= COLUMNS


def test_a_summary_says_goodput_and_what_was_lost():
    # 190 s: 40 + 28 of steps, 25 lost, 50 down, 20 of init and compiling each, 4 input, 3 save.
    told = summary_of(account_of([*KILLED, *RESUMED]))
    assert told == (
        "goodput 35.8% of 3.2 min in 2 starts: init 10.5%, compile 10.5%, input 2.1%, save 1.6%, lost 13.2%, "
        "down 26.3%; 10 steps lost"
    )


def test_a_clock_that_went_back_is_a_caution():
    account = account_of([*KILLED, event(1050.0, 1051.0, "train", 30, 30, init=1)])
    assert len(time_page(account, title="run").cautions) == 1


def test_many_starts_draw_the_last_ones(tmp_path):
    events = [event(float(10 * n), 10.0 * n + 5, "train", n, n, init=5) for n in range(60)]
    page = time_page(account_of(events), title="run")
    assert re.search("the last 40 of 60 starts", page.sections[0].blocks[0].alt)


def test_times_are_told_in_their_unit():
    assert [duration(value) for value in (0, 59.94, 90, 5400)] == ["0.0 s", "59.9 s", "1.5 min", "1.5 h"]
