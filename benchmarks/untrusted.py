"""What does it cost to have another process parse a file that nobody vouches for?

Opening and reading the first row, and then a batch of 256 random rows, of files made here: few chunks, many chunks, many
datasets. Trusted and untrusted in turn, warm page cache, medians; bytes compared first.

``python benchmarks/untrusted.py [--rounds 15]``
"""

from __future__ import annotations

import argparse
import pathlib
import statistics
import sys
import tempfile
import time

import h5py
import numpy as np
from gather_table import conditions

import h5fast
from h5fast.bench import same_bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    print(f"{conditions()}; {options.rounds} rounds; milliseconds")
    print(f"{'':34}{'open and first row':>36}{'256 random rows':>36}")
    print(f"{'':34}" + f"{'trusted':>12}{'untrusted':>12}{'ratio':>12}" * 2)
    with tempfile.TemporaryDirectory() as folder:
        for title, path in make_files(pathlib.Path(folder)).items():
            times = measure(path, options.rounds)
            print(f"{title:34}" + "".join(f"{a:12.2f}{b:12.2f}{b / a:12.2f}" for a, b in (times[:2], times[2:])))


def make_files(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Files by what is in them; each has the dataset ``data``."""
    rows = np.random.default_rng(0).integers(0, 255, (20_000, 300), "u1")
    made = {}
    for title, options in {"contiguous": {}, "600 chunks, gzip": {"chunks": (34, 300), "compression": "gzip"},
                           "20,000 chunks, lzf": {"chunks": (1, 300), "compression": "lzf"}}.items():
        made[title] = folder / f"{len(made)}.h5"
        with h5py.File(made[title], "w") as file:
            file.create_dataset("data", data=rows, **options)
    made["1,000,000 chunks of 8 bytes"] = folder / "million.h5"
    with h5py.File(made["1,000,000 chunks of 8 bytes"], "w", libver="latest") as file:
        file.create_dataset("data", data=np.arange(1_000_000), chunks=(1,))
    made["1,000 datasets, contiguous"] = folder / "datasets.h5"
    with h5py.File(made["1,000 datasets, contiguous"], "w") as file:
        file["data"] = rows
        for number in range(999):
            file[f"group/{number}"] = rows[number]
    return made


def measure(path: pathlib.Path, rounds: int) -> list[float]:
    """Median milliseconds: opening trusted and untrusted, a batch trusted and untrusted."""
    samples: list[list[float]] = [[] for _ in range(4)]
    generator = np.random.default_rng()
    for _ in range(rounds):
        row = None
        for place, untrusted in enumerate((False, True)):
            start = time.perf_counter()
            with h5fast.File(path, untrusted=untrusted) as file:
                first = file["data"][0]
                samples[place].append(time.perf_counter() - start)
                data = file["data"]
                wanted = generator.integers(0, len(data), 256)
                for _ in range(8):
                    data[wanted]  # after as many the index is there
                start = time.perf_counter()
                data[wanted]
                samples[2 + place].append(time.perf_counter() - start)
            if row is not None and not same_bytes(row, first):
                sys.exit(f"{path}: the first row differs")
            row = first
    return [statistics.median(times) * 1e3 for times in samples]


if __name__ == "__main__":
    main()
