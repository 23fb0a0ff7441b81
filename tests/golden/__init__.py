"""Golden answers: what the code answered before files were moved, and whether it still answers the same.

    python -m tests.golden make --out=DIR          # what the code at hand answers, into DIR
    python -m tests.golden compare OLD NEW         # names every difference; status 1 where there is one
    python -m tests.golden open OLD                # the code at hand opens and goes on with what OLD holds

OLD, NEW and DIR are folders such as this one: `answers/` has a JSON file a kind of answer, `artefacts.tar.gz` what a
commit leaves on a disk. Nothing here imports what it tests: commands are run by the names that people type, and config
files are loaded by their paths. The same script therefore runs before and after modules are moved.

| answers | what |
|---|---|
| `helps` | what `--help` of every command prints, and every flag of ours with its type, default and meaning |
| `leaves` | every leaf of every config in every variant, with its type |
| `data` | SHA-256 of every file of four data sets and of every array of a links file, and what their commands print |
| `steps` | every metric of 20 steps of every config |
| `results` | `results.json` of three questions, a label-efficiency study, an ablation and a cross-validation |
| `machine` | what numbers depend on beside the code; numbers are comparable where it is equal |

Floats are written in hexadecimal, to the last bit. What is left out or replaced, because it differs between two runs
of one commit, is all in `normalise.py`: places on the disk, the names that commands are run by, random ids of builds,
dates in zip archives, durations and speeds. No number that is computed is rounded or left out.

Programs are compiled without LLVM's optimisation, which takes a quarter of the time. A difference that is meant stands
in `agreed.txt`, as a pattern of its name and the reason.
"""
