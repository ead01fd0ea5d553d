"""The classic call, ``model.fit(HDF5Matrix(...), HDF5Matrix(...), validation_split=0.2)``, read batch by batch.

Keras 3 has no way in for arrays that stand in a file: it makes arrays of them first. Two of its functions decide that, and
``install()`` puts others in their place, which look for such arrays and leave everything else to Keras' own. They are not part
of Keras' public interface, so this is done only on request, only to versions that are known, and can be undone.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import math
import random
from collections.abc import Callable
from typing import Any

from h5fast.errors import UnsupportedError
from h5fast.keras.framework import keras
from h5fast.keras.pairing import is_lazy, leaves
from h5fast.keras.sequence import HDF5Sequence
from h5fast.keras.validation import parts_of

__all__ = ["install", "uninstall"]

# The versions of Keras that this was tried with.
_OLDEST, _NEWEST = (3, 9), (3, 15)
# What is replaced: the module, the function, and the names of its parameters.
_GET_ADAPTER = ("keras.src.trainers.data_adapters", "get_data_adapter",
                ("x", "y", "sample_weight", "batch_size", "steps_per_epoch", "shuffle", "class_weight"))
_SPLIT = ("keras.src.trainers.data_adapters.array_slicing", "train_validation_split", ("arrays", "validation_split"))

_ORIGINAL = "_h5fast_original"  # attribute of a replacement: the function that it stands for
_DEFAULT_BATCH = 32  # as of Keras, for arrays


def install() -> None:
    """Lets ``fit``, ``evaluate`` and ``predict`` of Keras read ``HDF5Matrix`` and ``Dataset`` batch by batch.

    x, y and sample_weight may be these, arrays, or lists and dicts of both; ``validation_split``, ``validation_data``,
    ``class_weight`` and ``shuffle`` (True, ``"batch"``, or an order of :class:`h5fast.Loader`) work. It holds for the whole
    program, until :func:`uninstall`. Calling it twice does nothing more.

    Raises :class:`h5fast.UnsupportedError` for a Keras that it is not known to work with; nothing is changed then.
    """
    found = [_checked(*place) for place in (_GET_ADAPTER, _SPLIT)]
    for (module, name, function), make in zip(found, (_lazy_get_data_adapter, _lazy_split)):
        if not hasattr(function, _ORIGINAL):
            replacement = functools.wraps(function)(make(function))
            setattr(replacement, _ORIGINAL, function)
            setattr(module, name, replacement)


def uninstall() -> None:
    """Undoes :func:`install`: Keras has its own functions again. Does nothing where it was not called."""
    for path, name, _ in (_GET_ADAPTER, _SPLIT):
        module = importlib.import_module(path)
        function = getattr(module, name)
        if hasattr(function, _ORIGINAL):
            setattr(module, name, getattr(function, _ORIGINAL))


def _checked(path: str, name: str, parameters: tuple[str, ...]) -> tuple[Any, str, Any]:
    """(module, name, function) of what is to be replaced, if it is what it is known to be."""
    version = tuple(int(part) for part in keras.__version__.split(".")[:2] if part.isdecimal())
    remedy = "pass h5fast.keras.HDF5Sequence(x, y, batch_size=...) or the two of h5fast.keras.fit_data(x, y) to fit instead"
    if not _OLDEST <= version <= _NEWEST:
        known = " to ".join(".".join(map(str, one)) for one in (_OLDEST, _NEWEST))
        raise UnsupportedError(f"h5fast.keras.install() knows Keras {known}, and this is {keras.__version__}: {remedy}")
    try:
        module = importlib.import_module(path)
        function = getattr(module, name)
        found = tuple(inspect.signature(getattr(function, _ORIGINAL, function)).parameters)
    except (ImportError, AttributeError, ValueError) as error:
        raise UnsupportedError(f"this Keras {keras.__version__} has no {path}.{name} ({error}): {remedy}") from error
    if found != parameters:
        raise UnsupportedError(f"{path}.{name} of this Keras {keras.__version__} takes {found}, not {parameters}: {remedy}")
    return module, name, function


def _lazy_get_data_adapter(original: Callable[..., Any]) -> Callable[..., Any]:
    def get_data_adapter(x: Any, y: Any = None, sample_weight: Any = None, batch_size: int | None = None,
                         steps_per_epoch: int | None = None, shuffle: str | bool = False, class_weight: Any = None) -> Any:
        if not any(map(is_lazy, leaves((x, y, sample_weight)))):
            return original(x, y=y, sample_weight=sample_weight, batch_size=batch_size, steps_per_epoch=steps_per_epoch,
                            shuffle=shuffle, class_weight=class_weight)
        if not batch_size:  # as Keras chooses it for arrays
            batch_size = math.ceil(len(next(leaves(x))) / steps_per_epoch) if steps_per_epoch else _DEFAULT_BATCH
        # Python's generator is one of those that keras.utils.set_random_seed() seeds.
        sequence = HDF5Sequence(x, y, sample_weight, batch_size, shuffle, seed=random.getrandbits(64))
        return original(sequence, steps_per_epoch=steps_per_epoch, shuffle=False, class_weight=class_weight)

    return get_data_adapter


def _lazy_split(original: Callable[..., Any]) -> Callable[..., Any]:
    def train_validation_split(arrays: Any, validation_split: float) -> Any:
        if any(map(is_lazy, leaves(arrays))):
            return parts_of(arrays, validation_split)
        return original(arrays, validation_split=validation_split)

    return train_validation_split
