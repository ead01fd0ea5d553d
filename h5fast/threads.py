"""How many native threads a read may use."""

from __future__ import annotations

import math
import operator
import os
import sys

__all__ = ["set_num_threads", "get_num_threads"]

# More than any machine has; a larger number is a mistake.
_MOST = 4096
# What set_num_threads was told; None asks the environment and the machine.
_chosen: int | None = None
# The answer of the environment and the machine, with the process it holds for: a forked worker asks again.
_default: tuple[int, int] | None = None


def set_num_threads(n: int | None) -> None:
    """Sets how many threads a read may use, the calling one included; None goes back to the default.

    Raises:
        ValueError: ``n`` is below 1, or too large to be meant.
        TypeError: ``n`` is no integer.
    """
    global _chosen, _default
    if n is not None:
        n = operator.index(n)
        if not 1 <= n <= _MOST:
            raise ValueError(f"the number of threads must be from 1 to {_MOST}, not {n}")
    _chosen = n
    _default = None


def get_num_threads() -> int:
    """How many threads a read may use, the calling one included.

    What :func:`set_num_threads` said; else the environment variable ``H5FAST_NUM_THREADS``; else the CPUs that this
    process may use (its affinity and cgroup quota), divided among the processes that share the machine:
    ``LOCAL_WORLD_SIZE`` (set by torchrun and others) and the number of workers of the PyTorch DataLoader that this
    process is a worker of.

    Raises:
        ValueError: one of these variables is set to something else than a whole number of at least 1.
    """
    global _default
    if _chosen is not None:
        return _chosen
    process = os.getpid()
    if _default is None or _default[0] != process:
        _default = (process, _default_threads())
    return _default[1]


def _default_threads() -> int:
    asked = os.environ.get("H5FAST_NUM_THREADS", "")
    if asked:
        if not asked.isdecimal() or not 1 <= int(asked) <= _MOST:
            raise ValueError(f"H5FAST_NUM_THREADS must be a whole number from 1 to {_MOST}, not {asked!r}")
        return int(asked)
    return max(1, _usable_cpus() // (_local_processes() * _torch_workers()))


def _usable_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        cpus = len(os.sched_getaffinity(0))
    else:
        cpus = os.cpu_count() or 1
    return max(1, min(cpus, _cgroup_cpus()))


def _cgroup_cpus() -> int:
    """The CPU quota of this process' control group, version 2 or 1, rounded up; a large number where there is none."""
    for path, parse in (("/sys/fs/cgroup/cpu.max", _parse_v2), ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", _parse_v1)):
        try:
            with open(path) as file:
                quota = parse(file.read())
        except (OSError, ValueError):
            continue
        if quota is not None:
            return max(1, math.ceil(quota))
    return sys.maxsize


def _parse_v2(text: str) -> float | None:
    quota, period = text.split()
    return None if quota == "max" else int(quota) / int(period)


def _parse_v1(text: str) -> float | None:
    with open("/sys/fs/cgroup/cpu/cpu.cfs_period_us") as file:
        period = int(file.read())
    return None if int(text) <= 0 else int(text) / period


def _local_processes() -> int:
    text = os.environ.get("LOCAL_WORLD_SIZE", "")
    if not text:
        return 1
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"LOCAL_WORLD_SIZE must be a whole number of at least 1, not {text!r}: the CPUs are divided by it; "
                         "unset it, or set H5FAST_NUM_THREADS, which goes first")
    return int(text)


def _torch_workers() -> int:
    """Workers of the DataLoader this process belongs to. Only a process that has loaded torch's data module can be one."""
    data = sys.modules.get("torch.utils.data")
    info = data.get_worker_info() if data is not None and hasattr(data, "get_worker_info") else None
    return info.num_workers if info is not None else 1
