"""Reads a corpus of HDF5 files with h5fast and with plain h5py, and reports every way in which they differ.

    python tests/conformance.py [--corpus DIR] [--jobs 2] [--timeout 60] [--only TEXT] [--out report.json] [--no-plugins]

Each file is read by a forked child with a time limit (conformance_child.py). When a child dies or hangs, a second child
repeats the reads with plain h5py: what kills that one, too, is libhdf5's fault; then the file is tried again without the
dataset in question. Exit status 0 when nothing differs. The corpus is only read.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import selectors
import signal
import sys
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # this process forks, so it must have no threads
REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.append(str(REPOSITORY))  # after site-packages: an installed h5fast comes first

import conformance_child  # noqa: E402

HOSTILE = ("crashers/", "permissive/malicious/")  # the promise there: no worse than plain h5py
NOT_CORPUS = {"README.md", "INDEX.tsv", "h5py_truth.jsonl", "ea_coordinates.py", "seeds.txt"}
LISTED = 25  # lines of each list in the printed summary; the JSON report has them all
TRIES_PER_FILE = 12  # each try leaves out one more dataset that killed the child
HOSTILE_TIMEOUT = 10.0  # seconds; h5py hangs for ever on these


@dataclass
class Job:
    """One child to run. `death` is what the h5fast child died of, when this job repeats its reads with plain h5py."""

    file: str
    with_h5fast: bool = True
    skip: set[str] = field(default_factory=set)
    death: dict[str, Any] | None = None
    tries: int = 0


@dataclass
class Child:
    job: Job
    pid: int
    pipe: int
    deadline: float
    started: float
    at: list[str] = field(default_factory=lambda: ["", "start"])
    pending: bytes = b""
    messages: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Report:
    """What the run found. `differences`, `crashes` and `opened_refused` fail the run; the other lists are for a human."""

    corpus: str
    seconds: float = 0.0
    files: int = 0
    opened: int = 0
    refused_by_both: int = 0
    datasets: int = 0
    compared: int = 0
    read_by_h5py: int = 0
    raised_by_both: int = 0
    truth_sha_equal: int = 0
    truth_sha_differs: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    crashes: list[str] = field(default_factory=list)
    h5py_crashes: list[str] = field(default_factory=list)
    hostile_differences: list[str] = field(default_factory=list)
    skipped: Counter = field(default_factory=Counter)
    layouts: Counter = field(default_factory=Counter)
    filters: Counter = field(default_factory=Counter)
    types: Counter = field(default_factory=Counter)
    direct: Counter = field(default_factory=Counter)
    reasons: Counter = field(default_factory=Counter)

    def failed(self) -> bool:
        return bool(self.differences or self.crashes or not self.compared)


def is_hostile(file: str) -> bool:
    return file.startswith(HOSTILE)


def find_corpus(repository: Path) -> tuple[Path | None, str]:
    """The corpus folder, or None and the reason there is none."""
    if named := os.environ.get("H5FAST_CORPUS"):
        found = Path(named)
        return (found, "") if found.is_dir() else (None, f"H5FAST_CORPUS={named} is not a folder")
    found = repository.parent / "shared" / "corpus"
    return (found, "") if found.is_dir() else (None, f"no corpus: H5FAST_CORPUS is not set and {found} does not exist")


def corpus_files(corpus: Path, only: str) -> list[str]:
    found = (path.relative_to(corpus).as_posix() for path in corpus.rglob("*") if path.is_file())
    return sorted(name for name in found if only in name and Path(name).name not in NOT_CORPUS)


def load_truth(corpus: Path) -> dict[tuple[str, str], str]:
    """(file, dataset) -> sha256 of the bytes that h5py 3.16 read, from h5py_truth.jsonl."""
    truth = {}
    path = corpus / "h5py_truth.jsonl"
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            record = json.loads(line)
        except ValueError:
            continue  # one record of the published file is not valid JSON
        truth.update({(record["file"], d["p"]): d["sha"] for d in record["datasets"] if "sha" in d})
    return truth


class Harness:
    def __init__(self, corpus: Path, jobs: int, timeout: float, only: str = "") -> None:
        self.corpus, self.jobs, self.timeout = corpus.resolve(), jobs, timeout
        self.queue = deque(Job(file) for file in corpus_files(self.corpus, only))
        self.truth = load_truth(corpus)
        self.report = Report(str(corpus), files=len(self.queue))
        self.children: dict[int, Child] = {}
        self.selector = selectors.DefaultSelector()
        self.seen: set[str] = set()  # datasets already in the report, from an earlier try of the same file

    def run(self) -> Report:
        started = time.monotonic()
        while self.queue or self.children:
            while self.queue and len(self.children) < self.jobs:
                self._start(self.queue.popleft())
            for key, _ in self.selector.select(timeout=0.5):
                self._receive(self.children[key.fd])
            for child in [c for c in self.children.values() if time.monotonic() > c.deadline]:
                os.kill(child.pid, signal.SIGKILL)
                self._finish(child, hung=True)
        self.report.seconds = round(time.monotonic() - started, 1)
        return self.report

    def _start(self, job: Job) -> None:
        pipe, child_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(pipe)
            status = 1
            try:
                path = str(self.corpus / job.file)
                conformance_child.examine(path, job.skip, child_end, with_h5fast=job.with_h5fast)
                status = 0
            except BaseException as error:  # noqa: BLE001 - a fault of the harness must reach the report
                os.write(child_end, json.dumps({"harness": repr(error)}).encode() + b"\n")
            finally:
                os._exit(status)
        os.close(child_end)
        limit = min(self.timeout, HOSTILE_TIMEOUT) if is_hostile(job.file) else self.timeout
        now = time.monotonic()
        self.children[pipe] = Child(job, pid, pipe, now + limit, now)
        self.selector.register(pipe, selectors.EVENT_READ)

    def _receive(self, child: Child) -> None:
        data = os.read(child.pipe, 1 << 16)
        if not data:
            self._finish(child, hung=False)
            return
        *lines, child.pending = (child.pending + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "at" in message:
                child.at = message["at"]
            else:
                child.messages.append(message)

    def _finish(self, child: Child, *, hung: bool) -> None:
        self.selector.unregister(child.pipe)
        os.close(child.pipe)
        del self.children[child.pipe]
        status = os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1])
        job = child.job
        death = None
        if hung or status != 0:
            harness = next((m["harness"] for m in child.messages if "harness" in m), "")
            cause = "hung" if hung else harness or (f"signal {-status}" if status < 0 else f"exit {status}")
            death = {"dataset": child.at[0], "step": child.at[1], "cause": cause}
        if job.with_h5fast:
            self._record(job, child.messages)
            if death:
                self.queue.appendleft(Job(job.file, False, set(job.skip), death, job.tries))
        else:
            self._judge_death(job, death)

    def _judge_death(self, job: Job, h5py_death: dict[str, Any] | None) -> None:
        """`job.death` befell the h5fast child; `h5py_death` is what befell the same reads by plain h5py, if anything."""
        death = job.death or {}
        text = f"{job.file}: {death['cause']} at {death['step']} of {death['dataset'] or 'the file'}"
        if h5py_death is None:
            self.report.crashes.append(f"{text}; plain h5py survives")
        else:
            note = "chunk query only" if h5py_death["step"] == conformance_child.CHUNK_QUERY else ""
            same = f"; h5py: {h5py_death['cause']} at {h5py_death['step']} of {h5py_death['dataset']} {note}"
            self.report.h5py_crashes.append(text + same.rstrip())
        if death["dataset"] and death["dataset"] not in job.skip and job.tries < TRIES_PER_FILE:
            self.queue.appendleft(Job(job.file, True, job.skip | {death["dataset"]}, None, job.tries + 1))

    def _record(self, job: Job, messages: list[dict[str, Any]]) -> None:
        for message in messages:
            if "open" in message and job.tries == 0:
                self._record_open(job.file, *message["open"])
            elif "dataset" in message:
                self._record_dataset(job, message)

    def _record_open(self, file: str, plain: str, fast: str) -> None:
        report = self.report
        report.opened += not plain
        report.refused_by_both += bool(plain and fast)
        if plain and not fast:
            self._differs(file, f"opened, where h5py raised {plain}")
        elif fast and not plain:
            self._differs(file, f"not opened: {fast}")

    def _record_dataset(self, job: Job, message: dict[str, Any]) -> None:
        report, place = self.report, f"{job.file}::{message['dataset']}"
        if place in self.seen:
            return
        self.seen.add(place)
        report.datasets += 1
        status = message["status"]
        if status.startswith("skipped"):
            report.skipped[status] += 1
        elif status.startswith("difference"):
            self._differs(place, status)
        elif status == "refused by both":
            report.raised_by_both += 1
        else:
            self._record_comparison(place, message)

    def _record_comparison(self, place: str, message: dict[str, Any]) -> None:
        report = self.report
        report.compared += 1
        if message["status"] == "compared":
            report.read_by_h5py += 1
            layout = message.get("layout", "?")
            report.layouts[layout] += 1
            report.types[message.get("type", "?")] += 1
            if message.get("filters"):
                report.filters[message["filters"]] += 1
            reader = message.get("reader", "")
            report.direct[f"{layout}: {'direct' if reader == 'direct' else 'general'}"] += 1
            report.reasons[reader] += 1
            self._check_truth(place, message.get("sha", ""))
        elif not message.get("extra") and not message["differences"]:
            report.raised_by_both += 1
        for text in message["differences"]:
            self._differs(place, text)
        report.refusals += [f"{place}: {text}" for text in message.get("refusals", ())]
        report.extra += [f"{place}: {text}" for text in message.get("extra", ())]

    def _check_truth(self, place: str, sha: str) -> None:
        expected = self.truth.get(tuple(place.split("::", 1)))
        if sha and expected:
            self.report.truth_sha_equal += sha == expected
            if sha != expected:
                self.report.truth_sha_differs.append(place)

    def _differs(self, place: str, text: str) -> None:
        where = self.report.hostile_differences if is_hostile(place) else self.report.differences
        where.append(f"{place}: {text}")


def _kind(text: str) -> str:
    """A difference without its place, key and numbers, so that one fault in a hundred datasets is one line."""
    what = text.split("::", 1)[-1].split(": ", 1)[-1].rsplit("]): ", 1)[-1]
    return re.sub(r"-?\d+", "N", re.sub(r"array\(.*?\)|\[.*?\]|slice\(.*?\)", "...", what, flags=re.DOTALL))[-160:]


def summary(report: Report) -> str:
    """The report as text: counts first, then every list that a human must look at."""
    lines = [
        f"{report.files} files in {report.seconds} s; {report.opened} opened, {report.refused_by_both} refused by both",
        f"{report.datasets} datasets: {report.compared} compared, {report.read_by_h5py} read by h5py,"
        f" {report.raised_by_both} raise in both; {dict(report.skipped)}",
        f"truth: {report.truth_sha_equal} shas equal, {len(report.truth_sha_differs)} differ",
    ]
    for title in ("layouts", "types", "filters", "direct", "reasons"):
        counts = getattr(report, title).most_common(40)
        lines.append(f"{title}: " + ", ".join(f"{name or '-'} {count}" for name, count in counts))
    for title in ("differences", "hostile_differences"):
        kinds = Counter(_kind(text) for text in getattr(report, title))
        lines += [f"kinds of {title}: {len(kinds)}", *(f"  {count} x {kind}" for kind, count in kinds.most_common(LISTED))]
    for title in ("differences", "crashes", "refusals", "extra", "h5py_crashes", "hostile_differences", "truth_sha_differs"):
        found = getattr(report, title)
        lines.append(f"{title}: {len(found)}")
        lines += [f"  {text}" for text in found[:LISTED]]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, help="folder to read (default: $H5FAST_CORPUS, else ../shared/corpus)")
    parser.add_argument("--jobs", type=int, default=2, help="child processes at a time")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds a file may take")
    parser.add_argument("--only", default="", help="only files whose path contains this text")
    parser.add_argument("--out", type=Path, help="write the report here as JSON")
    parser.add_argument("--no-plugins", action="store_true", help="do not register hdf5plugin's filters with h5py")
    options = parser.parse_args(arguments)
    corpus, reason = (options.corpus, "") if options.corpus else find_corpus(REPOSITORY)
    if corpus is None:
        print(reason)
        return 2
    if not options.no_plugins:
        try:
            import hdf5plugin  # noqa: F401
        except ImportError:
            print("hdf5plugin is not installed: datasets with its filters are read by neither")
    import h5fast  # noqa: F401 - once, before the forks

    report = Harness(corpus, options.jobs, options.timeout, options.only).run()
    print(summary(report))
    if options.out:
        options.out.write_text(json.dumps(vars(report), indent=1))
    return int(report.failed())


if __name__ == "__main__":
    sys.exit(main())
