"""The small corpus that the project makes itself, read by the harnesses that read larger ones: see make_corpus.py.

Every layout through every filter, each with several types, in both format versions, links and odd shapes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import conformance_table
import make_corpus
import pytest

TESTS = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    make_corpus.make(folder, seed=0)
    return folder


def _report(script: str, corpus: Path, out: Path) -> dict[str, Any]:
    """What a harness says, in a process of its own: it forks, or must be seen to survive."""
    command = [sys.executable, str(TESTS / script), "--corpus", str(corpus), "--out", str(out)]
    done = subprocess.run(command, cwd=TESTS.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    report: dict[str, Any] = json.loads(out.read_text())
    return report


def test_everything_is_read_as_h5py_reads_it(corpus: Path, tmp_path: Path) -> None:
    report = _report("conformance.py", corpus, tmp_path / "report.json")
    assert report["compared"] == report["read_by_h5py"] == report["datasets"] > 500
    for what in ("differences", "crashes", "refusals", "extra", "h5py_crashes", "truth_sha_differs"):
        assert report[what] == [], what
    assert report["truth_sha_equal"] > 500
    assert set(report["layouts"]) == {"contiguous", "compact", "chunked", "virtual", "external"}
    assert report["direct"]["chunked: direct"] > 4 * report["direct"]["chunked: general"]


def test_untrusted_it_is_the_same_or_refused(corpus: Path, tmp_path: Path) -> None:
    report = _report("untrusted_corpus.py", corpus, tmp_path / "report.json")
    assert report["equal"] > 500
    assert [text.split(": ")[0] for text in report["corrupt"]] == ["sources raw.part"]  # no HDF5 file
    assert report["differences"] == report["odd"] == report["slow"] == []


def test_each_type_meets_each_form(corpus: Path) -> None:
    """A rule that left a type out of a layout would leave a hole that nobody sees."""
    truth = [json.loads(line) for line in (corpus / "h5py_truth.jsonl").read_text().splitlines()]
    met = {(record["file"].partition(", ")[2], one["p"].rpartition("/")[2]) for record in truth for one in record["datasets"]}
    for layout in make_corpus.LAYOUTS:
        assert {name for file, name in met if file == f"{layout}.h5"} == set(make_corpus.TYPES), layout
    piped = {tuple(entry[0] for entry in one.get("filters", ())) for record in truth for one in record["datasets"]}
    assert {tuple(number for number, _ in pipeline) for pipeline in make_corpus.files.PIPELINES.values()} <= piped


def test_table_of_readers(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """docs/conformance.md is made so, of a larger corpus."""
    assert conformance_table.main(["--corpus", str(corpus), "--only", "latest", "--out", str(tmp_path / "page.md")]) == 0
    text = (tmp_path / "page.md").read_text()
    assert text == capsys.readouterr().out[: len(text)]
    counted = [line.split(" | ") for line in text.splitlines() if line.startswith("| all | ")]
    datasets, direct, outcomes = counted[-1][1:]
    assert outcomes.rstrip(" |") == f"{datasets} / 0 / 0 / 0"
    assert int(datasets.replace(",", "")) > 250 and 75 < int(direct.rstrip("%")) <= 100
    assert text.endswith("Nothing.\n")


def test_the_same_seed_makes_the_same(corpus: Path, tmp_path: Path) -> None:
    make_corpus.make(tmp_path, seed=0)
    assert (tmp_path / "h5py_truth.jsonl").read_text() == (corpus / "h5py_truth.jsonl").read_text()
