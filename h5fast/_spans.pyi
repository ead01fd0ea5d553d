from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from h5fast._gather import Source
from h5fast._storage import Storage

SPAN: np.dtype[np.void]

def read(
    source: Source,
    pipelines: tuple[Storage, ...],
    spans: NDArray[Any],
    sizes: ArrayLike,
    counts: ArrayLike,
    threads: int,
    origin: Callable[[int], str],
) -> list[bytes]: ...
def check(source: Source, pipelines: tuple[Storage, ...], spans: NDArray[Any], threads: int) -> NDArray[np.intp]: ...
