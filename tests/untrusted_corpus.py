"""Reads files of a corpus as untrusted ones and compares what comes with what h5py read of them, by sha256.

    python tests/untrusted_corpus.py [--corpus DIR] [--only TEXT] [--every N] [--hostile] [--out report.json]

h5py's answers come from the corpus (h5py_truth.jsonl), so that no libhdf5 but that of the limited process meets hostile files:
this process must survive all of them. Of the others, h5py is asked again where the record, which another h5py made, says something
else. Exit status 0 where every file ends in an exception or in h5py's data, within 10 seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.append(str(REPOSITORY))  # after site-packages: an installed h5fast comes first

import conformance
import h5py
import numpy as np
from canonical import sha_of
from conformance_child import LOGICAL_LIMIT

import h5fast

SECONDS = 10.0  # that a file may take


@dataclass
class Report:
    """What came of the files. `differences`, `slow` and `odd` fail the run; the counters are for a human."""

    files: int = 0
    opened: int = 0
    datasets: int = 0
    equal: int = 0
    without_truth: int = 0
    large: int = 0
    slowest: float = 0.0
    refused: Counter[str] = field(default_factory=Counter)
    corrupt: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    slow: list[str] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)

    def failed(self) -> bool:
        return bool(self.differences or self.slow or self.odd or not self.files)


def examine(path: Path, name: str, truth: dict[tuple[str, str], str], report: Report) -> None:
    """Reads one file; whatever it contains, only errors of h5fast's, and h5py's of the stand-in, may come."""
    report.files += 1
    began = time.monotonic()
    try:
        with h5fast.File(path, untrusted=True) as file:
            report.opened += 1
            for found in _datasets(file, name, report):
                _examine_dataset(file, found, name, truth, report)
    except h5fast.H5FastError as error:
        report.corrupt.append(f"{name}: {error}")
    except Exception as error:  # noqa: BLE001 - to be reported, not to end the run
        report.odd.append(f"{name}: {error!r}")
    seconds = time.monotonic() - began
    report.slowest = max(report.slowest, seconds)
    if seconds > SECONDS:
        report.slow.append(f"{name}: {seconds:.1f} s")


def _datasets(file: h5fast.File, name: str, report: Report) -> list[str]:
    found: list[str] = []
    names: list[Any] = []
    file.visit(names.append)
    for one in names:
        try:
            if isinstance(file[one], h5py.Dataset):
                found.append(one)
        except h5fast.H5FastError as error:
            report.corrupt.append(f"{name}: {error}")
    return found


def _examine_dataset(file: h5fast.File, found: str, name: str, truth: dict[tuple[str, str], str], report: Report) -> None:
    report.datasets += 1
    dataset = file[found]
    if dataset.size is not None and dataset.size * dataset.dtype.itemsize > LOGICAL_LIMIT:
        report.large += 1
        return
    try:
        whole = dataset[()] if dataset.shape is None else np.asarray(dataset)
    except h5fast.UnsupportedError as error:
        report.refused[str(error).split("; of an untrusted file")[0].rsplit(": ", 1)[-1][:60]] += 1
        return
    except (h5fast.H5FastError, MemoryError) as error:
        report.corrupt.append(f"{name}: {error}")
        return
    mine = sha_of(whole)
    theirs = truth.get((name, "/" + os.fsdecode(found)))
    if not theirs or not mine:
        report.without_truth += 1
    elif mine == theirs or (not conformance.is_hostile(name) and mine == _sha_by_h5py(file.filename, found)):
        report.equal += 1
    else:
        report.differences.append(f"{name}: {found}: {dataset.dtype} {dataset.shape}")


def _sha_by_h5py(path: str, found: str) -> str:
    with h5py.File(path) as file:
        return sha_of(np.asarray(file[found]))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, help="folder to read (default: $H5FAST_CORPUS, else ../shared/corpus)")
    parser.add_argument("--only", default="", help="only files whose path contains this text")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="every N-th of the files that are not hostile")
    parser.add_argument("--hostile", action="store_true", help="only files that were made to do harm")
    parser.add_argument("--out", type=Path, help="write the report here as JSON")
    options = parser.parse_args(arguments)
    corpus, reason = (options.corpus, "") if options.corpus else conformance.find_corpus(REPOSITORY)
    if corpus is None:
        print(reason)
        return 2
    truth = conformance.load_truth(corpus)
    names = conformance.corpus_files(corpus, options.only)
    hostile = [name for name in names if conformance.is_hostile(name)]
    others = [] if options.hostile else [name for name in names if not conformance.is_hostile(name)][:: options.every]
    report = Report()
    began = time.monotonic()
    for name in hostile + others:
        examine(corpus / name, name, truth, report)
    for title, content in vars(report).items():
        print(f"{title}: {content if not isinstance(content, list) else len(content)}")
    for text in (*report.differences, *report.slow, *report.odd):
        print(text)
    print(f"{time.monotonic() - began:.0f} s")
    if options.out:
        options.out.write_text(json.dumps(vars(report), indent=1))
    return int(report.failed())


if __name__ == "__main__":
    sys.exit(main())
