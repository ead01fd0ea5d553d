"""The ``h5fast`` command: what it reports, what it measures, and how it fails."""

from __future__ import annotations

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest

from h5fast import bench, info, sizes
from h5fast.cli import main


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("cli") / "data.h5"
    rng = np.random.default_rng(0)
    image = rng.integers(0, 4, (400, 32, 32, 3), "u1")
    with h5py.File(path, "w") as file:
        file.create_dataset("image", data=image, chunks=(50, 32, 32, 3), compression="lzf", maxshape=(None, 32, 32, 3))
        file.create_dataset("single", data=image, chunks=(1, 32, 32, 3), compression="gzip", shuffle=True, fletcher32=True)
        file.create_dataset("tiled", data=image, chunks=(50, 8, 8, 3))
        file.create_dataset("noise", data=rng.random((64, 1024)), chunks=(1, 1024), compression="lzf")
        file.create_dataset("packed", data=rng.integers(0, 9, (100, 10)), chunks=(10, 10), scaleoffset=0)
        file.create_dataset("group/label", data=np.arange(400))
        file.create_dataset("tiny", data=np.zeros((5000, 4), "u1"), chunks=(2, 4))
        file["text"] = ["a", "bc"]
        file["scalar"] = 1.0
        file["empty"] = h5py.Empty("f4")
        file["link"] = h5py.SoftLink("/image")
        file["nowhere"] = h5py.SoftLink("/missing")
        file["type"] = np.dtype("i4")
    return path


def reports(path: pathlib.Path, name: str | None = None) -> dict[str, info.DatasetReport]:
    return {report.name: report for report in info.describe_file(str(path), name).datasets}


# info


def test_info_reports_every_dataset_once(path: pathlib.Path) -> None:
    found = reports(path)
    assert list(found) == sorted(found)
    assert set(found) == {
        "/image", "/single", "/tiled", "/noise", "/packed", "/group/label", "/tiny", "/text", "/scalar", "/empty",
    }  # fmt: skip
    assert all(report.error is None for report in found.values())


def test_info_tells_how_data_are_stored(path: pathlib.Path) -> None:
    found = reports(path)
    image = found["/image"]
    assert (image.shape, image.dtype, image.chunks) == ((400, 32, 32, 3), "uint8", (50, 32, 32, 3))
    assert (image.maxshape, image.layout, image.chunks_stored) == ((None, 32, 32, 3), "chunked", 8)
    assert [str(step) for step in image.filters] == ["lzf"] and image.compressed
    assert (image.logical_bytes, image.row_bytes, image.chunk_bytes) == (1_228_800, 3072, 153_600)
    with h5py.File(path) as file:
        assert image.stored_bytes == file["image"].id.get_storage_size()
    assert image.ratio == pytest.approx(image.logical_bytes / image.stored_bytes)
    assert [str(step) for step in found["/single"].filters] == ["shuffle", "gzip(4)", "fletcher32"]
    assert not found["/tiled"].compressed
    assert found["/group/label"].layout == "contiguous" and found["/group/label"].ratio == 1
    assert found["/text"].dtype == "string"
    assert found["/scalar"].shape == () and found["/empty"].shape is None and found["/empty"].layout == "null"


def test_info_tells_which_path_reads_and_why(path: pathlib.Path) -> None:
    found = reports(path)
    assert found["/image"].reader == found["/single"].reader == found["/group/label"].reader == "direct"
    assert found["/packed"].reader.startswith("general: ")
    assert found["/text"].reader.startswith("general: ")


def test_info_advises(path: pathlib.Path) -> None:
    found = reports(path)
    assert found["/image"].advice == (
        "a chunk holds 50 rows, and a random row decodes it for one of them: "
        "1 to 4 rows a chunk, such as chunks=(1, 32, 32, 3), suit random rows",
    )
    assert found["/single"].advice == ("lzf, lz4 and zstd decode faster than gzip, for a larger file",)
    assert found["/tiled"].advice == ("a row lies in 16 chunks: with chunks=(1, 32, 32, 3) it lies in one",)
    assert found["/noise"].advice == ("the filters save nothing: without them, rows are copied and nothing is decoded",)
    assert "HDF5 itself reads it" in found["/packed"].advice[0] and "own threads" in found["/packed"].advice[1]
    assert found["/tiny"].advice[0].startswith("a chunk holds only 8 bytes")
    assert found["/group/label"].advice == found["/scalar"].advice == found["/empty"].advice == ()


def test_info_of_one_dataset_or_group(path: pathlib.Path) -> None:
    assert list(reports(path, "image")) == ["/image"]
    assert list(reports(path, "/group")) == ["/group/label"]
    assert list(reports(path, "group/label")) == ["/group/label"]
    assert reports(path, "type")["/type"].error == "a datatype, not a dataset"


