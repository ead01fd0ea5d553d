"""CSR matrices in files: batches are what scipy takes of the whole, and only the chunks that a batch touches are read."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from h5fast import CorruptChunkError, CorruptFileError, Field, Loader, _gather, runs
from h5fast.sparse import csr_column

sparse = pytest.importorskip("scipy.sparse")

ORDERS = ["exact", "block", "batches", False]
CSR = Field("X", layout="csr")
COLUMNS = 300
STORED: dict[str, dict[str, Any]] = {
    "contiguous": {},
    "chunked": {"chunks": (97,)},  # a prime: blocks of one
    "lzf": {"chunks": (96,), "compression": "lzf"},
    "gzip": {"chunks": (1000,), "compression": "gzip", "shuffle": True},
    "by HDF5": {"chunks": (50,), "scaleoffset": 0},
}


def _write(path: Path, matrix: Any, options: dict[str, Any], first: int = 0) -> None:
    with h5py.File(path, "w") as file:
        group = file.create_group("X")
        group.attrs["encoding-type"], group.attrs["encoding-version"] = "csr_matrix", "0.1.0"
        group.attrs["shape"] = matrix.shape
        for name in ("data", "indices", "indptr"):
            group.create_dataset(name, data=getattr(matrix, name), **(options if name != "indptr" else {}))
        file["label"] = np.arange(first, first + matrix.shape[0])


def _matrix(rows: int, seed: int) -> Any:
    random = np.random.default_rng(seed)
    counts = random.integers(0, 40, rows) * (random.random(rows) < 0.9)  # empty rows, too
    counts[0] = counts[-1] = 0
    indices = np.concatenate([random.choice(COLUMNS, count, replace=False) for count in counts])  # not sorted
    indptr = np.concatenate([[0], np.cumsum(counts)])
    return sparse.csr_matrix((random.integers(1, 99, len(indices)).astype("i4"), indices.astype("i4"), indptr.astype("i4")),
                             shape=(rows, COLUMNS))


@pytest.fixture(scope="module", params=STORED)
def stored(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], Any]:
    folder = tmp_path_factory.mktemp("sparse")
    matrices = [_matrix(400, 1), _matrix(173, 2)]
    paths = [folder / "a.h5ad", folder / "b.h5ad"]
    _write(paths[0], matrices[0], STORED[request.param])
    _write(paths[1], matrices[1], STORED[request.param], first=400)
    whole = sparse.csr_matrix((np.concatenate([m.data for m in matrices]), np.concatenate([m.indices for m in matrices]),
                               np.concatenate([matrices[0].indptr, matrices[1].indptr[1:] + matrices[0].nnz])), shape=(573, COLUMNS))
    return paths, whole


def _same(mine: Any, theirs: Any) -> None:
    assert isinstance(mine, sparse.csr_matrix)
    assert mine.dtype == theirs.dtype and mine.shape == theirs.shape and mine.indices.dtype == theirs.indices.dtype
    for part in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(mine, part), getattr(theirs, part))


@pytest.mark.parametrize("memory", ["260 kB", "10 MB"])
@pytest.mark.parametrize("shuffle", ORDERS)
def test_rows_are_scipys(stored: tuple[list[Path], Any], shuffle: Any, memory: str) -> None:
    paths, whole = stored
    for files, count in ((paths, 573), (paths[0], 400)):
        loader = Loader(files, (CSR, "label", Field("X", layout="csr", dtype="f4", scale=0.5)), 50, shuffle=shuffle, memory=memory)
        for _ in range(2):
            seen = []
            for batch, labels, halves in loader:
                _same(batch, whole[labels])
                taken = whole[labels]
                _same(halves, sparse.csr_matrix((taken.data.astype("f4") / 2, taken.indices, taken.indptr), taken.shape))
                seen += labels.tolist()
            assert sorted(seen) == list(range(count))


def test_resume_and_rows(stored: tuple[list[Path], Any]) -> None:
    paths, whole = stored
    first = Loader(paths, {"x": CSR, "y": "label"}, 64, rows=[5, 5, 400, 399, 0, -1] * 40)
    expected = [batch["y"].tolist() for batch in first]
    first.set_epoch(0)
    batches = iter(first)
    next(batches)
    second = Loader(paths, {"x": CSR, "y": "label"}, 64, rows=[5, 5, 400, 399, 0, -1] * 40, memory="1 MB")
    second.load_state_dict(first.state_dict())
    rest = list(second)
    assert [batch["y"].tolist() for batch in rest] == expected[1:]
    for batch in rest:
        _same(batch["x"], whole[batch["y"]])


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, np.ndarray]]:
    """Each read of the engine's: of what, and the elements that it took."""
    taken: list[tuple[str, np.ndarray]] = []
    read = _gather.read

    def counted(chunks: Any, selection: Any, out: np.ndarray, threads: int, origin: Any, **options: Any) -> bool:
        grain = 1 if selection.rank == 1 else selection.axes[1][1]
        blocks = selection.coordinates[0]
        if blocks is None:
            start, count, step, *_ = selection.axes[0]
            blocks = start + step * np.arange(count)
        taken.append((origin(), (blocks[:, None] * grain + np.arange(grain)).ravel()))
        return read(chunks, selection, out, threads, origin, **options)

    monkeypatch.setattr(runs._gather, "read", counted)
    return taken


