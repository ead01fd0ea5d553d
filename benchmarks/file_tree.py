"""How fast are files in a file read, against a loop over h5py and against a mount that asks h5py at every call?

10,000 files of 1.5 to 2.5 KB in ten folders, stored one dataset a file, contiguous and as one lzf chunk each, and all in one
dataset. Warm page cache, as many threads as h5fast takes by itself. Rounds of h5py and of h5fast take turns, and ratios are of
neighbouring rounds: a disturbed machine disturbs both. Each round opens the file anew. Bytes are compared before anything is
timed.

And how much longer does `h5fast verify` take than the bare decoders, which are called on stored chunks that are in memory, by as many
threads? 48 MB of pictures in chunks of one and of 32, lzf and gzip, in turns with it.
"""

from __future__ import annotations

import argparse
import errno
import os
import random
import statistics
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from decoders import bare_deflate, bare_lzf
from decoders import run as run_decoder

import h5fast
from h5fast import FileTree
from h5fast.tree import encoded
from h5fast.tree.saved import write_member_index
from h5fast.verifying import verify_file

FILES = 10_000


def contents() -> dict[str, bytes]:
    draw = np.random.default_rng(0)
    sizes = draw.integers(1500, 2500, FILES)
    return {f"class{i % 10}/image {i:05}.jpg": draw.integers(0, 256, size, dtype="u1").tobytes()
            for i, size in enumerate(sizes)}


def write_tree(path: Path, files: dict[str, bytes], **options: Any) -> None:
    with h5py.File(path, "w") as file:
        for name, data in files.items():
            file.create_dataset(name, data=np.frombuffer(data, "u1"), **options)


def write_encoded(path: Path, files: dict[str, bytes]) -> None:
    with h5py.File(path, "w") as file:
        file.attrs[encoded.ATTRIBUTE] = "encoded"
        file["data"] = np.frombuffer(b"".join(files.values()), "u1")
        file["offsets"] = np.cumsum([0, *map(len, files.values())], dtype="u8")
        file.create_dataset("paths", data=list(files), dtype=h5py.string_dtype())


