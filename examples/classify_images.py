"""Classify random images of an HDF5 file, or of a tar archive that is not unpacked, with what ``train_images.py`` has learnt.

``python examples/classify_images.py flowers.tgz sorted_h5_labels.json model.npz --count 10``
"""

from __future__ import annotations

import argparse
import json
import sys
import tarfile
from pathlib import Path

import h5py
import numpy as np
from train_images import features

import h5fast


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    names = {number: name for name, number in json.loads(options.labels.read_text()).items()}
    with np.load(options.model) as model:
        weights, bias = model["weights"], model["bias"]
    random = np.random.default_rng(options.seed)
    found = (from_file if h5py.is_hdf5(options.source) else from_archive)(options.source, options.count, random)
    for path, data in found.items():
        scores = weights @ features(data) + bias
        number = int(scores.argmax()) if len(scores) > 1 else int(scores[0] > 0)  # of two classes there is one score
        print(f"{path}: {names[number]}")
    return 0


def from_file(path: Path, count: int, random: np.random.Generator) -> dict[str, bytes]:
    with h5fast.FileTree(path) as tree:
        drawn = random.permutation(np.array(list(tree)))[:count].tolist()
        return dict(zip(drawn, tree.read_many(drawn)))


def from_archive(path: Path, count: int, random: np.random.Generator) -> dict[str, bytes]:
    with tarfile.open(path, "r|*") as tar:
        drawn = set(random.permutation(np.array([member.name for member in tar if member.isfile()]))[:count].tolist())
    with tarfile.open(path, "r|*") as tar:
        return {member.name: tar.extractfile(member).read() for member in tar if member.name in drawn}  # type: ignore[union-attr]


if __name__ == "__main__":
    sys.exit(main())
