from collections.abc import Sequence
from typing import final

from h5fast._selection import Selection

FILTER_NAMES: dict[int, str]

@final
class Storage:
    chunk_count: int
    is_chunked: bool
    def __init__(
        self,
        shape: tuple[int, ...],
        chunk: tuple[int, ...] | None,
        itemsize: int,
        filters: Sequence[tuple[int, Sequence[int]]] = (),
        raw_edges: bool = False,
        fill: bytes = b"",
    ) -> None: ...
    @property
    def filter_count(self) -> int: ...
    @property
    def chunk_bytes(self) -> int: ...
    @property
    def chunk(self) -> tuple[int, ...]: ...
    def chunks_of(self, selection: Selection, limit: int) -> list[tuple[int, ...]] | None: ...
    def in_runs(self, length: int) -> Storage: ...
    def number_of(self, coordinates: tuple[int, ...]) -> int: ...
