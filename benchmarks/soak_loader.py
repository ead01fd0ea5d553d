"""Does a loader leak? Iterations that are given up, fail, fork and are closed at random, for as long as one likes.

    python benchmarks/soak_loader.py [seconds, 600 by default] [seed]

Four loaders at a time of two small files, one of which has damaged chunks; every batch is compared with what was written. At
the end there must be no thread of a loader, no descriptor more than at the start, and no more anonymous memory than after the
first quarter of the time, give or take 16 MB. Says what was done, and exits with 1 where something stayed.
"""

from __future__ import annotations

import collections
import gc
import os
import random
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np

import h5fast

ROWS = 4000
LEEWAY = 16 << 20


class Torn(Exception):
    """What transforms of this script raise."""


def write(path: Path, damaged: bool) -> Path:
    """A file whose ``x`` tells its row, seven times over."""
    rows = np.arange(ROWS)
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=rows[:, None] * 7 + np.arange(60), chunks=(40, 60), compression="gzip", fletcher32=True)
        file.create_dataset("row", data=rows, chunks=(500,), compression="lzf")
        file["text"] = [f"row {row}" for row in rows]
        places = [file["x"].id.get_chunk_info(number).byte_offset for number in (3, 50)]
    for place in places if damaged else ():
        with open(path, "r+b") as raw:
            raw.seek(place + 20)
            raw.write(b"\xff" * 8)
    return path


def check(batch: dict[str, Any]) -> None:
    """Every field of a batch is of its rows."""
    assert len(batch["row"]) > 0
    if "x" in batch:
        assert (batch["x"] == batch["row"][:, None] * 7 + np.arange(60)).all()
    if "text" in batch:
        assert [text.decode() for text in batch["text"]] == [f"row {row}" for row in batch["row"]]


class Soak:
    """Loaders, and what is done to them."""

    def __init__(self, folder: Path, seed: Any) -> None:
        self.random = random.Random(seed)
        self.paths = [write(folder / "sound.h5", False), write(folder / "damaged.h5", True)]
        self.done: collections.Counter[str] = collections.Counter()
        self.loaders: list[h5fast.Loader] = []

    def loader(self) -> h5fast.Loader:
        """One of any kind."""
        pick = self.random.choice
        torn = self.random.random() < 0.15
        bound = self.random.randrange(ROWS)

        def transform(batch: dict[str, Any]) -> dict[str, Any]:
            if torn and bound in batch["row"]:
                raise Torn
            return batch

        return h5fast.Loader(
            pick(self.paths),
            pick([{"x": "x", "row": "row"}, {"row": "row"}, {"x": "x", "row": "row", "text": "text"}]),
            pick([7, 64, 200]), shuffle=pick(["exact", "block", "batches", False]), seed=self.random.randrange(100),
            memory=pick(["1.2 MB", "1.5 MB", "10 MB"]), threads=pick([1, 2, 4]), prefetch=pick([1, 2, 4]),
            reuse_buffers=pick([True, False]), on_error=pick(["raise", "skip"]),
            transform=transform if torn or self.random.random() < 0.3 else None,
        )

    def take(self, batches: Any, most: int) -> None:
        """Takes some batches; what is damaged or torn is met as it has to be."""
        try:
            for _, batch in zip(range(most), batches):
                check(batch)
                self.done["batches"] += 1
        except (Torn, h5fast.CorruptChunkError) as error:
            self.done[type(error).__name__] += 1

    def fork(self, loader: h5fast.Loader, batches: Any) -> None:
        """A child that reads for itself, and ends in one way or another."""
        how = self.random.randrange(3)
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            try:
                if how == 1:
                    loader.close()
                elif how == 2:
                    self.take(loader, 5)
                del batches
                gc.collect()
                os._exit(0)
            except BaseException:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0, "a forked child failed"
        self.done["forks"] += 1

    def step(self) -> None:
        """One iteration of one loader, ended at random."""
        if len(self.loaders) < 4:
            self.loaders.append(self.loader())
        number = self.random.randrange(len(self.loaders))
        loader = self.loaders[number]
        batches = iter(loader)
        self.take(batches, self.random.choice([0, 1, 3, 20, 10**6]))
        action = self.random.randrange(9)
        if action == 0:
            self.fork(loader, batches)
            self.take(batches, 5)
        elif action == 1:
            loader.close()
            del self.loaders[number]
            self.done["closed"] += 1
        elif action == 2:
            closing = threading.Timer(0.002, loader.close)
            closing.start()
            try:
                self.take(batches, 10**6)
            except ValueError as error:
                assert "closed" in str(error), error
                self.done["closed while it waited"] += 1
            closing.join()
            del self.loaders[number]
        elif action == 3:
            other = iter(loader)
            self.take(other, 4)
            self.take(batches, 4)
        elif action == 4:
            loader.load_state_dict(loader.state_dict())
            self.done["resumed"] += 1
        elif action == 5:
            batches.close()
        elif action == 6:
            del self.loaders[number]
            self.done["forgotten"] += 1
        self.done["iterations"] += 1


def held() -> int:
    """Anonymous memory of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) << 10
    raise OSError("/proc/self/status tells no RssAnon")


def rest() -> tuple[int, int, int]:
    """Threads of loaders, descriptors and bytes, once all is still."""
    until = time.monotonic() + 10
    while True:
        gc.collect()
        threads = sum(thread.name == "h5fast loader" for thread in threading.enumerate())
        if threads == 0 or time.monotonic() > until:
            return threads, len(os.listdir("/proc/self/fd")), held()
        time.sleep(0.01)


def soak(seconds: float, seed: Any = 0) -> dict[str, int]:
    """Does it all for this long, and says how often what was done.

    Raises ``AssertionError`` where a batch was wrong or something stayed.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = Soak(Path(folder), seed)
        _, descriptors, _ = rest()
        begin, warm = time.monotonic(), 0
        while (spent := time.monotonic() - begin) < seconds:
            run.step()
            if not warm and spent > seconds / 4:
                run.loaders.clear()
                warm = rest()[2]
        run.loaders.clear()
        threads, now, memory = rest()
        assert threads == 0, f"{threads} threads are left"
        assert now <= descriptors, f"{now - descriptors} descriptors are left"
        assert memory - warm < LEEWAY, f"{memory - warm:,} bytes are left"
    return {**run.done, "bytes more": memory - warm}


if __name__ == "__main__":
    try:
        found = soak(float(sys.argv[1]) if len(sys.argv) > 1 else 600, sys.argv[2] if len(sys.argv) > 2 else 0)
    except AssertionError as error:
        raise SystemExit(f"FAILED: {error}") from error
    print(", ".join(f"{count:,} {what}" for what, count in sorted(found.items())))