@pytest.mark.parametrize("name", ["contiguous", "chunked", "lzf", "gzip"])
def test_a_batch_reads_what_it_touches_in_one_read(tmp_path: Path, name: str, reads: list[Any]) -> None:
    matrix = _matrix(3000, 3)
    _write(tmp_path / "f.h5", matrix, STORED[name])
    column = csr_column("X", CSR, [tmp_path / "f.h5"], "X")
    rows = np.random.default_rng(0).integers(0, 3000, 256)
    reads.clear()
    _same(column.read(rows), matrix[rows])
    assert len(reads) == 2, "one for data, one for indices"
    touched = np.unique(np.concatenate([np.arange(matrix.indptr[row], matrix.indptr[row + 1]) for row in rows]))
    chunk = STORED[name].get("chunks", (64,))[0]
    for _, elements in reads:
        assert len(np.unique(elements)) == len(elements), "overlapping spans are read together"
        assert set(touched) <= set(elements)
        assert set(elements // chunk) == set(touched // chunk), "no chunk but those that rows of the batch lie in"
        assert len(elements) <= len(touched) + 2 * 63 * len(np.unique(rows))


def test_what_fits_the_memory_is_decoded_once(tmp_path: Path, reads: list[Any]) -> None:
    matrix = _matrix(1000, 4)
    _write(tmp_path / "f.h5", matrix, STORED["lzf"])
    loader = Loader(tmp_path / "f.h5", (CSR, "label"), 64)
    for _ in range(3):
        for batch, labels in loader:
            _same(batch, matrix[labels])
    for part in ("data", "indices"):
        elements = np.concatenate([taken for origin, taken in reads if f"/X/{part}" in origin])
        assert len(elements) == len(np.unique(elements)) and len(elements) - matrix.nnz < 96


def test_a_plan_is_cut_between_chunks(tmp_path: Path, reads: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "_PIECES", 200)
    matrix = _matrix(500, 5)
    _write(tmp_path / "f.h5", matrix, STORED["chunked"])
    column = csr_column("X", CSR, [tmp_path / "f.h5"], "X")
    reads.clear()
    _same(column.read(np.arange(500)), matrix)
    chunks = [np.unique(elements // 97) for origin, elements in reads if "/X/data" in origin]
    assert len(chunks) > 10 and len(np.concatenate(chunks)) == len(np.unique(np.concatenate(chunks)))


def test_what_is_no_csr_matrix_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, matrix = tmp_path / "f.h5", _matrix(50, 6)

    def expect(error: type[Exception], message: str, **changes: Any) -> None:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))} f.h5"
        _write(path, matrix, {})
        with h5py.File(path, "r+") as file:
            for name, value in changes.items():
                if name in ("shape", "encoding"):
                    key = "shape" if name == "shape" else "encoding-type"
                    del file["X"].attrs[key]
                    if value is not None:
                        file["X"].attrs[key] = value
                else:
                    del file["X"][name]
                    if value is not None:
                        file["X"][name] = value
        with pytest.raises(error, match=message):
            for _ in Loader(path, CSR, 10):
                pass

    down, far = matrix.indptr.copy(), matrix.indices.copy()
    down[20] = 1000
    far[40] = COLUMNS
    expect(CorruptFileError, r"f\.h5: group '/X': 'indptr' decreases behind row 20", indptr=down)
    expect(CorruptFileError, "'indptr' ends with", data=matrix.data[:-1])
    expect(CorruptFileError, "'indptr' starts with 3", indptr=np.r_[3, matrix.indptr[1:]])
    expect(CorruptFileError, "'indptr' has 50 entries for 50 rows", indptr=matrix.indptr[:-1])
    expect(CorruptFileError, "'indices' has column 300 of a matrix with 300", indices=far)
    expect(CorruptFileError, "'indices' has column -1", indices=np.where(far == COLUMNS, -1, far))
    expect(ValueError, "does not say how many columns", shape=None)
    expect(ValueError, "is a csc_matrix", encoding="csc_matrix")
    expect(ValueError, "no part of a csr matrix", data=np.zeros((3, 3)))
    expect(KeyError, "needs a group with data, indices and indptr", indices=None)
    _write(path, matrix, {})
    with pytest.raises(KeyError, match="needs a group with data"):
        Loader(path, Field("label", layout="csr"))
    with pytest.raises(ValueError, match="an offset would make zeros"):
        Loader(path, Field("X", layout="csr", offset=1))
    with h5py.File(tmp_path / "g.h5", "w") as file:
        file["X/data"], file["X/indices"], file["X/indptr"] = np.ones(1, "i4"), np.zeros(1, "i4"), [0, 1]
        file["X"].attrs["shape"] = (1, 7)
    with pytest.raises(ValueError, match=r"rows of .*f\.h5.* have 300 columns of int32, those of .*g\.h5.* 7 of int32"):
        Loader([path, tmp_path / "g.h5"], CSR)
    with h5py.File(path) as file:
        assert sum(len(batch.indptr) - 1 for batch in Loader({"m": file["X"]}, {"a": Field("m", layout="csr")}, 10, drop_last=True)
                   for batch in batch.values()) == 50
    monkeypatch.setitem(sys.modules, "scipy.sparse", None)
    with pytest.raises(ImportError, match=r"pip install 'h5fast\[sparse\]'"):
        Loader(path, CSR)