def test_unwritten_chunks_do_not_count_as_compression(tmp_path: pathlib.Path) -> None:
    with h5py.File(tmp_path / "sparse.h5", "w") as file:
        sparse = file.create_dataset("x", (1000, 512), "u1", chunks=(1, 512))
        sparse[:10] = 1
        file.create_dataset("never", (1000, 512), "u1", chunks=(1, 512))
    found = reports(tmp_path / "sparse.h5")
    assert found["/x"].ratio == 1 and found["/x"].chunks_stored == 10
    assert found["/never"].ratio is None


def test_info_prints(path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(path)]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"{path}: ")
    assert "10 datasets" in text
    assert "/image  uint8 (400, 32, 32, 3), 1.2 MiB\n  layout   8 chunks of (50, 32, 32, 3), 150.0 KiB each\n" in text
    assert "  grows to (any, 32, 32, 3)\n  filters  lzf\n" in text
    assert "  filters  shuffle, then gzip(4), then fletcher32\n" in text
    assert "  faster   a row lies in 16 chunks" in text
    assert "/empty  float32 no shape, 0 bytes\n  layout   null\n" in text


def test_info_json(path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--json", str(path), "image"]) == 0
    (image,) = json.loads(capsys.readouterr().out)["datasets"]
    assert image["filters"][0]["name"] == "lzf" and image["maxshape"] == [None, 32, 32, 3]
    assert image["ratio"] > 1 and len(image["advice"]) == 1 and image["reader"] == "direct"


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (3 << 20, "3.0 MiB"), (5 << 40, "5.0 TiB")]
)
def test_sizes_are_readable(count: int, text: str) -> None:
    assert sizes.format_bytes(count) == text


# bench


