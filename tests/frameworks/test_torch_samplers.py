"""The samplers: each row once, chunk by chunk, seeded, resumed, and shared out among processes without gaps."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from loader_files import Shards, shards  # noqa: F401  # a fixture, used by name

torch = pytest.importorskip("torch")

from torch.utils.data import DataLoader  # noqa: E402
from torch_files import check  # noqa: E402

import h5fast  # noqa: E402
from h5fast.torch import BlockSampler, DistributedBlockSampler, H5Dataset, loader  # noqa: E402


@pytest.fixture(scope="module")
def chunked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,000 rows in chunks of 20."""
    path = tmp_path_factory.mktemp("samplers") / "rows.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("row", data=np.arange(1000), chunks=(20,), compression="gzip")
    return path


@pytest.mark.parametrize("shuffle", ["block", "exact", "batches", False])
def test_each_row_once_and_every_epoch_another_order(chunked: Path, shuffle: Any) -> None:
    sampler = BlockSampler(H5Dataset(chunked, "row"), shuffle=shuffle, memory=2000)
    epochs = [list(sampler) for _ in range(3)]
    assert all(sorted(epoch) == list(range(1000)) for epoch in epochs) and len(sampler) == 1000
    if shuffle:
        assert epochs[0] != epochs[1] != epochs[2]
    again = BlockSampler(H5Dataset(chunked, "row"), shuffle=shuffle, memory=2000)
    again.set_epoch(1)
    assert list(again) == epochs[1]
    assert list(BlockSampler(H5Dataset(chunked, "row"), shuffle=shuffle, memory=2000, seed=1))[:50] != epochs[0][:50] or not shuffle


