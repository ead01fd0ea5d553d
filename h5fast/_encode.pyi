from collections.abc import Callable
from typing import Any, final

import numpy as np

from h5fast._gather import Source
from h5fast._index import ChunkIndex
from h5fast._storage import Storage

EFFORT_OF_LEVEL: int
EFFORT_ZLIB: int

@final
class Encoder:
    most: int
    count: int
    def __init__(self, storage: Storage, most: int) -> None: ...
    def start(self, rows: np.ndarray[Any, Any], count: int, threads: int, effort: int = 0) -> None: ...
    def finish(self) -> None: ...
    def put(self, dataset_id: Any, first: int) -> None: ...
    def chunk(self, number: int) -> tuple[memoryview, int]: ...

def encoder_memory(storage: Storage, most: int) -> int: ...
def move_chunks(dataset_id: Any, first: int, chunks: tuple[Storage, ChunkIndex, Source], rows: np.ndarray[Any, Any],
                origin: Callable[[], str]) -> None: ...
