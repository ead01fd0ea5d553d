from typing import Any

import numpy as np
from numpy.typing import NDArray

from h5fast._gather import Source

MEMBER: np.dtype[np.void]
FOLDER: int
FILE: int
LINK: int
OTHER: int
BY_HDF5: int
NOT_LOOKED_AT: int
UNKNOWN: int
NO_TIME: int
STORED_TYPES: tuple[np.dtype[Any], ...]

_Form = tuple[int, int, tuple[int, ...], tuple[tuple[int, tuple[int, ...]], ...]]

def scan(
    group_id: Any, user_block: bool = False, source: Source | None = None
) -> tuple[list[str], NDArray[np.void], list[_Form]]: ...
def look_up(
    group_id: Any, names: list[str], user_block: bool = False, source: Source | None = None
) -> tuple[NDArray[np.void], list[_Form]]: ...
