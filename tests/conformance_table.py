"""Writes docs/conformance.md: who reads which datasets of a corpus as h5py does, and who refuses, errs or crashes.

    python tests/conformance_table.py [--corpus DIR] [--others PYTHON] [--only TEXT] [--out docs/conformance.md]

Each reader reads each file in a process of its own (read_by.py), one at a time, with a time limit; what it gives is compared
with the hash of what h5py reads in the same way. How datasets are stored is told by the corpus' record of them. `--others` names
an interpreter that has hidefix and pyfive. Files made to do harm are left out: untrusted_corpus.py reads these.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import conformance

from h5fast._storage import FILTER_NAMES

TESTS = Path(__file__).resolve().parent
CLASSES = {0: "integers", 1: "floats", 3: "texts", 4: "bit fields", 5: "opaque", 6: "compound", 7: "references",
           8: "enumerations", 9: "variable length", 10: "arrays", 11: "complex"}
INDEXES = {"btree1": "B-tree, version 1", "btree2": "B-tree, version 2", "fixed_array": "fixed array", "single": "single chunk",
           "extensible_array": "extensible array", "none/implicit": "implicit index"}
OUTCOMES = ("equal", "refused", "wrong", "crashed")


@dataclass(frozen=True)
class Asked:
    """A dataset, and how it is stored."""

    file: str
    name: str
    layout: str
    filters: str
    kind: str


def datasets(corpus: Path, only: str) -> list[Asked]:
    """Those that h5py read, of files that mean no harm."""
    found: list[Asked] = []
    for line in (corpus / "h5py_truth.jsonl").read_text().splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue  # one record of the published file is not valid JSON
        file = record["file"]
        if conformance.is_hostile(file) or only not in file or not (corpus / file).is_file():
            continue
        for one in record["datasets"]:
            if "sha" in one:
                layout = f"chunked, {INDEXES[one['index']]}" if "index" in one else one["layout"]
                names = [FILTER_NAMES.get(entry[0], f"number {entry[0]}") for entry in one.get("filters", ())]
                filters = " + ".join(names) or "none"
                found.append(Asked(file, one["p"], layout, filters, CLASSES.get(one["tclass"], "others")))
    return found


def readings(reader: str, python: str, corpus: Path, asked: Iterable[Asked]) -> dict[Asked, tuple[str, str]]:
    """What came of each dataset ("read", "refused", "crashed"), and the hash and how it was read, or why it was not."""
    names: dict[str, list[str]] = defaultdict(list)
    known = {}
    for one in asked:
        path = str((corpus / one.file).resolve())
        names[path].append(one.name)
        known[path, one.name] = one
    lines = "".join(json.dumps({"path": path, "names": inside}) + "\n" for path, inside in names.items())
    command = [python, str(TESTS / "read_by.py"), reader]
    done = subprocess.run(command, input=lines, stdout=subprocess.PIPE, text=True, check=True)
    found = {}
    for line in done.stdout.splitlines():
        path, name, outcome, told = json.loads(line)
        found[known.pop((path, name))] = outcome, told
    if known:
        raise RuntimeError(f"{reader} says nothing of {next(iter(known))}")
    return found


def compared(reader: str, found: dict[Asked, tuple[str, str]], expected: dict[Asked, str]) -> Iterator[tuple[Asked, str, str, str]]:
    """Each dataset, the reader, its outcome, and how it was read or why it was not."""
    for one, (outcome, told) in found.items():
        if outcome != "read":
            yield one, reader, outcome, told
            continue
        sha, _, how = told.partition(" ")
        yield one, reader, "equal" if sha == expected[one] else "wrong", how


def table(title: str, rows: dict[str, dict[str, Counter[str]]], readers: list[str]) -> list[str]:
    """Markdown: for each row the counts of each reader, rows with most datasets first."""
    lines = [f"| {title} | datasets | h5fast: direct | " + " | ".join(f"{reader}: {' / '.join(OUTCOMES)}" for reader in readers) + " |",
             "|---|---|---|" + "---|" * len(readers)]
    for name, counts in sorted(rows.items(), key=lambda row: -sum(row[1]["h5fast"][outcome] for outcome in OUTCOMES)):
        total = sum(counts["h5fast"][outcome] for outcome in OUTCOMES)
        cells = [" / ".join(f"{counts[reader][outcome]:,}" for outcome in OUTCOMES) for reader in readers]
        lines.append(f"| {name} | {total:,} | {counts['h5fast']['direct'] / total:.0%} | " + " | ".join(cells) + " |")
    return lines


def collected(results: list[tuple[Asked, str, str, str]], key: Callable[[Asked], str]) -> dict[str, dict[str, Counter[str]]]:
    rows: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for one, reader, outcome, how in results:
        rows[key(one)][reader][outcome] += 1
        rows[key(one)][reader]["direct"] += how == "direct"
    return rows


def page(results: list[tuple[Asked, str, str, str]], readers: list[str], versions: str) -> str:
    """The document."""
    files = len({one.file for one, *_ in results})
    parts = [("all", lambda _: "all"), ("layout", lambda one: one.layout),
             ("filters, in the order of writing", lambda one: one.filters), ("type", lambda one: one.kind)]
    lines = [INTRODUCTION.format(files=f"{files:,}", versions=versions).strip()]
    for title, key in parts:
        lines += ["", *table(title, collected(results, key), readers)]
    lines += ["", "## What h5fast does not give as h5py does", ""]
    odd = [(one, outcome, how) for one, reader, outcome, how in results if reader == "h5fast" and outcome != "equal"]
    lines += [f"* `{one.file.rsplit('/', 1)[-1]}` `{one.name}`: {outcome}. {how}" for one, outcome, how in odd] or ["Nothing."]
    return "\n".join(lines) + "\n"


INTRODUCTION = """
# Conformance

