"""``loader()`` makes the ``DataLoader`` that suits, for files and for datasets, alone and in a distributed training."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import hdf5_files as files
import numpy as np
import pytest
from loader_files import ROWS, Shards, shards  # noqa: F401  # a fixture, used by name

torch = pytest.importorskip("torch")

from torch.utils.data import DataLoader, TensorDataset  # noqa: E402
from torch_files import check  # noqa: E402

import h5fast  # noqa: E402
from h5fast.torch import BlockSampler, H5Dataset, H5IterableDataset, loader  # noqa: E402

FIELDS = ("image", "label")


@pytest.mark.parametrize("workers", [0, 2])
def test_of_files_it_gives_the_loaders_batches(shards: Shards, workers: int) -> None:  # noqa: F811
    batches = loader(shards.both, FIELDS, 64, seed=3, num_workers=workers, drop_last=True)
    assert isinstance(batches, DataLoader) and isinstance(batches.dataset, H5IterableDataset)
    source = h5fast.Loader(shards.both, FIELDS, 64, seed=3, drop_last=True)
    for epoch in range(2):
        assert [check(batch, shards).tolist() for batch in batches] == [rows.tolist() for rows in source.epoch_rows(epoch)]
    batches.set_epoch(9)
    assert check(next(iter(batches)), shards).tolist() == next(source.epoch_rows(9)).tolist()
    assert len(batches) == len(source) == 29


@pytest.mark.parametrize("workers", [0, 2])
def test_of_a_dataset_it_collates_the_rows_in_the_order_asked_for(shards: Shards, workers: int) -> None:  # noqa: F811
    dataset = H5Dataset(shards.both, FIELDS)
    batches = loader(dataset, batch_size=100, shuffle="block", seed=2, num_workers=workers)
    order = BlockSampler(dataset, seed=2)
    for _ in range(2):
        assert np.concatenate([check(batch, shards) for batch in batches]).tolist() == list(order)
    batches.set_epoch(0)
    order.set_epoch(0)
    assert np.concatenate([check(batch, shards) for batch in batches]).tolist() == list(order)


def test_a_dataset_of_ones_own_is_shuffled_as_well() -> None:
    dataset = TensorDataset(torch.arange(100), torch.arange(100) * 2)
    rows = torch.cat([one for one, two in loader(dataset, batch_size=7) if (two == one * 2).all()])
    assert sorted(rows.tolist()) == list(range(100)) != rows.tolist()


def test_the_state_is_the_loaders(shards: Shards) -> None:  # noqa: F811
    batches = loader(shards.both, FIELDS, 64)
    first = [check(batch, shards).tolist() for batch in itertools.islice(batches, 5)]
    state = batches.state_dict()
    resumed = loader(shards.both, FIELDS, 64)
    resumed.load_state_dict(state)
    rest = [check(batch, shards).tolist() for batch in resumed]
    assert first + rest == [rows.tolist() for rows in h5fast.Loader(shards.both, FIELDS, 64).epoch_rows(0)]
    with pytest.raises(RuntimeError, match="StatefulDataLoader"):
        loader(shards.both, FIELDS, 64, num_workers=1).state_dict()


def test_it_tells_what_it_cost(shards: Shards) -> None:  # noqa: F811
    batches = loader(shards.first, FIELDS, 64, memory="10 MB")
    for _ in range(2):
        assert sum(len(check(batch, shards)) for batch in batches) == ROWS
    assert batches.dataset.loader.stats()["decodes"] == 0 and "48 chunks" in str(batches.dataset.loader.plan())


def test_mistakes_are_named(shards: Shards) -> None:  # noqa: F811
    dataset = H5Dataset(shards.first, FIELDS)
    with pytest.raises(TypeError, match="fields of its own"):
        loader(dataset, FIELDS)
    with pytest.raises(TypeError, match="takes no 'weights'"):
        loader(dataset, weights=[1])
    with pytest.raises(TypeError, match="order of its own"):
        loader(H5IterableDataset(shards.first, FIELDS))
    with pytest.raises(KeyError, match="no_such"):
        loader(shards.first, "no_such")


def test_torch_is_missed_by_name() -> None:
    code = "import sys; sys.modules['torch'] = None\ntry:\n    import h5fast.torch\nexcept ImportError as error:\n    print(error)"
    assert "pip install 'h5fast[torch]'" in files.run_python(code).stdout


DISTRIBUTED = """
import json, os, sys
import torch, torch.distributed as dist
from torch.utils.data import DataLoader
from h5fast.torch import DistributedBlockSampler, H5Dataset, H5IterableDataset, loader

rank, world, port, workers, path = *map(int, sys.argv[1:5]), sys.argv[5]
os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), LOCAL_WORLD_SIZE=str(world))
dist.init_process_group("gloo", rank=rank, world_size=world)
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(6 * 5 * 3, 1))
optimiser = torch.optim.SGD(model.parameters(), lr=1e-4)
dataset = H5Dataset(path, ("image", "label"))
makers = {
    "iterable": lambda: DataLoader(H5IterableDataset(path, ("image", "label"), 50, drop_last=True), batch_size=None,
                                   num_workers=workers),
    "loader": lambda: loader(path, ("image", "label"), 50, shuffle="block", num_workers=workers),
    "of a dataset": lambda: loader(dataset, batch_size=50, num_workers=workers),
    "sampler": lambda: DataLoader(dataset, 50, sampler=DistributedBlockSampler(dataset), num_workers=workers),
}
found = {}
for name, make in makers.items():
    batches, rows, counts = make(), [], []
    for epoch in range(2):
        for images, labels in batches:   # every process steps as often: the gradients are summed over both
            optimiser.zero_grad()
            model(images.flatten(1).float()).mean().backward()
            optimiser.step()
            rows.append((epoch, labels.tolist()))
            counts.append(len(labels))
    found[name] = {"rows": rows, "counts": counts}
weights = [float(value) for parameter in model.parameters() for value in parameter.detach().flatten()[:5]]
print(json.dumps({"found": found, "weights": weights}))
dist.destroy_process_group()
"""


@pytest.mark.parametrize("workers", [0, 2])
def test_two_processes_over_gloo_train_on_disjoint_shares(shards: Shards, workers: int, tmp_path: Path) -> None:  # noqa: F811
    import json
    import socket
    from concurrent.futures import ThreadPoolExecutor

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with ThreadPoolExecutor(2) as both:
        started = [both.submit(files.run_python, DISTRIBUTED, rank, 2, port, workers, shards.first) for rank in range(2)]
        ranks: list[Any] = [json.loads(one.result().stdout.splitlines()[-1]) for one in started]
    assert ranks[0]["weights"] == ranks[1]["weights"], "all steps were taken together"
    for name in ranks[0]["found"]:
        shares = [rank["found"][name] for rank in ranks]
        assert shares[0]["counts"] == shares[1]["counts"], f"{name}: as many batches, as long, on both"
        for epoch in range(2):
            rows = [[row for number, batch in share["rows"] if number == epoch for row in batch] for share in shares]
            if name == "iterable":  # drop_last: what does not fill a batch on each is left out
                assert len(set(rows[0] + rows[1])) == len(rows[0] + rows[1]) == ROWS // 100 * 100
            else:  # of an odd number of rows one comes twice
                assert set(rows[0] + rows[1]) == set(range(ROWS)) and len(rows[0] + rows[1]) == ROWS + 1
        assert shares[0]["rows"][0][1] != shares[0]["rows"][len(shares[0]["rows"]) // 2][1], f"{name}: another order each epoch"
