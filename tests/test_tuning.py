"""What ``tune()`` measures and advises, and the commands ``tune`` and ``repack``.

Prevents: advice that makes a file worse, a file that is changed without being asked to, temporary files that stay.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import h5py
import hdf5_files as files
import numpy as np
import pytest
from repack_files import snapshot, write_everything

from h5fast import TuneReport, UnsupportedError, repack, tune
from h5fast.cli import main
from h5fast.tuning import format_tuning


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images in gzip chunks of 500 rows, noise in lzf, plain rows, a volume in slices."""
    path = tmp_path_factory.mktemp("tune") / "f.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("image", data=files.content((2000, 32, 32, 3), "u1"), chunks=(500, 32, 32, 3), compression="gzip")
        file.create_dataset("noise", data=np.random.default_rng(0).integers(0, 256, (512, 2048), np.uint8), chunks=(64, 2048), compression="lzf")
        file.create_dataset("plain", data=np.random.default_rng(0).random((1000, 64)))
        file.create_dataset("volume", data=files.content((64, 96, 96), "<f4"), chunks=(1, 96, 96), compression="gzip")
        file["text"] = ["a", "b"]
        file["scalar"] = 1
        file["empty"] = np.empty((0, 3))
    return path


def check(report: TuneReport) -> None:
    assert report.measured[0].present and sum(one.present for one in report.measured) == 1
    assert report.best in report.measured
    costs = [one.cost for one in report.measured[1:]]
    assert costs == sorted(costs)
    assert all(one.stored_bytes > 0 and one.rows_per_second > 0 and one.read_bytes > 0 for one in report.measured)
    assert 0 <= report.decoded_cached <= report.decoded <= 1
    if report.measured[0].chunks is None:
        assert report.h5py_rate is report.h5py_rate_cached is None
    else:
        assert report.h5py_rate is not None and report.h5py_rate_cached is not None
        assert report.h5py_rate > 0 and report.h5py_rate_cached > 0


def test_chunks_of_many_rows_are_not_for_random_ones(path: Path) -> None:
    before = path.read_bytes()
    report = tune(path, "image", seconds=30)
    check(report)
    assert report.name == "/image" and report.measured[0].chunks == (500, 32, 32, 3)
    assert not report.best.present and report.best.chunks is not None and report.best.chunks[0] < 100
    with h5py.File(path) as file:
        assert report.measured[0].stored_bytes == pytest.approx(file["image"].id.get_storage_size(), rel=0.1)
    assert path.read_bytes() == before


def test_what_a_cache_brings_is_measured(tmp_path: Path) -> None:
    """Chunks of rows that all fit the proposed cache, and not HDF5's own, are decoded once."""
    path = tmp_path / "f.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=files.content((4096, 64, 64), "<f4"), chunks=(256, 64, 64), compression="gzip")
    report = tune(path, seconds=0.001)
    check(report)
    assert report.decoded_cached == 0 < report.decoded
    assert report.h5py_rate is not None and report.h5py_rate_cached is not None
    assert report.h5py_rate_cached > 3 * report.h5py_rate  # decoding a chunk takes a hundred times as long as copying a row
    assert "measured through h5py" in format_tuning(report)


def test_the_largest_is_tuned_unless_one_is_named(path: Path) -> None:
    assert tune(path, seconds=0.001).name == "/image"


@pytest.mark.parametrize("access", ["sequential", "crops"])
def test_other_accesses(path: Path, access: str) -> None:
    report = tune(path, "volume", access=access, seconds=30)
    check(report)
    assert report.access == access and report.cache.reason.startswith(access)


def test_small_crops_want_tiles(path: Path) -> None:
    report = tune(path, "volume", access="crops", crop=(16, 16, 16), seconds=30)
    check(report)
    assert not report.best.present
    tried = {one.chunks for one in report.measured}
    assert any(chunks is not None and 1 < chunks[1] < 96 for chunks in tried)


def test_the_present_way_stays_where_it_is_best(path: Path, tmp_path: Path) -> None:
    report = tune(path, "image", seconds=30)
    repack(path, tmp_path / "o.h5", paths=[report.name], chunks=report.best.chunks, codec=report.best.codec_option)
    again = tune(tmp_path / "o.h5", "image", seconds=30)
    assert again.measured[0].chunks == report.best.chunks
    assert again.best.cost > 0.02 * again.measured[0].cost  # nothing left to gain such as there was
    assert report.best.cost < 0.5 * report.measured[0].cost


def test_out_of_time_says_so(path: Path) -> None:
    report = tune(path, "image", seconds=1e-9)
    assert report.best.present and "in the time" in report.reason and len(report.measured) == 1


def test_nothing_is_left_behind(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    tune(path, "plain", seconds=1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "options", "error", "words"), [
    ("absent", {}, KeyError, "absent"),
    ("text", {}, UnsupportedError, "variable length"),
    ("scalar", {}, ValueError, "no rows"),
    ("empty", {}, ValueError, "no rows"),
    ("image", {"access": "diagonal"}, ValueError, "access is"),
    ("image", {"crop": (1, 1, 1, 1)}, TypeError, "crop"),
    ("image", {"access": "crops", "crop": (1, 99, 1, 1)}, ValueError, "does not lie in it"),
    ("image", {"seconds": 0}, ValueError, "seconds"),
])
def test_refused(path: Path, name: str, options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        tune(path, name, **options)


def test_command_tune(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", f"{path}::image", "--seconds", "2"]) == 0
    told = capsys.readouterr().out
    assert "present" in told and "rdcc_nbytes=" in told and "random rows" in told
    assert main(["tune", str(path), "plain", "--json", "--access", "sequential", "--seconds", "1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["name"] == "/plain" and found["measured"][0]["present"] and found["cache"]["rdcc_nslots"] > 500
    assert main(["tune", str(path), "absent"]) == 2
    assert "absent" in capsys.readouterr().err


def test_command_tune_applies(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "f.h5"
    copy.write_bytes(path.read_bytes())
    expected = snapshot(copy)
    assert main(["tune", str(copy), "image", "--seconds", "30", "--apply"]) == 0
    assert "compared bit for bit" in capsys.readouterr().out
    assert snapshot(copy) == expected and os.listdir(tmp_path) == ["f.h5"]
    with h5py.File(copy) as file:
        assert file["image"].chunks[0] < 100 and file["volume"].chunks == (1, 96, 96)


def test_command_repack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_everything(tmp_path / "f.h5")
    expected = snapshot(path)
    assert main(["repack", str(path), str(tmp_path / "o.h5"), "--codec", "gzip:1", "--chunk-rows", "5",
                 "--path", "/z/image"]) == 0
    assert "/z/image: chunks of (40, 16, 16, 3)" in capsys.readouterr().out
    assert snapshot(tmp_path / "o.h5") == expected == snapshot(path)
    assert main(["repack", str(path), str(tmp_path / "o.h5")]) == 2
    assert "overwrite" in capsys.readouterr().err
    assert main(["repack", str(path), "--path", "/z/tiles", "--chunks", "20,20", "--codec", "none"]) == 0
    assert snapshot(path) == expected
    with h5py.File(path) as file:
        assert file["z/tiles"].chunks == (20, 20) and file["z/tiles"].compression is None
    assert main(["repack", str(path), "--codec", "zip"]) == 2
    assert "codec is one of" in capsys.readouterr().err
    assert main(["repack", str(path), "--path", "text"]) == 1
    assert "'/text'" in capsys.readouterr().err