def timed(call: Callable[[], Any]) -> float:
    """Seconds it takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def ratio(slow: Callable[[], Any], fast: Callable[[], Any], rounds: int) -> tuple[float, float, float]:
    """Medians of both, in seconds, and of the ratios of neighbouring rounds."""
    pairs = [(timed(slow), timed(fast)) for _ in range(rounds)]
    slow_times, fast_times = zip(*pairs)
    return statistics.median(slow_times), statistics.median(fast_times), statistics.median(a / b for a, b in pairs)


# --- reading many ---


def read_by_h5py(path: Path, names: list[str]) -> list[np.ndarray]:
    with h5py.File(path) as file:
        return [file[name][:] for name in names]


def read_by_tree(path: Path, names: list[str]) -> list[bytes]:
    with FileTree(path) as tree:
        return tree.read_many(names)


def compare_reading(folder: Path, files: dict[str, bytes], rounds: int) -> None:
    names = list(files)
    random.Random(0).shuffle(names)
    plain, lzf, one = folder / "plain.h5", folder / "lzf.h5", folder / "encoded.h5"
    write_tree(plain, files)
    write_tree(lzf, files, compression="lzf", chunks=True)
    write_encoded(one, files)
    print(f"{'read_many of ' + format(FILES, ',') + ' files':44} {'h5py loop':>10} {'h5fast':>10}   ratio")
    for label, path, indexed in (("contiguous datasets", plain, False), ("contiguous datasets, member index", plain, True),
                                 ("datasets of one lzf chunk", lzf, False),
                                 ("datasets of one lzf chunk, member index", lzf, True)):
        if indexed:
            write_member_index(path)
        truth = [array.tobytes() for array in read_by_h5py(path, names)]
        assert read_by_tree(path, names) == truth == [files[name] for name in names]
        show(label, *ratio(lambda: read_by_h5py(path, names), lambda: read_by_tree(path, names), rounds))
    assert read_by_tree(one, names) == [files[name] for name in names]
    show("layout encoded (h5py: contiguous datasets)",
         *ratio(lambda: read_by_h5py(plain, names), lambda: read_by_tree(one, names), rounds))
    for label, path in (("contiguous datasets", plain), ("lzf", lzf), ("encoded", one)):
        with FileTree(path) as tree:
            list(tree)
            spent = [timed(lambda: tree.open(name).read()) for name in names[:3000]]
            begun = time.thread_time()
            for name in names[:3000]:
                tree.open(name).read()
            busy = (time.thread_time() - begun) / 3000
            print(f"open().read(), {label}, after listing: median {statistics.median(spent) * 1e6:.0f} µs, "
                  f"of the processor's time {busy * 1e6:.0f} µs")


def show(label: str, slow: float, fast: float, times: float) -> None:
    print(f"{label:44} {slow * 1e3:7.0f} ms {fast * 1e3:7.1f} ms   {times:.1f}", flush=True)


# --- mounting ---


class PlainMount:
    """The shortest mount over h5py: every call opens what it needs by path, under one lock."""

    use_ns = True

    def __init__(self, path: Path) -> None:
        self.file = h5py.File(path)
        self.lock = threading.Lock()

    def getattr(self, path: str, fh: Any = None) -> dict[str, int]:
        with self.lock:
            if path not in self.file:
                raise OSError(errno.ENOENT, path)
            found = self.file[path]
            if isinstance(found, h5py.Group):
                return {"st_mode": stat.S_IFDIR | 0o755, "st_nlink": 2}
            return {"st_mode": stat.S_IFREG | 0o444, "st_nlink": 1, "st_size": found.size * found.dtype.itemsize}

    def readdir(self, path: str, fh: Any) -> list[str]:
        with self.lock:
            return [".", "..", *self.file[path]]

    def read(self, path: str, size: int, offset: int, fh: Any) -> bytes:
        with self.lock:
            return bytes(self.file[path][offset : offset + size].tobytes())


def serve(kind: str, path: str, folder: str) -> None:
    """One of the mounts, in a process of its own."""
    if kind == "h5fast":
        from h5fast.tree.mount import mount

        mount(path, folder)
        return
    import mfusepy

    mfusepy.FUSE(PlainMount(Path(path)), folder, foreground=True, ro=True)


@contextmanager
def mounted(kind: str, path: Path, folder: Path) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    process = subprocess.Popen([sys.executable, __file__, "--serve", kind, str(path), str(folder)], stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            if os.path.ismount(folder):
                break
            time.sleep(0.05)
        else:
            raise SystemExit(f"the {kind} mount did not come up")
        yield
    finally:
        process.terminate()
        process.wait(20)


def tar(folder: Path) -> None:
    subprocess.run(f"tar cf - -C '{folder}' . | cat > /dev/null", shell=True, check=True)


def compare_mounts(folder: Path, rounds: int) -> None:
    path = folder / "unindexed.h5"
    write_tree(path, contents())
    spent: dict[str, list[float]] = {"h5py": [], "h5fast": []}
    for _ in range(rounds):
        for kind, times in spent.items():  # mounted anew each time: the kernel keeps what it has read
            with mounted(kind, path, folder / kind):
                times.append(timed(lambda: tar(folder / kind)))
    ratios = [a / b for a, b in zip(spent["h5py"], spent["h5fast"])]
    show("tar of the mount (h5py: at each call)", statistics.median(spent["h5py"]), statistics.median(spent["h5fast"]),
         statistics.median(ratios))


# --- verifying ---


def write_pictures(path: Path, rows: int, compression: str) -> None:
    draw = np.random.default_rng(0)
    coarse = draw.integers(0, 256, (4096, 16, 16, 3), dtype="u1")
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=coarse.repeat(4, 1).repeat(4, 2), chunks=(rows, 64, 64, 3), compression=compression)


def compare_verifying(folder: Path, rounds: int) -> None:
    threads = h5fast.get_num_threads()
    print(f"{'verify, ' + str(threads) + ' threads':44} {'verify':>10} {'decoders':>10}   ratio")
    for compression, decode in (("lzf", bare_lzf), ("gzip", bare_deflate())):
        for rows in (1, 32):
            path = folder / "pictures.h5"
            write_pictures(path, rows, compression)
            with h5py.File(path) as file:
                wanted, ident = file["x"][()], file["x"].id
                chunks = [ident.read_direct_chunk((at, 0, 0, 0))[1] for at in range(0, len(wanted), rows)]
            out = np.empty_like(wanted)
            run_decoder(decode, chunks, out, threads)
            assert np.array_equal(out, wanted) and not verify_file(str(path)).damage
            show(f"{compression}, {rows} pictures a chunk",
                 *ratio(lambda: verify_file(str(path)), lambda: run_decoder(decode, chunks, out, threads), rounds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(*options.serve)
        return
    with tempfile.TemporaryDirectory(dir=os.environ.get("H5FAST_BENCH_DATA")) as folder:
        compare_reading(Path(folder), contents(), options.rounds)
        compare_verifying(Path(folder), options.rounds)
        try:
            import mfusepy  # noqa: F401
        except (ImportError, OSError) as error:
            print(f"mounts are not compared: {error}")
            return
        compare_mounts(Path(folder), options.rounds)


if __name__ == "__main__":
    main()
