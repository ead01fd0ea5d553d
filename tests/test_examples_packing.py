"""Routes from an archive and from a folder to files for training, from end to end as the examples stand, on real images."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import pytest

ROOT = Path(__file__).parent.parent


def run(script: str, *arguments: object) -> str:
    for module in ("sklearn", "PIL"):
        pytest.importorskip(module, reason=f"the examples need {module}")
    done = subprocess.run([sys.executable, ROOT / "examples" / script, *map(str, arguments)], capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_tar_file_training_classifying(tmp_path: Path) -> None:
    tar, sorted_file, model = tmp_path / "images.tgz", tmp_path / "sorted.h5", tmp_path / "model.npz"
    assert "300 images added, 300 in it" in run("sort_images.py", tar, sorted_file, "--make", 700, "--count", 300)
    assert "300 images added, 600 in it" in run("sort_images.py", tar, sorted_file, "--count", 300, "--seed", 1)
    assert "600 images" in run("train_images.py", sorted_file, model)
    classes = json.loads((tmp_path / "sorted_h5_labels.json").read_text())
    with h5py.File(sorted_file) as file:
        assert sorted(file) == sorted(classes)
    for source in (tar, sorted_file):
        lines = run("classify_images.py", source, tmp_path / "sorted_h5_labels.json", model, "--count", 12).splitlines()
        assert len(lines) == 12 and {line.rpartition(": ")[2] for line in lines} <= classes.keys()
        if source is sorted_file:
            assert sum(line.split("/")[0] == line.rpartition(": ")[2] for line in lines) >= 6


def test_folder_file_relative_paths(tmp_path: Path) -> None:
    said = run("folder_to_file.py", tmp_path / "images", tmp_path / "images.h5", "--make", 200)
    assert "200 of 200 images are the same" in said