Every dataset of a corpus of {files} HDF5 files made by others (the test files of HDF5, netCDF, pyfive, jhdf, h5py, hdf5plugin and
others; AnnData, Keras weights, NWB, tomography, MATLAB, PyTables …) that h5py reads as numbers, texts of fixed length or
single ones, or compounds of them. Each is read whole and its bytes compared with h5py's. Arrays of text, lists of variable length and references
have no bytes to compare and are left out here; `tests/conformance.py` compares these, and random gathers and slices of everything,
element by element.

Counts are *equal / refused / wrong / crashed*: the bytes of h5py; an exception; other bytes without an exception; the end of the process, or a
minute. A reader that refuses a file refuses all of its datasets. "Direct" is the share that h5fast's own threads read; the rest it reads through h5py. Made by `tests/conformance_table.py` with
{versions}.

The ordinary tests read a small corpus of their own in the same way (`tests/make_corpus.py`, `tests/test_own_corpus.py`); `H5FAST_CORPUS`
names a larger one.
"""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, help="folder to read (default: $H5FAST_CORPUS, else ../shared/corpus)")
    parser.add_argument("--others", metavar="PYTHON", help="an interpreter with hidefix and pyfive")
    parser.add_argument("--only", default="", help="only files whose path contains this text")
    parser.add_argument("--out", type=Path, help="write the page here")
    options = parser.parse_args(arguments)
    corpus, reason = (options.corpus, "") if options.corpus else conformance.find_corpus(conformance.REPOSITORY)
    if corpus is None:
        print(reason)
        return 2
    pythons = {"h5fast": sys.executable, **({"hidefix": options.others, "pyfive": options.others} if options.others else {})}
    asked = datasets(corpus, options.only)
    expected = {one: told.strip() for one, (outcome, told) in readings("h5py", sys.executable, corpus, asked).items()
                if outcome == "read"}
    results = [result for reader, python in pythons.items()
               for result in compared(reader, readings(reader, python, corpus, expected), expected)]
    text = page(results, list(pythons), _versions(pythons))
    if options.out:
        options.out.write_text(text)
    print(text)
    return int(any(reader == "h5fast" and outcome in ("wrong", "crashed") for _, reader, outcome, _ in results))


def _versions(pythons: dict[str, str]) -> str:
    def ask(python: str, package: str) -> str:
        code = f"from importlib.metadata import version; print('{package}', version('{package}'))"
        return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()

    return ", ".join([ask(sys.executable, "h5py"), *(ask(python, reader) for reader, python in pythons.items() if reader != "h5fast")])


if __name__ == "__main__":
    sys.exit(main())
