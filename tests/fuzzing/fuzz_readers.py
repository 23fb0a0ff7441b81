"""Mutated files of every format through the readers: `python -m tests.fuzzing.fuzz_readers --mutants=2000 --seed=0`.

A mutant must be refused with `RecordError`, or read as an independent decoding of its bytes says. Any other exception,
a hang or an allocation out of proportion is a finding. Mutant number n of a format is a function of (seed, format, n).
"""

import argparse
import dataclasses
import re
import resource
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from data_pipelines.errors import RecordError
from data_pipelines.recording import Recording
from tests.fuzzing.fuzz_decoders import Decoded, UndecodableError
from tests.fuzzing.fuzz_specimens import Specimen, specimens

#: Nothing as small as the specimens takes a second; the machine may be busy.
HANG_SECONDS = 20

#: More than this above what the process held before is out of proportion to files of a few kilobytes.
MEMORY_BYTES = 400 * 2**20

NUMBERS = (b"0", b"1", b"-1", b"2", b"12", b"13", b"65536", b"4294967296", b"99999999999999999999", b"1e308", b"1e-308")
WORDS = (b"nan", b"inf", b"x", b"", b"0x10", b"1_0", b"5,5", b"/etc/passwd", b"..", b"~", b"\xc2\xb5V", b"\x00")
TOKEN = re.compile(rb"[^\s<>\"'=/(),]+")
NUMBER = re.compile(rb"[-+]?\d+(?:\.\d+)?")
ELEMENT = re.compile(rb"<(\w+)[^<>]*?(?:/>|>)")


class HangError(BaseException):
    """A reader took too long; no Exception, so that no reader can catch it."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """A mutant that was neither refused nor read rightly."""

    format: str
    number: int
    what: str


def mutant(specimen: Specimen, generator: np.random.Generator) -> dict[str, bytes]:
    """Returns a specimen's files, one of them changed in one to three ways."""
    files = dict(specimen.files)
    name = list(files)[generator.integers(len(files))]
    if generator.random() < 0.7:
        name = specimen.main
    for _ in range(generator.integers(1, 4)):
        choices = [_flip, _truncate, _insert, _delete, _repeat]
        # Most damage of other kinds changes the length, which binary formats give away at once.
        choices += [_number, _word, _swap] * 2 if name in specimen.texts else [_flip] * 5
        if name.endswith(".xml"):
            choices += [_drop_element, _repeat_element] * 2
        files[name] = choices[generator.integers(len(choices))](files[name], generator)
    return files


def _place(data: bytes, generator: np.random.Generator) -> int:
    """Returns a position: half of the time within a line chosen first, so that short lines of headers are not rare."""
    if not data:
        return 0
    if generator.random() < 0.5:
        starts = [0, *(match.end() for match in re.finditer(rb"\n", data))]
        start = starts[generator.integers(len(starts))]
        end = data.find(b"\n", start)
        return min(
            start + int(generator.integers(min(max((len(data) if end < 0 else end) - start, 1), 400))), len(data)
        )
    if generator.random() < 0.5:
        return int(generator.integers(min(len(data), 600)))
    return int(generator.integers(len(data)))


def _flip(data: bytes, generator: np.random.Generator) -> bytes:
    if not data:
        return data
    place = min(_place(data, generator), len(data) - 1)
    return data[:place] + bytes([data[place] ^ 1 << int(generator.integers(8))]) + data[place + 1 :]


def _truncate(data: bytes, generator: np.random.Generator) -> bytes:
    return data[: _place(data, generator)]


def _insert(data: bytes, generator: np.random.Generator) -> bytes:
    place = _place(data, generator)
    return data[:place] + generator.bytes(int(generator.integers(1, 9))) + data[place:]


def _delete(data: bytes, generator: np.random.Generator) -> bytes:
    place = _place(data, generator)
    return data[:place] + data[place + int(generator.integers(1, 40)) :]


def _repeat(data: bytes, generator: np.random.Generator) -> bytes:
    place = _place(data, generator)
    return data[:place] + data[place : place + int(generator.integers(1, 200))] + data[place:]


def _match(pattern: re.Pattern, data: bytes, generator: np.random.Generator) -> re.Match | None:
    """Returns a match at or after a random place."""
    return pattern.search(data, _place(data, generator)) or pattern.search(data)


def _number(data: bytes, generator: np.random.Generator) -> bytes:
    match = _match(NUMBER, data, generator)
    return data if match is None else data[: match.start()] + _any(NUMBERS, generator) + data[match.end() :]


def _word(data: bytes, generator: np.random.Generator) -> bytes:
    match = _match(TOKEN, data, generator)
    return data if match is None else data[: match.start()] + _any(WORDS, generator) + data[match.end() :]


def _swap(data: bytes, generator: np.random.Generator) -> bytes:
    """Exchanges two fields."""
    matches = [match for match in (_match(TOKEN, data, generator) for _ in range(2)) if match is not None]
    if len(matches) < 2:
        return data
    first, second = sorted(matches, key=lambda match: match.start())
    if first.end() > second.start():
        return data
    between = data[first.end() : second.start()]
    return data[: first.start()] + second.group() + between + first.group() + data[second.end() :]


