"""Builds an index of embeddings, and finds in it the recordings that are most alike.

  python -m ecgjax.search build --embeddings=ptbxl.parquet,mine.parquet --out=indexes/ours
  python -m ecgjax.search query --index=indexes/ours --embeddings=tomorrow.parquet --k=10 --out=alike.parquet
  python -m ecgjax.search query --index=indexes/ours --records=00017_hr --where='label_age_years>60' --out=alike.parquet

Embeddings are tables that python -m ecgjax.embed wrote. An index holds those of one encoder, layer and preprocessing,
and answers no others. The answer is exact: the cosines are those of the stored float16 numbers, of equal ones the
earlier row comes first, and neither the number of devices nor the size of blocks changes it. A record is never its own
neighbour: it is known by its id, and by its signal under any other. Its patient's other records are left out unless
--same_patient=keep. Ids of records and patients are compared within the name of a data set (--names). The table of
answers has a row for each neighbour; NAME.json beside it says where they come from, and NAME.quarantine.csv lists rows
that could be no queries.
"""

from __future__ import annotations

from data_pipelines.system import stop_signals
from ecgjax.system.host_memory import keep_freed_memory

if __name__ == "__main__":
    keep_freed_memory()  # This must come before the imports below, which start threads.
    stop_signals.listen()

import sys
from pathlib import Path

import numpy as np
from absl import flags

from data_pipelines import command
from data_pipelines.buckets.finished_folders import fetched_folder, finished_folder
from data_pipelines.command import output_folder, print_report, progress_bar
from data_pipelines.errors import DataError
from data_pipelines.system.counted import counted
from data_pipelines.system.visible_text import visible
from ecgjax.config import run_config
from ecgjax.embedded.table import checked_out, places
from ecgjax.search_index import conditions, index_queries
from ecgjax.search_index.answers import Answers, shown_id
from ecgjax.search_index.embedding_tables import open_tables
from ecgjax.search_index.exact_search import MOST_NEIGHBOURS, QUERIES_AT_ONCE, nearest
from ecgjax.search_index.index_build import build_index
from ecgjax.search_index.index_folder import open_index

#: What the command does → flags that it takes.
_FLAGS = {
    "build": ("embeddings", "names", "out", "overwrite"),
    "query": ("index", "embeddings", "records", "names", "k", "same_patient", "where", "out", "overwrite"),
}


def _build() -> None:
    """Builds the index that the flags ask for and prints what is in it."""
    chosen = flags.FLAGS
    _check_given("build", "embeddings", "out")
    with finished_folder(chosen.out) as folder:
        out = output_folder("out", folder)
        tables = open_tables(chosen.embeddings, names=chosen.names)
        with progress_bar("indexing", sum(table.num_rows for table in tables)) as tell:
            stated = build_index(tables, out, overwrite=chosen.overwrite, tell=tell)
    quarantined = sum(stated["quarantined"].values())
    lines = [
        f"{out}: {stated['rows']} embeddings of {stated['model']['dimension']} numbers, "
        f"{sum(each['bytes'] for each in stated['files'].values()) / 1e6:.1f} MB",
        *(f"  {name:<18}  {count}" for name, count in stated["data_sets"].items()),
        f"  quarantined         {quarantined}" + (", listed in quarantine.csv" if quarantined else ""),
        *(f"    {reason:<16}  {count}" for reason, count in stated["quarantined"].items()),
        *_notes(simulated=stated["simulated"], without_patient=stated["rows_without_patient"]),
    ]
    print_report("\n".join(map(visible, lines)))