def test_a_damaged_chunk_is_named(tmp_path: Path) -> None:
    matrix = _matrix(300, 7)
    _write(tmp_path / "f.h5", matrix, STORED["lzf"])
    with h5py.File(tmp_path / "f.h5") as file:
        chunk = file["X/data"].id.get_chunk_info(3)
    with open(tmp_path / "f.h5", "r+b") as raw:
        raw.seek(chunk.byte_offset)
        raw.write(b"\xff" * chunk.size)
    with pytest.raises(CorruptChunkError, match=r"f\.h5.*/X/data"):
        for _ in Loader(tmp_path / "f.h5", CSR, 10):
            pass


def test_chunks_are_decoded_for_several_batches_at_once(tmp_path: Path) -> None:
    """A matrix that does not fit the memory was decoded whole for every batch."""
    matrix = _matrix(3000, 200)
    _write(tmp_path / "f.h5", matrix, {"chunks": (1000,), "compression": "lzf"})
    entries = matrix.nnz * (matrix.data.itemsize + matrix.indices.itemsize)
    decodes = {}
    for share in (0, 0.8, 4):
        loader = Loader(tmp_path / "f.h5", CSR, 30, memory=200_000 + int(share * entries))
        for epoch in range(2):
            for rows, batch in zip(loader.epoch_rows(epoch), loader):
                assert (batch != matrix[rows]).nnz == 0
        decodes[share] = loader.stats()["decodes"] / loader.stats()["chunks"]
    assert decodes[0.8] < decodes[0] * 0.7
    assert decodes[4] == 0
