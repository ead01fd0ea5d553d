"""``write_generator`` and ``write_predict_generator``: every row, in order, of its own type, or an exception.

Prevents: what the functions of the same names in the project they come from did: a silent tail of zeros, labels that became
floats, one output only, an error that hid another one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import h5fast
from h5fast import write_generator, write_predict_generator

ROWS, SHAPE = 103, (6, 5, 3)
X = np.random.default_rng(0).random((ROWS, *SHAPE)).astype("f4")
Y = np.random.default_rng(1).integers(-5, 100, ROWS)


class Numbered:
    """As a Sequence or PyDataset of Keras: a length and numbers; slow now and then, and it counts its threads."""

    def __init__(self, batch: int, fail_at: int | None = None) -> None:
        self.batch, self.fail_at = batch, fail_at
        self.threads: set[int] = set()
        self.asked: list[int] = []

    def __len__(self) -> int:
        return -(-ROWS // self.batch)

    def __getitem__(self, number: int) -> Any:
        self.threads.add(threading.get_ident())
        self.asked.append(number)
        time.sleep(0.002 * (number % 3))
        if number == self.fail_at:
            raise OSError("an unreadable image")
        part = slice(number * self.batch, (number + 1) * self.batch)
        return X[part], Y[part]


class LikePyDataset:
    """As a PyDataset of Keras that tells the number of its batches by a property."""

    def __init__(self, batch: int) -> None:
        self._numbered = Numbered(batch)
        self.num_batches = len(self._numbered)

    def __getitem__(self, number: int) -> Any:
        return self._numbered[number]


def plain(batch: int) -> Iterator[Any]:
    for first in range(0, ROWS, batch):
        yield X[first:first + batch], Y[first:first + batch], np.ones(batch)


def generators(batch: int) -> list[Any]:
    return [Numbered(batch), LikePyDataset(batch), plain(batch), list(plain(batch))]


LAYOUTS = [{}, {"chunks": (1, 3, 5, 3), "compression": "lzf"}, {"chunks": (7, *SHAPE), "compression": "gzip"},
           {"chunks": (32, *SHAPE), "compression": "lzf", "maxshape": (None, *SHAPE)}, {"chunks": (200, *SHAPE), "maxshape": (400, *SHAPE)}]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("kind", range(4), ids=["numbered", "pydataset", "plain", "list"])
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_every_row_is_written(tmp_path: Path, layout: dict, kind: int, workers: int) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as xs, h5py.File(tmp_path / "y.h5", "w") as ys:
        d_set = xs.create_dataset("data", (ROWS, *SHAPE), "f4", **layout)
        label_set = ys.create_dataset("data", (ROWS,), "i2")
        generator = generators(10)[kind]
        assert write_generator(generator, d_set=d_set, label_set=label_set, workers=workers, max_queue_size=2) == ROWS
        assert label_set.dtype == "i2" and dict(d_set.attrs) == {}
    with h5fast.File(tmp_path / "x.h5") as xs, h5fast.File(tmp_path / "y.h5") as ys:
        assert np.array_equal(xs["data"][...], X) and np.array_equal(ys["data"][...], Y)


def test_workers_are_asked_at_once_and_not_too_far_ahead(tmp_path: Path) -> None:
    generator = Numbered(5)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        data = file.create_dataset("x", (0, *SHAPE), "f4", maxshape=(None, *SHAPE))
        write_generator(generator, d_set=data, label_set=None, workers=4)
        assert data.shape == X.shape
    assert 1 < len(generator.threads) <= 4 and threading.get_ident() not in generator.threads
    with pytest.raises(OSError, match="unreadable"):
        generator = Numbered(1, fail_at=2)
        with h5py.File(tmp_path / "x.h5", "w") as file:
            data = file.create_dataset("x", (ROWS, *SHAPE), "f4")
            write_generator(generator, d_set=data, label_set=None, max_queue_size=5)
    assert len(generator.asked) <= 2 + 5 + 1


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_a_tail_of_zeros_is_an_error(tmp_path: Path, layout: dict) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        data = file.create_dataset("x", (ROWS, *SHAPE), "f4", **layout)
        with pytest.raises(ValueError, match="103 rows, and the generator had 100"):
            write_generator(Numbered(10), steps=10, d_set=data, label_set=None)
        assert np.array_equal(data[:100], X[:100]) and not data[100:].any()


def test_more_rows_than_there_is_room(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        data = file.create_dataset("x", (50, *SHAPE), "f4", chunks=(8, *SHAPE))
        with pytest.raises(ValueError, match="room for 50 rows"):
            write_generator(Numbered(20), d_set=data, label_set=None)
        assert np.array_equal(data[:40], X[:40])


@pytest.mark.parametrize(("batch", "kind", "text"), [
    (X[:3], TypeError, "a batch is"), ((X[:3],), TypeError, "a batch is"), ((X[:3], Y[:2]), ValueError, "3 rows of x and 2 of y"),
    ((X[:3, :2], Y[:3]), ValueError, "shape"), ((X[:3], Y[:3] + 40_000), ValueError, "cannot hold"), ((X[:3], Y[:3] * 0.5), TypeError, "convert"),
    (({"a": X[:3]}, Y[:3]), ValueError, "shape"), ((X[:3], Y[:3], 1, 2), TypeError, "not 4 things")])
def test_wrong_batches(tmp_path: Path, batch: Any, kind: type[Exception], text: str) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        data, labels = file.create_dataset("x", (ROWS, *SHAPE), "f4"), file.create_dataset("y", (ROWS,), "i2")
        with pytest.raises(kind, match=text):
            write_generator([(X[:2], Y[:2]), batch], d_set=data, label_set=labels)
        assert np.array_equal(data[:2], X[:2]) and np.array_equal(labels[:2], Y[:2])


def test_wrong_arguments(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        data = file.create_dataset("x", (ROWS, *SHAPE), "f4")
        for wrong in ({"workers": -1}, {"max_queue_size": 0}, {"steps": -1}, {"steps": 12}):
            with pytest.raises(ValueError, match="steps|workers|max_queue_size"):
                write_generator(Numbered(10), d_set=data, label_set=None, **wrong)
        with pytest.raises(ValueError, match="after 2 of 5"):
            write_generator((pair for pair in [(X[:1], 0), (X[1:2], 0)]), 5, d_set=data, label_set=None)
        with pytest.raises(TypeError):
            write_generator(3, d_set=data, label_set=None)
        with pytest.raises(TypeError, match="d_set"):
            write_generator(Numbered(10), d_set=X, label_set=None)
    with h5py.File(tmp_path / "x.h5") as file, pytest.raises(ValueError, match="reading only"):
        write_generator(Numbered(10), d_set=file["x"], label_set=None)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("kind", range(4), ids=["numbered", "pydataset", "plain", "list"])
def test_resume_after_an_exception(tmp_path: Path, layout: dict, kind: int) -> None:
    def failing(batches: Iterator[Any]) -> Iterator[Any]:
        for number, batch in enumerate(batches):
            if number == 5:
                raise OSError("an unreadable image")
            yield batch

    with h5py.File(tmp_path / "x.h5", "w") as file:
        data = file.create_dataset("x", (ROWS, *SHAPE), "f4", **layout)
        labels = file.create_dataset("y", (ROWS,), "i2", chunks=(30,))
        with pytest.raises(OSError, match="unreadable"):
            write_generator(Numbered(9, fail_at=5) if kind == 0 else failing(plain(9)), d_set=data, label_set=labels)
    with h5py.File(tmp_path / "x.h5", "r+") as file:
        generator = generators(9)[kind]
        assert write_generator(generator, d_set=file["x"], label_set=file["y"], resume=True) == ROWS
        assert np.array_equal(file["x"][...], X) and np.array_equal(file["y"][...], Y)
        if kind == 0:
            assert min(generator.asked) == 5
        assert dict(file["x"].attrs) == {}


class Model:
    """A model of several outputs, as Keras' is asked."""

    def __init__(self, outputs: str) -> None:
        self.outputs, self.calls = outputs, 0

    def predict_on_batch(self, x: np.ndarray) -> Any:
        self.calls += 1
        mean, half = x.mean((1, 2)), x[:, :3].astype("f2")
        return {"one": mean, "list": [mean, half], "mapping": {"mean": mean, "half": half}}[self.outputs]