def test_bench_prints_a_table(path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", f"{path}::image", "--batch", "20", "--rounds", "3", "--threads", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{path}::/image  uint8 (400, 32, 32, 3), reader direct"
    assert "page cache" in lines[1] and "medians of 3 rounds; bytes compared first" in lines[2]
    names = [line[:24].strip() for line in lines[5:]]
    assert names == [bench.FANCY, bench.LOOP, "h5fast, 1 thread", "h5fast, 2 threads", bench.MEMORY]
    assert lines[5].split()[-2] == "1.0" and lines[6].split()[-1] == "1.0"


def test_bench_picks_the_largest_dataset(path: pathlib.Path) -> None:
    report = bench.run_bench(str(path), batch=5, rounds=3, threads=1)
    assert report.name in ("/image", "/single", "/tiled")
    assert report.rounds == 3 and report.batch == 5 and (report.cached is None or 0 <= report.cached <= 1)


def test_bench_takes_what_there_is(path: pathlib.Path) -> None:
    assert bench.run_bench(str(path), "packed", batch=1000, rounds=3, threads=1).batch == 100
    assert bench.run_bench(str(path), "text", batch=2, rounds=3, threads=1).timings[-1].method == "h5fast, 1 thread"


def test_bench_keeps_to_its_time(path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = time.perf_counter()
    assert main(["bench", f"{path}::image", "--batch", "400", "--rounds", "1000000", "--seconds", "1e-4"]) == 0
    assert time.perf_counter() - start < 20
    assert "would have taken too long" in capsys.readouterr().out


def test_bench_leaves_the_threads_as_they_were(path: pathlib.Path) -> None:
    before = bench.get_num_threads()
    bench.run_bench(str(path), "image", batch=5, rounds=3, threads=before + 3)
    assert bench.get_num_threads() == before


def test_bench_refuses_to_time_wrong_bytes(
    path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "_take", lambda dataset, threads, rows: dataset.take(rows) + 1)
    assert main(["bench", f"{path}::image", "--batch", "5"]) == 1
    assert "h5fast, 1 thread and h5py row by row differ on rows of '/image'" in capsys.readouterr().err


def test_thread_counts() -> None:
    assert [bench._thread_counts(most) for most in (1, 2, 3, 8, 12)] == [
        [1], [1, 2], [1, 2, 3], [1, 2, 4, 8], [1, 2, 4, 8, 12],
    ]  # fmt: skip


def test_a_file_may_have_colons_in_its_name(
    path: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = tmp_path / "a::b.h5"
    odd.write_bytes(path.read_bytes())
    assert main(["bench", str(odd), "--batch", "3", "--rounds", "3"]) == 0
    assert capsys.readouterr().out.startswith(f"{odd}::/")


def test_a_dataset_is_named_apart_or_behind_colons(path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command, *options in (["info"], ["bench", "--batch", "3", "--rounds", "3"]):
        firsts = set()
        for target in ([f"{path}::group/label"], [str(path), "group/label"]):
            assert main([command, *target, *options]) == 0
            firsts.add(capsys.readouterr().out.partition("\n")[0])
        assert len(firsts) == 1 and ("1 dataset" in firsts.pop() or command == "bench")


# Failing.


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> dict[int, pathlib.Path]:
    """Copies of one file, each with the signature of another of its groups' nodes overwritten, by the place of it."""
    whole = tmp_path_factory.mktemp("damaged") / "whole.h5"
    with h5py.File(whole, "w") as file:
        for name in ("bad/below/y", "good/x"):
            file[name] = np.arange(100)
    content = whole.read_bytes()
    places = [found.start() for found in re.finditer(b"TREE|SNOD|HEAP", content)]
    copies = {place: whole.with_name(f"{place}.h5") for place in places}
    for place, copy in copies.items():
        copy.write_bytes(content[:place] + b"XXXX" + content[place + 4 :])
    return copies


def test_info_lists_what_it_can_of_a_damaged_file(
    damaged: dict[int, pathlib.Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """A group that could not be listed ended in a traceback."""
    told = []
    for copy in damaged.values():
        assert main(["info", str(copy)]) in (1, 2)
        out, err = capsys.readouterr()
        assert err.startswith(f"h5fast: {copy}: ") and err.count("\n") == 1
        told.append(out + err)
    assert any("group '/bad' cannot be listed" in text and "\n/good/x  int64 (100,)" in text for text in told)
    assert any("group '/bad/below' cannot be listed" in text and "\n/good/x  int64 (100,)" in text for text in told)


def test_bench_of_a_damaged_file_is_no_traceback(
    damaged: dict[int, pathlib.Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for copy in damaged.values():
        assert main(["bench", str(copy), "good/x", "--batch", "3", "--rounds", "3"]) in (0, 1, 2)
        assert "Traceback" not in capsys.readouterr().err


def failing(kind: str, tmp_path: pathlib.Path) -> pathlib.Path:
    target = tmp_path / "target.h5"
    if kind == "not HDF5":
        target.write_text("text")
    elif kind == "empty":
        target.touch()
    elif kind == "directory":
        target.mkdir()
    elif kind == "truncated":
        with h5py.File(target, "w") as file:
            file["x"] = np.zeros(10_000)
        os.truncate(target, 20_000)
    return target


@pytest.mark.parametrize("command", ["info", "bench"])
@pytest.mark.parametrize("kind", ["missing", "not HDF5", "empty", "directory", "truncated"])
def test_files_that_do_not_open(
    kind: str, command: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = failing(kind, tmp_path)
    assert main([command, str(target)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"h5fast: {target}: ") and err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [["info", "{}", "nothing"], ["bench", "{}::nothing"], ["bench", "{}::scalar"], ["bench", "{}::empty"],
                  ["bench", "{}::type"], ["info", "{}", "nowhere"], ["info", "{}", "image/x"], ["info", "{}", ""]]
)  # fmt: skip
def test_datasets_that_are_not_there(
    path: pathlib.Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([argument.format(path) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"h5fast: {path}: ") and err.count("\n") == 1


def test_nothing_to_time(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    with h5py.File(tmp_path / "none.h5", "w") as file:
        file.create_group("group")
    assert main(["bench", str(tmp_path / "none.h5")]) == 2
    assert "no dataset has rows of fixed size" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [[], ["fly"], ["info"], ["bench", "x", "--batch", "0"], ["bench", "x", "--seconds", "nan"]]
)
def test_arguments_that_do_not_parse(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_status:
        main(arguments)
    assert exit_status.value.code == 2
    assert "usage: h5fast" in capsys.readouterr().err


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--help"], ["info", "--help"], ["bench", "--help"], ["--version"]):
        with pytest.raises(SystemExit) as exit_status:
            main(arguments)
        assert exit_status.value.code == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("h5fast ")


# As a process.


def start(*arguments: str) -> subprocess.Popen[bytes]:
    """The command in a process of its own, which writes a line to its standard error before it begins."""
    code = "import sys; from h5fast.cli import main; print('begin', file=sys.stderr, flush=True); sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stderr.readline() == b"begin\n"
    return process


def test_a_broken_pipe_is_no_error(path: pathlib.Path) -> None:
    with start("info", "--json", str(path)) as process:
        process.stdout.close()
        err = process.stderr.read()
        assert process.wait(60) == 141 and err == b""


def test_ctrl_c_is_no_traceback(path: pathlib.Path) -> None:
    with start("bench", f"{path}::image", "--rounds", "100000000", "--seconds", "1000") as process:
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) == (130, b"", b"")
