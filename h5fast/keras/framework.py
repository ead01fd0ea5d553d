"""The one place that imports Keras. Nothing else is done here."""

from __future__ import annotations

import importlib
import sys
from typing import Any

__all__ = ["keras", "legacy_sequence"]


def _imported() -> Any:
    try:
        found = importlib.import_module("keras")
    except ImportError as error:
        raise ImportError(
            f"h5fast.keras needs Keras 3 and one of its backends ({error}): pip install 'h5fast[keras]', and if it is not "
            "the backend that Keras takes by default, set KERAS_BACKEND=jax, torch or tensorflow"
        ) from error
    if not hasattr(getattr(found, "utils", None), "PyDataset"):
        raise ImportError(f"h5fast.keras needs Keras 3, and keras {getattr(found, '__version__', '?')} is installed")
    return found


keras = _imported()


def legacy_sequence() -> Any:
    """``Sequence`` of Keras 2 as the package tf_keras has it, if the program has imported that; else None."""
    utils = getattr(sys.modules.get("tf_keras"), "utils", None)
    return getattr(utils, "Sequence", None)
