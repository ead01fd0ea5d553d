"""Files stored in another way: what plain h5py sees of them is the same, and whatever goes wrong the old file stays as it was."""

from __future__ import annotations

import os
import random
import resource
import signal
import time
from pathlib import Path
from typing import Any

import h5py
import hdf5_files as files
import numpy as np
import pytest
from amount import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from repack_files import snapshot, write_everything

import h5fast
from h5fast import CorruptChunkError, H5FastError, UnsupportedError, boxes, comparing, objects, repack


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_everything(tmp_path_factory.mktemp("repack") / "everything.h5")


def only(folder: Path, *names: str) -> bool:
    """Whether these are all files of a folder: no partial one, no commit."""
    return sorted(path.name for path in folder.iterdir()) == sorted(names)


@pytest.mark.parametrize("options", [
    {}, {"codec": "gzip"}, {"codec": "lzf", "chunk_rows": 13}, {"codec": None, "chunk_rows": "keep"},
    {"codec": ("gzip", 9), "shuffle": False},
    {"codec": "auto", "access": "sequential"}, {"memory": "64 KiB", "codec": "lzf", "threads": 1},
], ids=str)
def test_everything_stays_the_same(everything: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    expected = snapshot(everything)
    report = repack(everything, tmp_path / "out.h5", **options)
    assert snapshot(tmp_path / "out.h5") == expected
    assert report.verified and report.bytes == os.path.getsize(tmp_path / "out.h5")
    names = {entry.name for entry in report.datasets}
    assert "/a/flags" in names or options.get("chunk_rows") == "keep"
    assert not names & {"/scalar", "/strings", "/refs", "/virtual", "/external", "/compound", "/small", "/a/never"}
    assert ("/a/plain" in names) == (options.get("codec", "keep") not in ("keep", None, "auto") or options.get("codec") == "auto")
    assert (tmp_path / "out.h5").read_bytes()[:11] == b"user block "
    assert only(tmp_path, "out.h5")


def test_what_is_chosen_is_stored_so(everything: Path, tmp_path: Path) -> None:
    report = repack(everything, tmp_path / "out.h5", codec="gzip", chunk_rows=8)
    with h5py.File(tmp_path / "out.h5") as file, h5py.File(everything) as old:
        for entry in report.datasets:
            dataset = file[entry.name]
            assert dataset.chunks == entry.chunks == (8, *dataset.shape[1:]) and dataset.compression == "gzip"
            assert dataset.id.get_storage_size() == entry.stored
            assert old[entry.name].chunks == entry.chunks_before
        assert file["z/image"] == file["z/again"] and file["a/flags"].shape == (80000,)
        assert file["a/holes"].id.get_num_chunks() < 25
        assert file["z/tiles"].fletcher32
        assert file["typed"].id.get_type().committed()
        assert file["a/packed"].scaleoffset is None


def test_in_place(everything: Path, tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    path.write_bytes(everything.read_bytes())
    path.chmod(0o640)
    (tmp_path / "link.h5").symlink_to(path)
    expected = snapshot(path)
    repack(tmp_path / "link.h5", codec="gzip")
    assert snapshot(path) == expected
    assert path.stat().st_mode & 0o777 == 0o640 and (tmp_path / "link.h5").is_symlink()
    again = repack(path, codec="gzip")
    assert again.datasets == ()
    assert snapshot(path) == expected


def test_chunks_that_hold_parts_of_rows(everything: Path, tmp_path: Path) -> None:
    report = repack(everything, tmp_path / "out.h5", paths=["z/image", "/a/plain"], chunk_rows=10)
    assert [entry.name for entry in report.datasets] == ["/z/image", "/a/plain"]
    repack(everything, tmp_path / "tiles.h5", paths="/z/tiles", chunks=(11, 300))
    repack(everything, tmp_path / "image.h5", paths="/z/image", chunks=(32, 5, 16, 2), codec="lzf")
    expected = snapshot(everything)
    for name in ("out.h5", "tiles.h5", "image.h5"):
        assert snapshot(tmp_path / name) == expected
    with h5py.File(tmp_path / "tiles.h5") as file:
        assert file["z/tiles"].chunks == (11, 300) and file["z/image"].chunks == (40, 16, 16, 3)


@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_chunks_to_any_others(tmp_path: Path, data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 30), min_size=1, max_size=3), "shape"))
    chunks = st.one_of(st.none(), st.tuples(*(st.integers(1, length) for length in shape)))
    before, after = data.draw(chunks, "before"), data.draw(chunks, "after")
    dtype = data.draw(st.sampled_from(["u1", ">i4", "<f8", "S3"]), "dtype")
    pipeline = data.draw(st.sampled_from(sorted(files.PIPELINES)), "pipeline") if before else "none"
    values = files.content(shape, dtype)
    path = files.write(tmp_path / "f.h5", values, chunks=before, pipeline=files.PIPELINES[pipeline], fill=values.flat[0],
                       maxshape=tuple(length + 3 for length in shape) if before else None)
    options = {"chunks": after} if after else {"chunk_rows": data.draw(st.integers(1, 40), "rows")}
    repack(path, tmp_path / "o.h5", paths="d", overwrite=True, codec=data.draw(st.sampled_from(["keep", None, "lzf", "gzip"])),
           memory=data.draw(st.sampled_from([1 << 10, 1 << 14, 1 << 20]), "memory"), **options)
    with h5py.File(tmp_path / "o.h5") as file, h5py.File(path) as old:
        assert file["d"][...].tobytes() == values.tobytes()
        assert (file["d"].maxshape, file["d"].dtype, file["d"].fillvalue) == (old["d"].maxshape, old["d"].dtype, old["d"].fillvalue)


