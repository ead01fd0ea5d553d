"""The whole corpus, h5fast against h5py: conformance.py run once, its report asserted on.

Skipped where there is no corpus. The harness runs as a process of its own, because it forks and must have no threads.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import conformance
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
# Of the datasets with these layouts, the share that the direct path must serve; below it something always falls back.
DIRECT_SHARE = {"contiguous": 0.5, "chunked": 0.5}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict:
    corpus, reason = conformance.find_corpus(REPOSITORY)
    if corpus is None:
        pytest.skip(reason)
    out = tmp_path_factory.mktemp("conformance") / "report.json"
    command = [sys.executable, str(REPOSITORY / "tests" / "conformance.py"), "--corpus", str(corpus), "--out", str(out)]
    finished = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    print(finished.stdout)
    assert out.exists(), finished.stderr
    return json.loads(out.read_text())


def test_every_dataset_is_read_as_h5py_reads_it(report: dict) -> None:
    assert report["compared"] > 0
    assert report["differences"] == []


def test_nothing_crashes_that_plain_h5py_survives(report: dict) -> None:
    assert report["crashes"] == []


def test_only_damaged_data_are_refused(report: dict) -> None:
    """h5fast raises where h5py hands out undefined bytes, and nowhere else: each case is listed with its reason."""
    unexplained = [text for text in report["refusals"] if not any(name in text for name in ("Corrupt", "ReadError"))]
    assert unexplained == []


def test_the_direct_path_serves_most_datasets(report: dict) -> None:
    for layout, share in DIRECT_SHARE.items():
        direct, general = (report["direct"].get(f"{layout}: {path}", 0) for path in ("direct", "general"))
        assert direct >= share * (direct + general), (layout, report["reasons"])