def _query() -> None:
    """Answers the queries that the flags ask for, writes the answers and prints the first of them."""
    chosen = flags.FLAGS
    _check_given("query", "index", "out")
    if bool(chosen.embeddings) == bool(chosen.records):
        raise DataError("query takes either --embeddings=FILE or --records=ID; give one of them")
    out = checked_out(chosen.out, overwrite=chosen.overwrite)
    _check_apart(out)
    tables = open_tables(chosen.embeddings or [], names=chosen.names) if chosen.embeddings else []
    index = open_index(fetched_folder(chosen.index, flag="index"))
    remaining = conditions.remaining(index, chosen.where)
    if tables:
        with progress_bar("reading", sum(table.num_rows for table in tables)) as tell:
            queries = index_queries.of_tables(tables, index, tell=tell)
    else:
        queries = index_queries.of_records(chosen.records, index, data_set=_one_name())
    apart = index_queries.kept_apart(queries, index, same_patient=chosen.same_patient == "exclude")
    passes = -(-len(queries.embeddings) // QUERIES_AT_ONCE)
    with progress_bar("searching", passes * len(remaining.rows), unit=" rows") as tell:
        neighbours = nearest(
            index.embeddings, queries.embeddings, k=chosen.k, rows=remaining.rows, apart=apart, tell=tell
        )
    answers = Answers(
        index=index,
        other_names=index_queries.under_other_names(apart),
        queries=queries,
        neighbours=neighbours,
        remaining=remaining,
        k=chosen.k,
        same_patient=chosen.same_patient,
    )
    answers.write(out)
    print("\n".join(answers.lines()))
    print_report("\n".join(map(visible, _summary(answers, out))))


def _one_name() -> str | None:
    names = flags.FLAGS.names
    if len(names) > 1:
        raise DataError(f"--names={','.join(names)}: records are looked for in one data set; name one, or none for all")
    return names[0] if names else None


def _check_given(what: str, *required: str) -> None:
    """Checks that required flags are given, and none that mean nothing here."""
    chosen = flags.FLAGS
    for name in required:
        if not chosen[name].value:
            raise DataError(f"--{name}=… must be given (--help tells more)")
    for name in sorted({*_FLAGS["build"], *_FLAGS["query"]} - {*_FLAGS[what]}):
        if chosen[name].present:
            raise DataError(f"--{name} means nothing to {what}; leave it out (--help tells more)")


def _check_apart(out: Path) -> None:
    """Checks that answers replace no table of embeddings, and lie in no index."""
    chosen = flags.FLAGS
    if out.resolve() in {Path(path).resolve() for path in chosen.embeddings or []}:
        raise DataError(f"--out={out}: is a table of --embeddings; name another")
    if out.resolve().parent == Path(chosen.index).resolve():
        raise DataError(f"--out={out}: lies in the index, which holds its own files only; name another folder")


def _summary(answers: Answers, out: Path) -> list[str]:
    index, queries = answers.index, answers.queries
    _, about, listed = places(out)
    without = queries.ids.column("patient_id").null_count
    excluding, number = answers.same_patient == "exclude", len(queries.ids)
    return [
        f"{out}: {counted(int(answers.counts().sum()), 'neighbour')} of {counted(number, 'query', 'queries')} among "
        f"{len(answers.remaining.rows)} of {counted(index.num_rows, 'row')}; {about.name} tells where they come from",
        *(
            f"  where {text}: {counted(met, 'row')}; {missing} without a value"
            for text, met, missing in answers.remaining.told
        ),
        f"  with fewer than {counted(answers.k, 'neighbour')}: {counted(answers.fewer(), 'query', 'queries')}",
        *([f"  no query: {counted(len(queries.refused), 'row')}, listed in {listed.name}"] if queries.refused else []),
        *_notes(
            simulated=index.simulated or queries.simulated,
            without_patient=index.stated["rows_without_patient"] if excluding else 0,
        ),
        *_notes_on_own_records(answers),
        *(
            [
                f"  note: {_queries(without, number, 'has', 'have')} no patient_id, so that records of the "
                "same patient may be answers"
            ]
            if excluding and without
            else []
        ),
    ]


def _queries(some: int, number: int, one: str, several: str) -> str:
    """Returns how many of the queries are meant, with their verb: `"1 of 3 queries has"`, `"2 queries have"` if all."""
    which = counted(number, "query", "queries") if some == number else f"{some} of {number} queries"
    return f"{which} {one if some == 1 else several}"


def _notes_on_own_records(answers: Answers) -> list[str]:
    """Returns under which names the index has queries, and where they could not be known."""
    index, queries, others = answers.index, answers.queries, answers.other_names
    lines = []
    if others:
        query = queries.ids.column("record")[others[0].query].as_py()
        row = index.ids_of(np.array([others[0].row])).to_pylist()[0]
        lines.append(
            f"  note: {_queries(len(others), len(queries.ids), 'is', 'are')} in the index under another name, by the "
            f"signal, and left out too: {shown_id(query)} is {shown_id(row['record'])} of {row['data_set']}"
            + (", …" if len(others) > 1 else "")
        )
    if queries.from_tables and (queries.signals.null_count or index.rows_without_signal()):
        lines.append(
            "  note: rows without signal_hash (embedded by an earlier ecgjax) are known as a query's own record by "
            "data set and id alone; embed them again, and they are known under any name"
        )
    return lines


def _notes(*, simulated: bool, without_patient: int) -> list[str]:
    return [
        *(["  note: recordings are SIMULATED"] if simulated else []),
        *(
            [
                f"  note: {counted(without_patient, 'row')} of the index {'has' if without_patient == 1 else 'have'} "
                "no patient_id, so that a patient's other recordings may be answers"
            ]
            if without_patient
            else []
        ),
    ]


def define_flags() -> None:
    """Defines the flags of the command in a function, because at import they would meet those of other commands."""
    flags.DEFINE_list("embeddings", None, "[build, query] Tables of embeddings (python -m ecgjax.embed).")
    flags.DEFINE_list(
        "names",
        [],
        "[build, query] Names of the data sets of --embeddings, one each, or of --records; without, what the tables "
        "say. Recordings of one hospital need one name for its patients to be known again.",
    )
    flags.DEFINE_string("out", None, "[build] Folder of the index. [query] Table of answers to write, NAME.parquet.")
    flags.DEFINE_boolean("overwrite", False, "[build, query] Replace what is at --out once the new one is whole.")
    flags.DEFINE_string("index", None, "[query] Folder of the index.")
    flags.DEFINE_list("records", None, "[query] Ids of records of the index that are the queries.")
    flags.DEFINE_integer(
        "k", 10, "[query] Number of neighbours of each query.", lower_bound=1, upper_bound=MOST_NEIGHBOURS
    )
    flags.DEFINE_enum(
        "same_patient",
        "exclude",
        ["exclude", "keep"],
        "[query] What is done with other records of the query's patient in the same data set.",
    )
    flags.DEFINE_multi_string(
        "where",
        [],
        "[query] Condition that neighbours must meet, such as sex=female or 'label_age_years>60', on any column of the "
        "index; with =, !=, <, <=, > or >=. Several --where must all hold; a missing value meets none.",
    )


if __name__ == "__main__":
    define_flags()
    what, *rest = sys.argv[1:] or [""]
    if what in _FLAGS:
        run_config.run(lambda _: {"build": _build, "query": _query}[what](), argv=[sys.argv[0], *rest])
    elif command.asks_for_help(sys.argv) or "--helpxml" in sys.argv:
        run_config.run(lambda _: None)
    else:
        command.fail(f"{what or 'nothing'} is no part of this command; say build or query first (--help tells more)")
