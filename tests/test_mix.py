"""Batches of several loaders: each loader's own order, drawn by weight, resumed exactly."""

from __future__ import annotations

from typing import Any

import h5py
import hdf5_files as files
import numpy as np
import pytest

import h5fast
from h5fast import Loader, mix

SIZES = (300, 130, 47)


def _loaders(batch: int = 10, **options: Any) -> list[Loader]:
    return [Loader({"x": np.arange(1000 * number, 1000 * number + size)}, "x", batch, **options) for number, size in enumerate(SIZES)]


def _batches(mixed: Any, most: int = 10**9) -> list[list[int]]:
    return [batch.tolist() for batch, _ in zip(mixed, range(most))]


@pytest.mark.parametrize("weights", [None, [3, 2, 1], (0.1, 5, 0.3)])
def test_each_loader_keeps_its_order(weights: Any) -> None:
    mixed = mix(_loaders(), weights, stop="all")
    for epoch in range(3):
        alone = _loaders()
        for loader in alone:
            loader.set_epoch(epoch)
        taken = _batches(mixed)
        assert len(taken) == len(mixed) == 30 + 13 + 5
        for number, loader in enumerate(alone):
            assert [batch for batch in taken if batch[0] // 1000 == number] == [batch.tolist() for batch in loader]


def test_it_is_a_function_of_seed_and_epoch() -> None:
    first, second = mix(_loaders(), seed="a", stop="all"), mix(_loaders(prefetch=1, threads=1), seed="a", stop="all")
    epochs = [_batches(first) for _ in range(3)]
    second.set_epoch(2)
    assert _batches(second) == epochs[2] and epochs[0] != epochs[1] and second.epoch == 3
    assert _batches(mix(_loaders(), seed="b", stop="all")) != epochs[0]


def test_stop_first() -> None:
    mixed = mix(_loaders(), [1, 1, 1])
    for _ in range(4):
        expected = len(mixed)
        taken = _batches(mixed)
        assert len(taken) == expected
        counts = np.bincount([batch[0] // 1000 for batch in taken], minlength=3)
        last = taken[-1][0] // 1000
        assert counts[last] == (30, 13, 5)[last] and (np.delete(counts, last) < np.delete([30, 13, 5], last)).all()
    far = mix(_loaders(1), [1000, 1, 1])
    assert len(_batches(far)) == len(mix(_loaders(1), [1000, 1, 1]))


def test_len_beyond_a_block() -> None:
    loaders = [Loader({"x": np.arange(2500)}, "x", 1), Loader({"x": np.arange(2400)}, "x", 1)]
    mixed = mix(loaders)
    assert len(mixed) == len(_batches(mix(loaders))) > 4000


def test_weights_are_shares() -> None:
    mixed = mix(_loaders(), [6, 3, 1], stop="never")
    drawn = [batch[0] // 1000 for batch in _batches(mixed, 5000)]
    np.testing.assert_allclose(np.bincount(drawn) / 5000, [0.6, 0.3, 0.1], atol=0.03)
    with pytest.raises(TypeError, match="has no length"):
        len(mixed)


@pytest.mark.parametrize("stop", ["first", "all", "never"])
def test_resume_at_every_batch(stop: str) -> None:
    options = {"weights": [1, 2, 3], "seed": 4, "stop": stop}
    mixed = mix(_loaders(), **options)
    whole = _batches(mixed, 60)
    following = None if stop == "never" else _batches(mixed)
    for done in range(len(whole) + 1):
        first = mix(_loaders(), **options)
        batches = iter(first)
        for _ in range(done):
            next(batches)
        state = first.state_dict()
        second = mix(_loaders(prefetch=1), **options)
        second.load_state_dict(state)
        assert second.state_dict() == state
        if done < len(whole):
            assert _batches(second, len(whole) - done) == whole[done:]
        if following is not None:
            assert _batches(second) == following


def test_files_dicts_and_closing(tmp_path: Any) -> None:
    for name in "ab":
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file.create_dataset("x", data=np.full((50, 3), ord(name)), chunks=(7, 3), compression="lzf")
            file["y"] = np.full(50, ord(name))
    loaders = [Loader(tmp_path / f"{name}.h5", {"x": "x", "y": "y"}, 10) for name in "ab"]
    with mix(loaders, stop="all") as mixed:
        for batch in mixed:
            assert len(np.unique(batch["x"])) == 1 and batch["x"][0, 0] == batch["y"][0]
        assert [one["rows"] for one in mixed.stats()] == [50, 50]
        running = iter(mixed)
        next(running)
    mixed.close()
    with pytest.raises(ValueError, match="closed"):
        next(iter(mixed))


@pytest.mark.parametrize("stop", ["first", "all", "never"])
def test_a_batch_of_which_nothing_decodes(tmp_path: Any, stop: str) -> None:
    """A loader that skipped a whole batch was said to have ended too early; and the rest of its epoch came after a resume."""
    for name, first in (("a", 0), ("b", 100)):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file.create_dataset("x", data=np.arange(first, first + 40), chunks=(10,), compression="gzip")
    info = files.stored_chunks(tmp_path / "a.h5", "x")[1]
    files.patch_bytes(tmp_path / "a.h5", info.byte_offset, b"\xff" * info.size)

    def mixed() -> Any:
        return mix([Loader(tmp_path / f"{name}.h5", "x", 10, shuffle=False, on_error="skip") for name in "ab"], stop=stop, seed=3)

    count = {"first": None, "all": 7, "never": 12}[stop]
    with mixed() as whole:
        found, states = [], []
        for batch in whole:
            found.append(int(batch[0]))
            states.append(whole.state_dict())
            if len(found) == count and stop == "never":
                break
    assert 10 not in found and found.count(0) >= 1
    if stop == "all":
        assert sorted(found) == [0, 20, 30, 100, 110, 120, 130]
    for done, state in enumerate(states[:-1], 1):
        with mixed() as resumed:
            resumed.load_state_dict(state)
            rest = [int(batch[0]) for _, batch in zip(range(len(found) - done), resumed)]
        assert rest == found[done:]


def test_what_cannot_be_is_said_at_once() -> None:
    x = {"x": np.arange(10), "y": np.arange(10)}
    one = Loader(x, "x", 2)
    for other, message in ((Loader(x, ("x",), 2), "bare arrays and tuples of 1"), (Loader(x, {"x": "x"}, 2), "dict of"),
                           (Loader(x, "x", 2), None), (Loader(x, ("x", "y"), 2, transform=lambda batch: batch[0]), None)):
        if message is None:
            mix([one, other])
        else:
            with pytest.raises(ValueError, match=message):
                mix([one, other])
    with pytest.raises(ValueError, match="different forms"):
        mix([Loader(x, {"a": "x"}, 2), Loader(x, {"b": "x"}, 2)])
    with pytest.raises(ValueError, match="the same loader"):
        mix([one, one])
    with pytest.raises(ValueError, match="no loaders"):
        mix([])
    with pytest.raises(TypeError, match="mix takes loaders"):
        mix([x])  # type: ignore[list-item]
    for weights in ([1, 0], [1, -1], [1, float("nan")], [1], [[1, 2]]):
        with pytest.raises(ValueError, match="weights"):
            mix([one, Loader(x, "y", 2)], weights)
    with pytest.raises(ValueError, match="stop must be"):
        mix([one], stop="last")
    state = mix([one]).state_dict()
    for other in (mix([one], seed=1), mix([one], stop="all"), mix([one, Loader(x, "y", 2)])):
        with pytest.raises(ValueError, match="belongs to another mix"):
            other.load_state_dict(state)
    assert "mix of" in repr(mix([one])) and h5fast.mix is mix
