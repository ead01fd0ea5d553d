"""What a codec is called, and what it means to h5py's ``create_dataset``."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from h5py import h5p, h5z

from h5fast._storage import FILTER_NAMES
from h5fast.plugins import pipeline

__all__ = ["Codec", "Pipeline", "resolve_codec"]

_GZIP_LEVEL = 4  # as h5py
# hdf5plugin's classes by the names people use, and what their strength is called where it can be said.
_PLUGINS = {"zstd": ("Zstd", "clevel"), "lz4": ("LZ4", None), "bitshuffle": ("Bitshuffle", None), "blosc": ("Blosc", "clevel"),
            "blosc2": ("Blosc2", "clevel"), "bzip2": ("BZip2", "blocksize")}
# These gain from a shuffle of multi-byte numbers before them; the others bring their own or are no byte coders.
_SHUFFLED = ("lzf", "gzip", "zstd", "lz4", "bzip2")


@dataclass(frozen=True)
class Pipeline:
    """Filters in the order of writing, as another dataset has them: (number, options) each."""

    filters: tuple[tuple[int, tuple[int, ...]], ...]

    @property
    def name(self) -> str:
        """What they are called, with their options."""
        return "+".join(f"{FILTER_NAMES.get(number, number)}{options or ''}".replace(" ", "")
                        for number, options in self.filters) or "none"

    def property_list(self) -> h5p.PropDCID:
        """Creation properties of a dataset with these filters. Compressors may be left out of a chunk, a checksum never."""
        properties = h5p.create(h5p.DATASET_CREATE)
        for number, options in self.filters:
            flags = h5z.FLAG_MANDATORY if number == h5z.FILTER_FLETCHER32 else h5z.FLAG_OPTIONAL
            properties.set_filter(number, flags, options)
        return properties


@dataclass(frozen=True)
class Codec:
    """A resolved codec.

    Attributes:
        name: how it is told in messages and attributes, with its level
        options: arguments for h5py's ``create_dataset``
    """

    name: str
    options: Mapping[str, Any]

    @property
    def compresses(self) -> bool:
        """Whether chunks have to be decoded to read a row."""
        if "dcpl" in self.options:
            kept = (h5z.FILTER_SHUFFLE, h5z.FILTER_FLETCHER32)
            return any(number not in kept for number, _, _ in pipeline(self.options["dcpl"]))
        return "compression" in self.options


def resolve_codec(codec: Any, *, shuffle: bool | None, fletcher32: bool, dtype: np.dtype[Any]) -> Codec:
    """What `codec` means for elements of this type.

    Args:
        codec: None, a name, a pair of name and level, or one of hdf5plugin's objects
        shuffle: None shuffles numbers of several bytes in front of the codecs that gain from it

    Raises:
        ValueError: there is no such codec, or no such level of it.
        ImportError: it needs hdf5plugin, which is not installed.
    """
    if isinstance(codec, Pipeline):
        if shuffle or fletcher32:
            raise ValueError("the filters of another dataset are taken as they are: neither shuffle nor fletcher32 can be added")
        return Codec(codec.name, {"dcpl": codec.property_list()})
    base, compression = _compression(codec)
    if shuffle is None:
        shuffle = base in _SHUFFLED and dtype.kind in "iufc" and dtype.itemsize > 1
    options = dict(compression)
    words = [base]
    if shuffle:
        options["shuffle"] = True
        words.insert(0, "shuffle")
    if fletcher32:
        options["fletcher32"] = True
        words.append("fletcher32")
    level = options.get("compression_opts") if base == "gzip" else None
    if level is not None:
        words[words.index("gzip")] = f"gzip({level})"
    return Codec("+".join(words), options)


def _compression(codec: Any) -> tuple[str, Mapping[str, Any]]:
    if codec is None or codec == "none":
        return "none", {}
    if isinstance(codec, Mapping) and "compression" in codec:  # hdf5plugin's objects are
        return _plugin_name(codec), dict(codec)
    name, level = codec if isinstance(codec, tuple) and len(codec) == 2 else (codec, None)
    if name == "lzf" and level is None:
        return "lzf", {"compression": "lzf"}
    if name == "gzip":
        level = _GZIP_LEVEL if level is None else level
        if isinstance(level, bool) or level not in range(10):
            raise ValueError(f"gzip has the levels 0 to 9, not {level!r}")
        return "gzip", {"compression": "gzip", "compression_opts": int(level)}
    if isinstance(name, str) and name in _PLUGINS:
        return name, _plugin(name, level)
    known = ["None", "'lzf'", "'gzip'", "('gzip', level)", "'auto'", *map(repr, _PLUGINS)]
    raise ValueError(f"codec is one of {', '.join(known)}, or an object of hdf5plugin, not {codec!r}")


def _plugin(name: str, level: Any) -> Mapping[str, Any]:
    try:
        hdf5plugin = importlib.import_module("hdf5plugin")
    except ImportError as error:
        raise ImportError(f"codec {name!r} needs hdf5plugin: pip install 'h5fast[plugins]'") from error
    kind, parameter = _PLUGINS[name]
    if level is not None and parameter is None:
        raise ValueError(f"codec {name!r} has no level; for its options pass hdf5plugin.{kind}(…)")
    options = {} if level is None or parameter is None else {parameter: level}
    return dict(getattr(hdf5plugin, kind)(**options))


def _plugin_name(options: Mapping[str, Any]) -> str:
    return FILTER_NAMES.get(options["compression"], f"filter {options['compression']}")
