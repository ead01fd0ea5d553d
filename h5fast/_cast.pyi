from typing import Any, final

import numpy as np

@final
class Cast:
    fused: bool
    def __init__(
        self,
        source: np.dtype[Any],
        target: np.dtype[Any],
        row_shape: tuple[int, ...],
        scale: np.ndarray[Any, Any] | None,
        offset: np.ndarray[Any, Any] | None,
        channels_first: bool,
    ) -> None: ...
