"""Where another process finds an object: path, name, and the options that its file has to be opened with. For pickling."""

from __future__ import annotations

import os
from typing import Any, NoReturn

from h5fast.caching import ChunkCache
from h5fast.opened import forget_limit, limit_of, registered
from h5fast.untrusted.opening import UntrustedFile

__all__ = ["address_of", "forget_options", "note_locking"]

# Drivers whose file is one file under the name that ``File.filename`` gives, so that another process can open it by name.
_REOPENABLE_DRIVERS = frozenset({"sec2", "stdio"})

# The option `locking` that files were opened with, where libhdf5 tells another one (before 1.14.4 it told the default): by
# its identifier of the file, which it never gives out twice. A file that nobody closed by name leaves its entry behind.
_locking_given: dict[int, Any] = {}


def note_locking(file: Any, locking: Any) -> None:
    """Keeps the option `locking` that a file was opened with, where libhdf5 would tell another one."""
    if locking is not None and locking != _locking(file):
        _locking_given[file.id.id] = locking


def forget_options(file: Any) -> None:
    """The file is about to be closed."""
    _locking_given.pop(file.id.id, None)
    forget_limit(file.id)


def address_of(obj: Any) -> tuple[str, str, dict[str, Any]]:
    """Absolute path, name and ``File`` options under which another process finds `obj`; ``TypeError`` where none can."""
    if not obj._id.id:
        _refuse_pickle(obj, "it is closed")
    file = obj.file
    driver, name = file.driver, obj.name
    behind = registered(file)
    if isinstance(behind, UntrustedFile):
        path = os.path.abspath(behind.path)
        if name is None:
            _refuse_pickle(obj, "it has no name in the file")
        if not behind.is_at(path):
            _refuse_pickle(obj, f"the open file is not the one at {path!r}; it was moved, replaced or deleted")
        return path, name, {"untrusted": True}
    if driver not in _REOPENABLE_DRIVERS:
        _refuse_pickle(obj, f"the file is open through the driver {driver!r}, so no path leads to its contents")
    if file.mode != "r":
        _refuse_pickle(obj, "the file is open for writing; open it with mode 'r'")
    if name is None:
        _refuse_pickle(obj, "it has no name in the file")
    path = os.path.abspath(file.filename)
    if driver == "sec2" and not _is_at(path, file.id.get_vfd_handle()):
        _refuse_pickle(obj, f"the open file is not the one at {path!r}; it was moved, replaced or deleted")
    return path, name, _options(file, driver)


def _is_at(path: str, descriptor: int) -> bool:
    """Whether `path` leads to the file that is open as `descriptor`."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except OSError:
        return False


def _options(file: Any, driver: str) -> dict[str, Any]:
    """The options of ``File`` that matter to a reader, as `file` was opened with them."""
    access = file.id.get_access_plist()
    _, slots, size, preemption = access.get_cache()
    pages, metadata, raw = access.get_page_buffer_size()
    options: dict[str, Any] = {"rdcc_nslots": slots, "rdcc_nbytes": size, "rdcc_w0": preemption}
    kept = limit_of(file.id)
    if kept is not None:
        options = {"chunk_cache": ChunkCache(**options, kept_bytes=kept, reason="as of the file that this is a copy of")}
    # All openings of a file in one process must agree on the lock.
    options["locking"] = _locking(file)
    if driver != "sec2":
        options["driver"] = driver
    if file.swmr_mode:
        options["swmr"] = True
    if pages:
        options.update(page_buf_size=pages, min_meta_keep=metadata, min_raw_keep=raw)
    return options


def _locking(file: Any) -> Any:
    """The option `locking` that a file is open with."""
    locks, ignores = file.id.get_access_plist().get_file_locking()
    told = False if not locks else "best-effort" if ignores else True
    return _locking_given.get(file.id.id, told)


def _refuse_pickle(obj: Any, reason: str) -> NoReturn:
    raise TypeError(f"cannot pickle this h5fast {type(obj).__name__}: {reason}")
