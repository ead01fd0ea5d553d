"""How fast does a folder of small images become an HDF5 file, and how much memory does a large archive take?

`images`: 20,000 patches of 64x64 of scikit-learn's two photographs, as JPEG, in 20 folders. Packed into one dataset with lzf,
by
two processes and by one; and by the usual recipe: a pool of two processes decodes, and one dataset a file is created with lzf.
Then the same files as bytes, a dataset each, against h5py's ``create_dataset``; and the packed file shared out 8 to 2, against
a copy of it. Each run is a process of its own, they take turns, and ratios are of runs of one turn. What was written is
compared first.

`memory`: tar archives of 10 GB of zeros (they take no room on the disk), in files of 1 MB and of 10 KB, packed as encoded bytes
with lzf, and decoded by a reader into small rows. What the processes hold in memory that is not of files (RssAnon) is sampled.

``python benchmarks/packing.py images [--rounds 5] [--count 20000] [--without-turbo]``; ``… memory [--gigabytes 10]``
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
from gather_table import conditions
from PIL import Image
from sklearn.datasets import load_sample_images

import h5fast

CORES = 2
SIDE = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("images", "memory", "run"))
    parser.add_argument("arguments", nargs="*", help="of a run: which, source, file")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--gigabytes", type=float, default=10)
    parser.add_argument("--without-turbo", action="store_true", help="decode JPEG by Pillow, as if simplejpeg were not there")
    options = parser.parse_args()
    if options.without_turbo:
        sys.modules["simplejpeg"] = None  # type: ignore[assignment]
    if options.what == "run":
        run(*options.arguments)
        return
    print(f"{conditions()}; {options.rounds} rounds{', without simplejpeg' if options.without_turbo else ''}")
    with tempfile.TemporaryDirectory() as folder:
        (compare if options.what == "images" else measure_memory)(Path(folder), options)


def run(which: str, source: str, out: str) -> None:
    """One timed run, in this process; prints its seconds."""
    cores = sorted(os.sched_getaffinity(0))[: 1 if which.endswith("one core") else CORES]
    os.sched_setaffinity(0, cores)
    Path(out).unlink(missing_ok=True)
    start = time.perf_counter()
    RUNS[which](source, out, len(cores))
    print(time.perf_counter() - start)


def recipe(source: str, out: str, cores: int) -> None:
    """A pool decodes four files a process at a time, and each becomes a dataset."""
    paths = [
        os.path.relpath(os.path.join(folder, name), source)
        for folder, _, names in os.walk(source)
        for name in names
        if name.endswith("jpg")
    ]
    with h5py.File(out, "w") as file, multiprocessing.Pool(cores, os.chdir, (source,)) as pool:
        for first in range(0, len(paths), 4 * cores):
            for path, image in pool.map(read_image, paths[first : first + 4 * cores]):
                file.create_dataset(path, data=image, chunks=image.shape, compression="lzf")


def read_image(path: str) -> tuple[str, np.ndarray]:
    return path, np.asarray(Image.open(path))


def create_datasets(source: str, out: str, cores: int) -> None:
    with h5py.File(out, "w") as file:
        for folder, _, names in os.walk(source):
            for name in names:
                path = os.path.join(folder, name)
                file.create_dataset(os.path.relpath(path, source), data=np.fromfile(path, np.uint8))


RUNS = {
    "recipe": recipe,
    "pack": lambda source, out, cores: h5fast.pack(source, out, jobs=cores, overwrite=True),
    "pack, one core": lambda source, out, cores: h5fast.pack(source, out, jobs=1, overwrite=True),
    "create_dataset": create_datasets,
    "pack tree": lambda source, out, cores: h5fast.pack(source, out, layout="tree", overwrite=True),
    "pack encoded": lambda source, out, cores: h5fast.pack(source, out, layout="encoded", overwrite=True),
    "copy": lambda source, out, cores: shutil.copyfile(out.replace("copy", "pack"), out),
    "partition": lambda source, out, cores: h5fast.partition(
        out.replace("partition", "pack"), {"train": out, "test": out + "2"}, [0.8, 0.2], overwrite=True
    ),
    "encoded": lambda source, out, cores: h5fast.pack(source, out, layout="encoded", codec="lzf", overwrite=True),
    "read": lambda source, out, cores: h5fast.pack(source, out, reader=first_bytes, overwrite=True),
}


def first_bytes(path: str, data: bytes) -> np.ndarray:
    return np.frombuffer(data[:1000], np.uint8)


def compare(folder: Path, options: argparse.Namespace) -> None:
    source = make_images(folder / "images", options.count)
    seconds: dict[str, list[float]] = {}
    for number in range(options.rounds):
        for which in ("recipe", "pack", "pack, one core", "create_dataset", "pack tree", "pack encoded", "copy", "partition"):
            done = subprocess.run(
                command(which, source, folder / f"{which}.h5", options), check=True, stdout=subprocess.PIPE, text=True
            )
            seconds.setdefault(which, []).append(float(done.stdout))
        if number == 0:
            check(folder)
    for which, times in seconds.items():
        print(f"{which:20}{statistics.median(times):8.2f} s{options.count / statistics.median(times):10,.0f} files a second")
    for one, other in (
        ("recipe", "pack"),
        ("pack, one core", "pack"),
        ("create_dataset", "pack tree"),
        ("create_dataset", "pack encoded"),
        ("partition", "copy"),
    ):
        ratios = [a / b for a, b in zip(seconds[one], seconds[other])]
        print(f"{one} / {other}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


def command(which: str, source: Path, out: Path, options: argparse.Namespace) -> list[str]:
    turbo = ["--without-turbo"] if options.without_turbo else []
    return [sys.executable, __file__, "run", which, str(source), str(out), *turbo]


def make_images(folder: Path, count: int) -> Path:
    photographs = load_sample_images().images
    random = np.random.default_rng(0)
    for number in range(count):
        photograph = photographs[number % 2]
        y, x = (int(random.integers(0, length - SIDE)) for length in photograph.shape[:2])
        place = folder / ("china", "flower")[number % 2] / str(number % 10)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photograph[y : y + SIDE, x : x + SIDE]).save(place / f"{number:05d}.jpg", quality=90)
    return folder


def check(folder: Path) -> None:
    """The files hold the same pixels and bytes."""
    with h5py.File(folder / "recipe.h5") as one, h5py.File(folder / "pack.h5") as two:
        for number, path in enumerate(two["path"][()]):
            if number % 97 == 0:
                np.testing.assert_array_equal(one[path][()], two["image"][number])
    with (
        h5py.File(folder / "create_dataset.h5") as one,
        h5fast.FileTree(folder / "pack tree.h5") as two,
        h5fast.FileTree(folder / "pack encoded.h5") as three,
    ):
        for path in list(two)[::97]:
            assert one[path][()].tobytes() == two[path] == three[path]


def measure_memory(folder: Path, options: argparse.Namespace) -> None:
    for title, size in (("1 MB", 1_000_000), ("10 KB", 10_000)):
        source = make_tar(folder / "zeros.tar", int(options.gigabytes * 1e9 / size), size)
        for which in ("encoded", "read"):
            child = subprocess.Popen(command(which, source, folder / "out.h5", options), stdout=subprocess.PIPE, text=True)
            most = 0
            while child.poll() is None:
                most = max(most, anonymous_bytes(child.pid))
                time.sleep(0.02)
            if child.returncode:
                raise RuntimeError(f"packing ended with status {child.returncode}")
            assert child.stdout is not None
            print(
                f"{source.stat().st_size / 1e9:.1f} GB in files of {title}, {which}: {float(child.stdout.read()):.0f} s, at most "
                f"{most / 1e6:.0f} MB in memory, of all processes",
                flush=True,
            )


def make_tar(path: Path, count: int, size: int) -> Path:
    """An archive of files of zeros, which are holes on the disk."""
    with open(path, "wb") as file:
        for number in range(count):
            about = tarfile.TarInfo(f"{number % 10}/{number:07d}.bin")
            about.size = size
            file.write(about.tobuf())
            file.seek(-(-size // 512) * 512, io.SEEK_CUR)
        file.write(bytes(1024))
    return path


def anonymous_bytes(process: int) -> int:
    """RssAnon of a process and all that it has started."""
    total, pending = 0, [process]
    while pending:
        one = pending.pop()
        try:
            status = Path(f"/proc/{one}/status").read_text()
            total += next((int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("RssAnon")), 0)
            pending += map(int, Path(f"/proc/{one}/task/{one}/children").read_text().split())
        except OSError:
            continue  # it has ended
    return total


if __name__ == "__main__":
    main()
