from collections.abc import Callable
from typing import Any, final

import numpy as np

from h5fast._cast import Cast
from h5fast._index import ChunkIndex
from h5fast._selection import Selection
from h5fast._storage import Storage

deflate_library: str

def use_deflate(library: str) -> str: ...
def pool_size() -> int: ...
def scratch_bytes() -> int: ...

@final
class Source:
    def __init__(self, origin: int | bytes, *, map: bool = True) -> None: ...
    @property
    def size(self) -> int: ...
    @property
    def descriptor(self) -> int: ...
    @property
    def identity(self) -> tuple[int, int]: ...
    @property
    def mapped(self) -> bool: ...
    def changed(self) -> str: ...

@final
class KeptPool:
    def __init__(self, limit: int) -> None: ...
    @property
    def bytes(self) -> int: ...

@final
class Kept:
    def __init__(self, pool: KeptPool, chunk_bytes: int) -> None: ...

def read(
    chunks: tuple[Storage, ChunkIndex, Source],
    selection: Selection,
    out: np.ndarray[Any, Any],
    threads: int,
    origin: Callable[[], str],
    *,
    cast: Cast | None = None,
    kept: Kept | None = None,
    field_offset: int = 0,
    field_bytes: int = 0,
    costs: Callable[[int, int], None] | None = None,
) -> bool: ...