@settings(deadline=None)
@given(shape=st.lists(st.integers(0, 40), min_size=1, max_size=3), data=st.data())
def test_boxes_cover_everything_once(shape: list[int], data: st.DataObject) -> None:
    chunks = tuple(data.draw(st.tuples(*(st.integers(1, 20) for _ in shape))))
    most = data.draw(st.integers(1, 100_000))
    seen = np.zeros(shape, "i4")
    for box in boxes.boxes(tuple(shape), chunks, 4, most, data.draw(st.integers(1, 9))):
        assert all(part.start % chunk == 0 for part, chunk in zip(box, chunks, strict=True))
        padded = np.prod([-(-(part.stop - part.start) // chunk) * chunk for part, chunk in zip(box, chunks, strict=True)])
        assert padded * 4 <= max(most, np.prod(chunks) * 4)
        seen[box] += 1
    assert (seen == 1).all()


def test_an_order_of_a_growing_file_is_kept(tmp_path: Path) -> None:
    """Files for reading while they grow (SWMR) have another superblock, which cannot be added later."""
    with h5py.File(tmp_path / "f.h5", "w", libver="latest") as file:
        file.create_dataset("x", data=files.content((50000,), "<i4"), chunks=(100,), maxshape=(None,), compression="lzf")
    repack(tmp_path / "f.h5", chunk_rows=5000)
    with h5py.File(tmp_path / "f.h5", "r+", libver="latest") as file:
        file.swmr_mode = True
        assert file["x"].chunks == (5000,)


def test_attributes_that_tell_of_the_storage_tell_the_present_one(tmp_path: Path) -> None:
    with h5fast.Writer(tmp_path / "f.h5", {"x": h5fast.Spec((100,), "<f4", chunk_rows=7)}) as writer:
        writer.append(x=files.content((500, 100), "<f4"))
    repack(tmp_path / "f.h5", codec="gzip")
    with h5py.File(tmp_path / "f.h5") as file:
        assert file["x"].attrs["h5fast_codec"].startswith("shuffle+gzip(4)")
        assert "asked for" not in file["x"].attrs["h5fast_chunk_rows"]


# What goes wrong.


def unharmed(path: Path, content: bytes) -> bool:
    return path.read_bytes() == content and not list(path.parent.glob("*.partial*"))


def test_a_damaged_chunk(tmp_path: Path) -> None:
    path = files.write(tmp_path / "f.h5", files.content((100, 900), "<f8"), chunks=(10, 900), pipeline=files.PIPELINES["gzip"])
    files.write_chunk(path, (30, 0), b"no deflate")
    content = path.read_bytes()
    for options in ({"codec": "lzf"}, {"chunk_rows": "keep"}):  # encoded again; copied as it is stored
        with pytest.raises(CorruptChunkError, match=r"f.h5.*'/d'|/d.*f.h5"):
            repack(path, **options)
        assert unharmed(path, content)
    with pytest.raises(CorruptChunkError):
        repack(path, tmp_path / "o.h5", codec="lzf")
    assert only(tmp_path, "f.h5")


def test_a_difference_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = files.write(tmp_path / "f.h5", files.content((100, 900), "<f8"), chunks=(10, 900))
    content = path.read_bytes()

    def wrong(values: np.ndarray, *rest: Any) -> np.ndarray:
        found = boxes.tiled(values, *rest)
        found.reshape(-1)[-1] += 1
        return found

    monkeypatch.setattr("h5fast.recoding.tiled", wrong)
    with pytest.raises(H5FastError, match="/d, at .*: elements are not those of"):
        repack(path, codec="lzf")
    assert unharmed(path, content)


def change(file: h5py.File, what: str) -> None:
    if what == "attribute":
        file["z/image"].attrs["title"] = "other"
    elif what == "missing":
        del file["small"]
    elif what == "reference":
        file["refs"][1] = file["z"].ref
    elif what == "hard link":
        del file["z/again"]
        file["z/again"] = file["z/image"][...]
    elif what == "soft link":
        del file["soft"]
        file["soft"] = h5py.SoftLink("/elsewhere")
    elif what == "element":
        file["strings"][4] = "changed"
    else:
        file["z/image"].resize(151, axis=0)


@pytest.mark.parametrize("what", ["attribute", "missing", "reference", "hard link", "soft link", "element", "shape"])
def test_comparison_sees_every_difference(everything: Path, tmp_path: Path, what: str) -> None:
    repack(everything, tmp_path / "o.h5")
    with h5py.File(tmp_path / "o.h5", "r+") as file:
        change(file, what)
    with objects.File(everything) as one, objects.File(tmp_path / "o.h5") as other, pytest.raises(H5FastError, match="are not those of"):
        comparing.Comparison(one, other, frozenset(), 1 << 20).run()


def test_existing_files(everything: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.h5"
    out.write_text("mine")
    with pytest.raises(FileExistsError, match="o.h5"):
        repack(everything, out)
    assert out.read_text() == "mine"
    repack(everything, out, overwrite=True)
    with pytest.raises(ValueError, match="without out"):
        repack(out, out)
    with pytest.raises(FileNotFoundError, match="absent"):
        repack(everything, tmp_path / "absent" / "o.h5")
    with pytest.raises(FileNotFoundError, match="none.h5"):
        repack(tmp_path / "none.h5")


def test_a_writers_partial_file_is_not_thrown_away(tmp_path: Path) -> None:
    path = files.write(tmp_path / "f.h5", files.content((100, 900), "<f8"))
    writer = h5fast.Writer(tmp_path / "o.h5", {"x": h5fast.Spec((), "u1")})
    writer.append(x=np.arange(9))
    writer.abandon()
    with pytest.raises(FileExistsError, match="can be resumed"):
        repack(path, tmp_path / "o.h5")
    repack(path, tmp_path / "o.h5", overwrite=True)
    assert only(tmp_path, "f.h5", "o.h5")


def test_a_file_that_changes_meanwhile_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = files.write(tmp_path / "f.h5", files.content((100, 900), "<f8"))
    run = comparing.Comparison.run

    def slow(comparison: comparing.Comparison) -> None:
        run(comparison)
        os.utime(path, ns=(1, 1))

    monkeypatch.setattr(comparing.Comparison, "run", slow)
    with pytest.raises(h5fast.ReadError, match="changed while"):
        repack(path, codec="lzf")
    assert only(tmp_path, "f.h5")


def test_a_file_open_for_writing_here_is_refused(tmp_path: Path) -> None:
    path = files.write(tmp_path / "f.h5", files.content((100, 900), "<f8"))
    with h5py.File(path, "r+"), pytest.raises(h5fast.ReadError, match="open for writing"):
        repack(path)
    assert only(tmp_path, "f.h5")


@pytest.mark.parametrize(("options", "error", "words"), [
    ({"paths": "/absent"}, KeyError, "absent"),
    ({"paths": "strings", "codec": "lzf"}, UnsupportedError, "'/strings'.*variable length"),
    ({"paths": "virtual", "codec": "lzf"}, UnsupportedError, "'/virtual'.*other datasets"),
    ({"paths": "external", "codec": "lzf"}, UnsupportedError, "'/external'.*external storage"),
    ({"paths": "scalar", "codec": "lzf"}, UnsupportedError, "'/scalar'.*no rows"),
    ({"paths": "a/packed"}, UnsupportedError, "'/a/packed'.*HDF5 only"),
    ({"paths": "z/image", "chunks": (5, 5)}, ValueError, "do not tile"),
    ({"chunks": (5, 5)}, ValueError, "paths name"),
    ({"codec": "lzw"}, ValueError, "codec is one of"),
    ({"chunk_rows": 0}, ValueError, "chunk_rows"),
    ({"shuffle": True}, ValueError, "shuffle is part of"),
    ({"access": "backwards"}, ValueError, "access"),
    ({"memory": "lots"}, ValueError, "a size is"),
])
def test_refused(everything: Path, tmp_path: Path, options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        repack(everything, tmp_path / "o.h5", **options)
    assert only(tmp_path)


def test_options_mean_nothing_whatever_the_file_has(tmp_path: Path) -> None:
    path = files.write(tmp_path / "f.h5", files.content((3,), "<f8"))
    for options in ({"codec": "lzw"}, {"codec": ("gzip", 10)}, {"chunk_rows": 0}, {"shuffle": True}, {"codec": 5}):
        with pytest.raises(ValueError):
            repack(path, tmp_path / "o.h5", **options)
    assert only(tmp_path, "f.h5")


def test_what_h5py_cannot_read_is_copied_and_not_compared(tmp_path: Path) -> None:
    """Lists of times, as PyTables writes them."""
    path = tmp_path / "f.h5"
    with h5py.File(path, "w") as file:
        kind = h5py.h5t.vlen_create(h5py.h5t.UNIX_D32LE)
        made = h5py.h5d.create(file.id, b"times", kind, h5py.h5s.create_simple((2,)))
        made.write(h5py.h5s.ALL, h5py.h5s.ALL, np.zeros(2, f"V{kind.get_size()}"), kind)
    with pytest.raises(UnsupportedError, match=r"f\.h5: /times cannot be read by h5py.*verify=False"):
        repack(path, tmp_path / "o.h5")
    assert only(tmp_path, "f.h5")
    repack(path, tmp_path / "o.h5", verify=False)
    assert only(tmp_path, "f.h5", "o.h5")


def test_lists_of_big_endian_numbers(tmp_path: Path) -> None:
    """h5py takes them for native ones, and writes them with their bytes in the other order."""
    path = tmp_path / "f.h5"
    with h5py.File(path, "w") as file:
        kind = h5py.h5t.vlen_create(h5py.h5t.STD_U64BE)
        attribute = h5py.h5a.create(file.id, b"lists", kind, h5py.h5s.create_simple((2,)))
        values = np.empty(2, h5py.vlen_dtype("u8"))
        values[0], values[1] = np.array([1, 2], "u8"), np.array([3], "u8")
        attribute.write(values, h5py.h5t.py_create(values.dtype))
        before = [each.tolist() for each in file.attrs["lists"]]
    repack(path, tmp_path / "o.h5")
    with h5py.File(tmp_path / "o.h5") as file:
        assert [each.tolist() for each in file.attrs["lists"]] == before
        assert file.attrs.get_id("lists").get_type().get_super().equal(h5py.h5t.STD_U64BE)


def test_lists_of_regions_are_refused(tmp_path: Path) -> None:
    """Reading them through h5py writes behind the memory that it has: nothing of them may be read."""
    path = tmp_path / "f.h5"
    with h5py.File(path, "w") as file:
        h5py.h5a.create(file.id, b"regions", h5py.h5t.vlen_create(h5py.h5t.STD_REF_DSETREG), h5py.h5s.create_simple((1,)))
    with pytest.raises(UnsupportedError, match=r"'regions' of '/'.*lists of region references"):
        repack(path, tmp_path / "o.h5")
    assert only(tmp_path, "f.h5")


def test_a_huge_dataset_that_was_never_written(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (1 << 33, 1 << 28), "i4", fillvalue=3)
        file.create_dataset("y", (1 << 33, 1 << 28), "i4", chunks=(64, 64))
    repack(path, tmp_path / "o.h5")
    with h5py.File(tmp_path / "o.h5") as file:
        assert file["x"].shape == (1 << 33, 1 << 28) and file["x"][5, 5] == 3 and file["y"].chunks == (64, 64)


def test_a_full_disk(tmp_path: Path) -> None:
    path = files.write(tmp_path / "f.h5", files.content((3000, 900), "<f8"), chunks=(10, 900), pipeline=files.PIPELINES["lzf"])
    content = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    former = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
        with pytest.raises(OSError, match=r"f.h5.partial") as caught:
            repack(path, codec=None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, former)
    assert caught.value.errno is not None and unharmed(path, content)


def test_killed_at_any_time(tmp_path: Path) -> None:
    """The old file or the new one, each whole; and what is left does not stand in the way of the next attempt."""
    path = files.write(tmp_path / "f.h5", files.content((4000, 900), "<f8"), chunks=(10, 900), pipeline=files.PIPELINES["lzf"])
    values = files.content((4000, 900), "<f8").tobytes()
    rng, codecs = random.Random(0), set()
    for _ in range(8):
        child = files.start_python("import sys, h5fast\nprint('ready', flush=True)\nh5fast.repack(sys.argv[1], codec=sys.argv[2])",
                                   path, rng.choice(["gzip", "lzf"]))
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0, 1.5))
        child.kill()
        child.communicate()
        with h5py.File(path) as file:
            assert file["d"][...].tobytes() == values
            codecs.add(file["d"].compression)
    repack(path, codec="gzip")
    assert only(tmp_path, "f.h5") and codecs