def check_predictions(path: Path, outputs: str) -> None:
    names = {"one": ["data"], "list": ["data_0", "data_1"], "mapping": ["data_mean", "data_half"]}[outputs]
    with h5py.File(path / "p.h5") as file, h5py.File(path / "l.h5") as labels:
        assert sorted(file) == sorted(names)
        assert file[names[0]].dtype == "f4" and np.array_equal(file[names[0]][...], X.mean((1, 2)))
        if len(names) > 1:
            assert file[names[1]].dtype == "f2" and np.array_equal(file[names[1]][...], X[:, :3].astype("f2"))
        assert labels["data"].dtype == Y.dtype and np.array_equal(labels["data"][...], Y)
    assert sorted(found.name for found in path.iterdir()) == ["l.h5", "p.h5"]


@pytest.mark.parametrize("outputs", ["one", "list", "mapping"])
@pytest.mark.parametrize("kind", range(4), ids=["numbered", "pydataset", "plain", "list"])
def test_predictions(tmp_path: Path, outputs: str, kind: int) -> None:
    model = Model(outputs)
    assert write_predict_generator(model, generators(10)[kind], h5py_file=tmp_path / "p.h5", h5py_label=tmp_path / "l.h5") == ROWS
    assert model.calls == 11
    check_predictions(tmp_path, outputs)
    with pytest.raises(FileExistsError):
        write_predict_generator(model, Numbered(10), h5py_file=tmp_path / "p.h5", h5py_label=tmp_path / "l.h5")
    write_predict_generator(model.predict_on_batch, Numbered(7), h5py_file=str(tmp_path / "p.h5"), h5py_label=str(tmp_path / "l.h5"),
                            overwrite=True)
    check_predictions(tmp_path, outputs)


