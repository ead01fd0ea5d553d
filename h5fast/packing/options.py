"""What is asked of a packing, checked before it begins."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from h5fast.packing.choosing import Choice, load_callable
from h5fast.imaging import Decoder, check_images
from h5fast.packing.labels import Labels
from h5fast.packing.layouts import EncodedSink, Output, Sink, StackSink
from h5fast.packing.layouts_tree import TreeSink
from h5fast.packing.routing import Handling
from h5fast.sizes import parse_bytes
from h5fast.specs import Spec
from h5fast.threads import get_num_threads

__all__ = ["LAYOUTS", "Options"]

LAYOUTS = ("stack", "encoded", "tree")

# Datasets that lie beside the images of a stack.
_BESIDE = ("path", "label", "class_names")


@dataclass(frozen=True)
class Options:
    """The options of :func:`~h5fast.packing.pack.pack`, which tells what they mean."""

    layout: str = "stack"
    name: str = "image"
    ext: str | Sequence[str] | None = None
    glob: str | Sequence[str] | None = None
    regex: str | None = None
    keep: Callable[[str], Any] | str | None = None
    reader: Callable[[str, bytes], Any] | str | None = None
    decode: bool = False
    mode: str | None = "RGB"
    resize: int | Sequence[int] | None = None
    pad: int | bool | Sequence[int] | None = None
    labels: str | os.PathLike[str] | Mapping[str, Any] | Callable[[str], Any] | None = "folder"
    codec: Any = "auto"
    chunk_rows: int | str = "auto"
    metadata: bool = False
    jobs: int | None = None
    memory: int | float | str = "192 MiB"
    strict: bool = False

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise ValueError(f"layout is {', '.join(map(repr, LAYOUTS))}, not {self.layout!r}")
        if self.layout == "encoded" and (self.decode or self.reader is not None):
            raise ValueError("layout 'encoded' holds the files' own bytes: decode and reader are for 'stack' and 'tree'")
        if not self.decodes and (self.resize is not None or self.pad is not None):
            raise ValueError(f"resize and pad are for decoded images, and layout {self.layout!r} holds the files' own bytes")
        if self.layout == "stack" and self.name.strip("/").partition("/")[0] in _BESIDE:
            raise ValueError(f"name is that of the images, and {', '.join(_BESIDE)} lie beside them: not {self.name!r}")
        if self.jobs is not None and operator.index(self.jobs) < 1:
            raise ValueError(f"jobs is at least 1, not {self.jobs}")
        Spec((), "uint8", codec=self.resolved_codec, chunk_rows=self.chunk_rows)
        if self.decodes and self.reader is None:
            check_images(self.mode)

    @property
    def decodes(self) -> bool:
        """Whether members become arrays."""
        return self.layout == "stack" or self.decode or self.reader is not None

    @property
    def resolved_codec(self) -> Any:
        """The codec, where it was left open."""
        return self.codec if self.codec != "auto" else "lzf" if self.decodes else None

    @property
    def told(self) -> str:
        """What has to be the same when a file is resumed."""
        functions = [getattr(one, "__qualname__", one) for one in (self.keep, self.reader)]
        about = (self.ext, self.glob, self.regex, *functions, self.decode, self.mode, self.resize, self.pad, self.metadata)
        return repr((self.layout, self.name, *about))

    @property
    def bytes_each(self) -> int:
        """Half of the memory: for members on their way to be decoded, and for rows on their way into files."""
        return parse_bytes(self.memory) // 2

    def handling(self, progress: Callable[[int, int], None] | None = None) -> Handling:
        """What is done with members."""
        return Handling(
            Choice(self.ext, self.glob, self.regex, self.keep),
            Labels(self.labels),
            self._decoder(),
            get_num_threads() if self.jobs is None else self.jobs,
            self.bytes_each,
            self.strict,
            progress,
        )

    def _decoder(self) -> Decoder:
        resize = _size(self.resize, "resize")
        if self.pad is True and resize is None:
            raise ValueError("pad=True fills up to resize=, which is not given: pad=(height, width) says what to fill up to")
        pad = resize if self.pad is True else None if self.pad is False else _size(self.pad, "pad")
        return Decoder(self.mode, resize, pad, load_callable(self.reader, "reader"))

    def sink(self, output: Output) -> Sink:
        """The file of this layout."""
        if self.layout == "stack":
            return StackSink(output, name=self.name, codec=self.resolved_codec, chunk_rows=self.chunk_rows)
        if self.layout == "encoded":
            return EncodedSink(output, codec=self.resolved_codec, chunk_rows=self.chunk_rows, metadata=self.metadata)
        return TreeSink(
            output,
            decodes=self.decodes,
            codec=self.resolved_codec,
            metadata=self.metadata,
            named=self.labels not in (None, "folder"),
        )


def _size(given: Any, what: str) -> tuple[int, int] | None:
    if given is None:
        return None
    numbers = (given, given) if isinstance(given, int) and not isinstance(given, bool) else given
    try:
        height, width = map(operator.index, numbers)
    except (TypeError, ValueError):
        raise ValueError(f"{what} is height and width, or one number for both, not {given!r}") from None
    if height < 1 or width < 1:
        raise ValueError(f"{what} is at least 1 each way, not {given!r}")
    return height, width
