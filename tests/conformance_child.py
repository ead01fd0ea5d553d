"""What one forked child does with one file of a corpus: everything h5py can read there, through h5fast and through h5py.

The child writes JSON lines to a pipe, one `at` before every risky step (so that the parent knows what a crash
interrupted) and one `dataset` after each dataset. It judges nothing beyond "same or not": conformance.py does.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import h5py
import numpy as np
import oracle
from canonical import sha_of

LOGICAL_LIMIT = 50 << 20  # bytes; larger ones are bombs or sparse, and the truth file skips them too
CHUNK_QUERY = "h5py chunk query"  # libhdf5's chunk index, which h5py's own reads do not need but h5fast does
ADDRESS_SPACE_LIMIT = 12 << 30  # bytes; a hostile size must fail to allocate, not swap the machine


def examine(path: str, skip: set[str], pipe: int, *, with_h5fast: bool) -> None:
    """Reads the file whole and in part; leaves out the datasets in `skip`. Never raises for what the file contains."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_LIMIT, ADDRESS_SPACE_LIMIT))
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - libhdf5 and warnings talk; the pipe is the report
    os.dup2(sys.stderr.fileno(), 2)
    os.chdir(os.path.dirname(path))  # external files and sources of virtual datasets are named relative to the file

    def tell(**message: Any) -> None:
        os.write(pipe, json.dumps(message, default=str).encode() + b"\n")

    def at(step: str, name: str = "") -> None:
        tell(at=[name, step])

    plain = _open(h5py.File, path, "h5py open", at)
    fast: Any = None
    if with_h5fast:
        import h5fast

        fast = _open(h5fast.File, path, "h5fast open", at)
        tell(open=[_error(plain), _error(fast)])
    if not isinstance(plain, h5py.File) or isinstance(fast, Exception):
        return
    for name, dataset in _datasets(plain, at):
        if name not in skip:
            _examine_dataset(name, dataset, fast, path, tell, lambda step, name=name: at(step, name))
    at("close")
    if fast is not None:
        fast.close()
    plain.close()
    at("done")


def _open(opener: Callable[..., Any], path: str, step: str, at: Callable[[str], None]) -> Any:
    at(step)
    try:
        return opener(path, "r")
    except Exception as error:  # noqa: BLE001 - refusing the file is an answer
        return error


def _error(opened: Any) -> str:
    return oracle.describe(opened) if isinstance(opened, Exception) else ""


def _datasets(file: h5py.File, at: Callable[..., None]) -> Iterator[tuple[str, Any]]:
    """(name, dataset or the error that h5py opened it with) along hard links, each group once: cycles are legal."""
    seen: set[int] = set()
    queue: list[tuple[str, Any]] = [("", file)]
    while queue:
        prefix, group = queue.pop(0)
        at(f"h5py list of {prefix or '/'}")
        try:
            address = h5py.h5o.get_info(group.id).addr
            names = [] if address in seen else list(group)
        except Exception:  # noqa: BLE001 - an unreadable group has no datasets to compare
            continue
        seen.add(address)
        for name in names:
            full = f"{prefix}/{name}"
            at("h5py open dataset", full)
            try:
                if group.get(name, getclass=True, getlink=True) is not h5py.HardLink:
                    continue
                item = group[name]
            except Exception as error:  # noqa: BLE001
                yield full, error
                continue
            if isinstance(item, h5py.Group):
                queue.append((full, item))
            elif isinstance(item, h5py.Dataset):
                yield full, item


def _examine_dataset(name: str, plain: Any, fast_file: Any, path: str, tell: Any, at: Any) -> None:
    if isinstance(plain, Exception):
        if fast_file is not None:
            tell(dataset=name, status=_opened_refused(name, fast_file, at))
        return
    at("h5py describe")
    try:
        too_big = plain.size is not None and plain.size * plain.id.get_type().get_size() > LOGICAL_LIMIT
        facts = _facts(plain)
    except Exception as error:  # noqa: BLE001
        too_big, facts = False, {"describe": oracle.describe(error)}
    if too_big:
        tell(dataset=name, status="skipped: over 50 MB", **facts)
        return
    seed = zlib.crc32(f"{os.path.basename(path)}{name}".encode())
    if fast_file is None:
        _read_plain(plain, seed, at)
        return
    at("h5fast open dataset")
    try:
        fast = fast_file[name]
    except Exception as error:  # noqa: BLE001
        tell(dataset=name, status="compared", differences=[f"h5fast did not open it: {oracle.describe(error)}"], **facts)
        return
    result = oracle.compare_dataset(fast, plain, seed, at=at)
    sha = sha_of(result.whole)
    tell(dataset=name, status="compared" if not result.error else f"h5py raised {result.error}", sha=sha,
         differences=result.differences, refusals=result.refusals[:2], extra=result.extra[:1], reader=result.reader, **facts)


def _opened_refused(name: str, fast_file: Any, at: Any) -> str:
    at("h5fast open dataset")
    try:
        fast = fast_file[name]
        fast[()]
    except Exception:  # noqa: BLE001
        return "refused by both"
    return "difference: read, where h5py cannot open it"


def _read_plain(plain: h5py.Dataset, seed: int, at: Any) -> None:
    """The same reads by h5py alone: what of a crash is libhdf5's own."""
    at("h5py whole")
    try:
        whole = plain[()]
    except Exception:  # noqa: BLE001
        whole = None
    for label, key in oracle.selections(plain.shape or (), seed, full=False):
        at(f"h5py {label}")
        try:
            oracle.expected_answer(plain, whole, label, key)
        except Exception:  # noqa: BLE001
            continue
    at(CHUNK_QUERY)
    with contextlib.suppress(Exception):
        plain.id.chunk_iter(lambda _: None)


def _facts(dataset: h5py.Dataset) -> dict[str, str]:
    plist = dataset.id.get_create_plist()
    layouts = {h5py.h5d.COMPACT: "compact", h5py.h5d.CONTIGUOUS: "contiguous", h5py.h5d.CHUNKED: "chunked",
               h5py.h5d.VIRTUAL: "virtual"}
    layout = layouts.get(plist.get_layout(), "?")
    if layout == "contiguous" and plist.get_external_count():
        layout = "external"
    filters = "+".join(str(plist.get_filter(i)[0]) for i in range(plist.get_nfilters())) if layout == "chunked" else ""
    classes = {h5py.h5t.INTEGER: "integer", h5py.h5t.FLOAT: "float", h5py.h5t.STRING: "string", h5py.h5t.BITFIELD: "bitfield",
               h5py.h5t.OPAQUE: "opaque", h5py.h5t.COMPOUND: "compound", h5py.h5t.REFERENCE: "reference",
               h5py.h5t.ENUM: "enum", h5py.h5t.VLEN: "vlen", h5py.h5t.ARRAY: "array"}
    kind = dataset.id.get_type().get_class()
    return {"layout": layout, "filters": filters, "type": classes.get(kind, f"class {kind}")}