@pytest.mark.parametrize("fail_at", [0, 1, 6, 10])
def test_predictions_are_resumed(tmp_path: Path, fail_at: int) -> None:
    where = {"h5py_file": tmp_path / "p.h5", "h5py_label": tmp_path / "l.h5"}
    with pytest.raises(OSError, match="unreadable"):
        write_predict_generator(Model("list"), Numbered(10, fail_at=fail_at), **where)
    assert not (tmp_path / "p.h5").exists() and not (tmp_path / "l.h5").exists()
    model = Model("list")
    write_predict_generator(model, Numbered(10), resume=True, **where)
    assert model.calls == 11 - max(0, fail_at - 1)
    check_predictions(tmp_path, "list")


def test_predictions_are_resumed_when_one_file_was_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from h5fast import generators as module

    where = {"h5py_file": tmp_path / "p.h5", "h5py_label": tmp_path / "l.h5"}
    finish = module._BatchFile.finish
    finished: list[Any] = []

    def once(file: Any) -> int:
        if finished:
            raise KeyboardInterrupt
        finished.append(file)
        return finish(file)

    monkeypatch.setattr(module._BatchFile, "finish", once)
    with pytest.raises(KeyboardInterrupt):
        write_predict_generator(Model("one"), Numbered(10), **where)
    monkeypatch.undo()
    assert (tmp_path / "p.h5").exists() != (tmp_path / "l.h5").exists()
    assert write_predict_generator(Model("one"), Numbered(10), resume=True, **where) == ROWS
    check_predictions(tmp_path, "one")


def test_predictions_without_labels_and_wrong_ones(tmp_path: Path) -> None:
    path = tmp_path / "p.h5"
    assert write_predict_generator(lambda x: x * 2, [X[:4], X[4:9]], h5py_file=path, h5py_label=None, verbose=1) == 9
    with h5py.File(path) as file:
        assert np.array_equal(file["data"][...], X[:9] * 2)
    where = {"h5py_file": tmp_path / "q.h5", "h5py_label": tmp_path / "l.h5"}
    for model, generator, kind in [(3, Numbered(5), TypeError), (len, Numbered(5), TypeError), (lambda x: x[1:], Numbered(5), ValueError),
                                   (lambda x: x, [X[:4]], TypeError), (lambda x: x, [], ValueError),
                                   (lambda x: x[:, :len(x)], Numbered(5), ValueError)]:
        with pytest.raises(kind):
            write_predict_generator(model, generator, overwrite=True, **where)
        assert not (tmp_path / "q.h5").exists() and not (tmp_path / "l.h5").exists()
    with pytest.raises(ValueError, match="two files"):
        write_predict_generator(lambda x: x, Numbered(5), h5py_file=path, h5py_label=tmp_path / "." / "p.h5")


def test_from_a_generator_to_training(tmp_path: Path) -> None:
    """The example, on real images: generator, file, features, training."""
    pytest.importorskip("sklearn")
    example = Path(__file__).parent.parent / "examples" / "generator_route.py"
    done = subprocess.run([sys.executable, str(example), str(tmp_path)], capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": str(example.parent.parent)})
    assert done.returncode == 0 and "recognised" in done.stdout, done.stdout + done.stderr