def _element(data: bytes, generator: np.random.Generator) -> tuple[int, int] | None:
    """Returns where an element begins and ends; it may hold others."""
    match = _match(ELEMENT, data, generator)
    if match is None:
        return None
    if match.group().endswith(b"/>"):
        return match.span()
    closing = data.find(b"</" + match.group(1) + b">", match.end())
    return None if closing < 0 else (match.start(), closing + len(match.group(1)) + 3)


def _drop_element(data: bytes, generator: np.random.Generator) -> bytes:
    span = _element(data, generator)
    return data if span is None else data[: span[0]] + data[span[1] :]


def _repeat_element(data: bytes, generator: np.random.Generator) -> bytes:
    span = _element(data, generator)
    return data if span is None else data[: span[1]] + data[span[0] : span[1]] + data[span[1] :]


def _any(values: tuple[bytes, ...], generator: np.random.Generator) -> bytes:
    return values[generator.integers(len(values))]


def outcome(specimen: Specimen, files: dict[str, bytes], folder: Path) -> str:
    """Reads a mutant; returns how that went.

    Returns:
        `refused (REASON)`, `equals the decoding`, or, of a format without an independent decoder, `as the original` or
        `changed`. What is wrong begins with `WRONG`.
    """
    for name, content in files.items():
        (folder / name).write_bytes(content)
    try:
        recording = _in_time(lambda: specimen.read(folder))
    except RecordError as error:
        return f"refused ({error.reason})"
    except HangError:
        return f"WRONG: takes more than {HANG_SECONDS} s"
    except Exception as error:
        return f"WRONG: {type(error).__name__}: {error}"
    try:
        _check_form(recording)
        if specimen.decode is None:
            same = np.array_equal(recording.signal, specimen.original.signal, equal_nan=True)
            return "as the original" if same else "changed"
        _check_equal(recording, specimen.decode(files))
    except (AssertionError, UndecodableError) as error:
        return f"WRONG: {type(error).__name__}: {error}"
    return "equals the decoding"


def _in_time(call: Callable[[], Recording]) -> Recording:
    def stop(number: int, frame: object) -> None:
        raise HangError

    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(HANG_SECONDS)
    try:
        return call()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def _check_form(recording: Recording) -> None:
    assert recording.signal.dtype == np.float64
    assert recording.signal.shape == (len(recording.signal), len(recording.channels))
    assert len(recording.units) == len(recording.channels) > 0
    assert all(isinstance(text, str) for text in (*recording.channels, *recording.units, *recording.fields.values()))
    assert 0 < recording.sampling_rate_hz < np.inf, recording.sampling_rate_hz


def _check_equal(recording: Recording, decoded: Decoded) -> None:
    assert recording.signal.shape == decoded.signal.shape, (recording.signal.shape, decoded.signal.shape)
    np.testing.assert_allclose(recording.signal, decoded.signal, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(recording.sampling_rate_hz, decoded.sampling_rate_hz, rtol=1e-9)
    assert recording.channels == decoded.channels, (recording.channels, decoded.channels)
    assert recording.units == decoded.units, (recording.units, decoded.units)


def outcomes(specimen: Specimen, *, mutants: int, seed: int) -> Iterator[str]:
    """Yields how each of a format's mutants fared."""
    with tempfile.TemporaryDirectory() as folder:
        assert not outcome(specimen, dict(specimen.files), Path(folder)).startswith(("WRONG", "refused"))
        for number in range(mutants):
            generator = np.random.default_rng([seed, *specimen.name.encode(), number])
            yield outcome(specimen, mutant(specimen, generator), Path(folder))


def fuzz(specimen: Specimen, *, mutants: int, seed: int) -> tuple[Counter, list[Finding]]:
    """Returns how many mutants fared how, and what is wrong."""
    counts, findings = Counter(), []
    for number, result in enumerate(outcomes(specimen, mutants=mutants, seed=seed)):
        if result.startswith("WRONG"):
            findings.append(Finding(specimen.name, number, result))
            result = "WRONG"
        counts[result] += 1
    return counts, findings


def peak_bytes() -> int:
    """Returns the most memory that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mutants", type=int, default=2000, help="of each format")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--formats", default="", help="comma-separated, all when empty")
    arguments = parser.parse_args()
    num_findings, total = 0, 0
    before = peak_bytes()
    for specimen in specimens():
        if arguments.formats and specimen.name not in arguments.formats.split(","):
            continue
        start = time.perf_counter()
        counts, findings = fuzz(specimen, mutants=arguments.mutants, seed=arguments.seed)
        total += counts.total()
        num_findings += len(findings)
        seconds = time.perf_counter() - start
        print(f"{specimen.name}: {counts.total()} mutants in {seconds:.1f} s, {dict(counts.most_common())}", flush=True)
        for finding in findings[:8]:
            print(f"    {finding.number}: {' '.join(finding.what.split())[:230]}")
    grown = peak_bytes() - before
    print(f"{total} mutants, seed {arguments.seed}: {num_findings} findings; {grown / 2**20:.0f} MiB more at the peak")
    return int(num_findings > 0 or grown > MEMORY_BYTES)


if __name__ == "__main__":
    raise SystemExit(main())