def test_rows_of_a_chunk_come_close_together(chunked: Path) -> None:
    """Memory for ten chunks: each chunk's rows come within twice the rows of ten chunks; not so in a uniform order."""
    def reach(order: list[int]) -> int:
        places = np.argsort(order).reshape(50, 20)
        return int((places.max(axis=1) - places.min(axis=1)).max())

    sampler = BlockSampler(H5Dataset(chunked, "row"), memory=7000)
    order = list(sampler)
    assert 20 < reach(order) <= 500 < reach(list(BlockSampler(H5Dataset(chunked, "row"), shuffle="exact")))
    assert len({row // 20 for row in order[:20]}) > 4  # and yet they are mixed


@pytest.mark.parametrize("given", ["dataset", "matrix", "part", "sized"])
def test_it_serves_any_dataset_of_ones_own(chunked: Path, given: str) -> None:
    with h5fast.File(chunked) as file:
        source: Any = {"dataset": lambda: file["row"], "matrix": lambda: h5fast.HDF5Matrix(chunked, "row", 100, 300),
                       "part": lambda: H5Dataset(chunked, "row", rows=[900, 3, 3, 70, 8, 41]),
                       "sized": lambda: [0] * 77}[given]()
        order = list(BlockSampler(source))
    assert sorted(order) == list(range(len(source)))


def test_rows_out_of_order_keep_their_numbers(chunked: Path) -> None:
    rows = np.random.default_rng(0).permutation(1000)[:600]
    dataset = H5Dataset(chunked, "row", rows=rows)
    order = np.array(list(BlockSampler(dataset, memory=3000)))
    assert sorted(order) == list(range(600))
    chunks = rows[order] // 20
    assert len(set(chunks[:60])) < 25, "numbers are those of the rows that are close together in the file"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_loader_reads_whole_batches_in_that_order(shards: Shards, workers: int) -> None:  # noqa: F811
    dataset = H5Dataset(shards.both, ("image", "label"))
    sampler = BlockSampler(dataset, memory="200 kB")
    batches = DataLoader(dataset, batch_size=64, sampler=sampler, num_workers=workers)
    for epoch in range(2):
        again = BlockSampler(dataset, memory="200 kB")
        again.set_epoch(epoch)
        assert np.concatenate([check(batch, shards) for batch in batches]).tolist() == list(again)


@pytest.mark.parametrize("stop", [0, 1, 499, 500, 999, 1000])
def test_a_state_resumes_behind_the_last_row(chunked: Path, stop: int) -> None:
    dataset = H5Dataset(chunked, "row")
    whole = BlockSampler(dataset)
    first, second = list(whole), list(whole)
    sampler = BlockSampler(dataset)
    taken = list(itertools.islice(sampler, stop))
    resumed = BlockSampler(dataset)
    resumed.load_state_dict(json.loads(json.dumps(sampler.state_dict())))
    rest = list(resumed)
    assert taken + rest == first if stop < 1000 else rest == second
    if stop < 1000:
        assert list(resumed) == second


def test_states_of_others_are_refused(chunked: Path) -> None:
    dataset = H5Dataset(chunked, "row")
    with pytest.raises(ValueError, match="its seed is '0', here it is '1'"):
        BlockSampler(dataset, seed=1).load_state_dict(BlockSampler(dataset).state_dict())
    with pytest.raises(ValueError, match="another sampler"):
        BlockSampler(dataset).load_state_dict(DistributedBlockSampler(dataset, 2, 1).state_dict())


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", [1, 7, 20])
def test_stateful_data_loader_resumes_a_sampler(shards: Shards, workers: int, stop: int) -> None:  # noqa: F811
    stateful = pytest.importorskip("torchdata.stateful_dataloader")

    def make() -> Any:
        dataset = H5Dataset(shards.first, ("image", "label"))
        return stateful.StatefulDataLoader(dataset, batch_size=64, sampler=BlockSampler(dataset), num_workers=workers)

    loader = make()
    first, second = ([check(batch, shards).tolist() for batch in loader] for _ in range(2))
    loader = make()
    taken = [check(batch, shards).tolist() for batch in itertools.islice(iter(loader), stop)]
    resumed = make()
    resumed.load_state_dict(loader.state_dict())
    assert taken + [check(batch, shards).tolist() for batch in resumed] == first
    assert [check(batch, shards).tolist() for batch in resumed] == second


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_processes_share_an_epoch(chunked: Path, world: int, drop_last: bool) -> None:
    dataset = H5Dataset(chunked, "row")
    samplers = [DistributedBlockSampler(dataset, world, rank, memory=2000, drop_last=drop_last) for rank in range(world)]
    for _ in range(2):
        shares = [list(sampler) for sampler in samplers]
        assert {len(share) for share in shares} == {1000 // world if drop_last else -(-1000 // world)} == {len(samplers[0])}
        rows = [row for share in shares for row in share]
        if drop_last:
            assert len(set(rows)) == len(rows) == 1000 // world * world
        else:
            assert set(rows) == set(range(1000)) and len(rows) - 1000 < world


@pytest.mark.parametrize("shuffle", ["block", "exact", "batches", False])
def test_an_order_of_a_list_of_rows_is_that_of_the_list(chunked: Path, shuffle: Any) -> None:
    """Unshuffled, rows that were listed in another order than the file's came in the file's: predictions went to others."""
    rows = [5, 3, 1, 900, 7, 3]
    dataset = H5Dataset(chunked, "row", rows=rows)
    order = list(BlockSampler(dataset, shuffle=shuffle))
    assert sorted(order) == [0, 1, 2, 3, 4, 5]
    if not shuffle:
        assert order == [0, 1, 2, 3, 4, 5]
        assert [batch.tolist() for batch in loader(dataset, batch_size=4, shuffle=False)] == [rows[:4], rows[4:]]


def test_rows_may_be_larger_than_what_is_mixed(tmp_path: Path) -> None:
    """Volumes of some MB each were refused: the memory was too little for batches, which a sampler does not read."""
    with h5py.File(tmp_path / "volumes.h5", "w") as file:
        file.create_dataset("chunks", (7, 2, 1 << 20), "f4", chunks=(2, 2, 1 << 20), compression="lzf")
        file.create_dataset("whole", (7, 3 << 20), "f4")
    for name in ("chunks", "whole"):
        dataset = H5Dataset(tmp_path / "volumes.h5", name)
        order = list(BlockSampler(dataset))
        assert sorted(order) == list(range(7))
        assert sorted(BlockSampler(dataset, shuffle="exact", memory=1)) == list(range(7))
        if name == "chunks":
            assert {tuple(sorted(order[at : at + 2])) for at in range(7)} >= {(0, 1), (2, 3), (4, 5)}, "a chunk at a time"
        assert [len(batch) for batch in loader(dataset, batch_size=3)] == [3, 3, 1]


def test_a_group_of_one_process_is_a_group(chunked: Path, tmp_path: Path) -> None:
    """It was said that there was none, and a program that runs with one process for a try did not run."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        assert sorted(DistributedBlockSampler(H5Dataset(chunked, "row"))) == list(range(1000))
        assert len(DistributedBlockSampler(H5Dataset(chunked, "row"), num_replicas=4)) == 250
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("given", [{}, {"num_replicas": 4}, {"rank": 0}], ids=str)
def test_which_process_this_is_must_be_known(chunked: Path, given: dict[str, int]) -> None:
    """With num_replicas= alone every process took itself for the first, and read the same quarter."""
    with pytest.raises(RuntimeError, match="init_process_group"):
        DistributedBlockSampler(H5Dataset(chunked, "row"), **given)


def test_mistakes_are_named(chunked: Path) -> None:
    dataset = H5Dataset(chunked, "row")
    with pytest.raises(RuntimeError, match="init_process_group"):
        DistributedBlockSampler(dataset)
    with pytest.raises(ValueError, match="rank=2: with num_replicas=2 it must be from 0 to 1"):
        DistributedBlockSampler(dataset, 2, 2)
    with pytest.raises(ValueError, match="shuffle must be"):
        BlockSampler(dataset, shuffle="blocks")
    with pytest.raises(ValueError, match="3 processes are more than the 2 rows"):
        DistributedBlockSampler([1, 2], 3, 0, drop_last=True)


def test_a_block_order_decodes_less(tmp_path: Path) -> None:
    """Row by row through a dataset of one's own: the chunks that the file keeps serve a block order, not a uniform one."""
    path = tmp_path / "images.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("d", data=np.zeros((2048, 4096), "u1"), chunks=(32, 4096), compression="gzip")
    with h5fast.File(path, rdcc_nbytes=16 * 32 * 4096) as file:
        loader = h5fast.Loader(file, "d", 1)
        del loader
        kept = file._watched.file.pool
        for row in itertools.islice(BlockSampler(file["d"], memory=8 * 32 * 4096 + 5000), 512):
            file["d"][row]
        assert 0 < kept.bytes <= 16 * 32 * 4096

