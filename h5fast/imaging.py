"""The bytes of a file become an array: images through Pillow, JPEG through libjpeg-turbo where simplejpeg is installed.

The one module that imports Pillow, when the first image comes.
"""

from __future__ import annotations

import importlib.util
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Decoder", "Undecodable", "check_images"]

_JPEG = b"\xff\xd8\xff"
_CHANNELS = {"L": "GRAY", "RGB": "RGB"}
_USUAL = ("1", "L", "RGB", "RGBA")


class Undecodable(ValueError):
    """The bytes are not what they should be; the message says why, as a clause."""


def check_images(mode: str | None = None) -> None:
    """Raises ``ImportError`` where images cannot be decoded, and ``ValueError`` for a mode that Pillow has not, before any work
    begins."""
    if importlib.util.find_spec("PIL") is None:
        raise ImportError("decoding images needs Pillow: pip install 'h5fast[images]', or give a reader= of your own")
    if mode is not None and mode not in _USUAL:
        from PIL import Image

        try:
            Image.getmodebase(mode)
        except KeyError:
            raise ValueError(f"mode is one of Pillow's, such as RGB, L or RGBA, not {mode!r}") from None


@dataclass(frozen=True)
class Decoder:
    """What becomes of the bytes of a file.

    Attributes:
        mode: Pillow's name of what pixels are: "RGB", "L", "RGBA" …; None as the file has them
        resize: height and width that each image is brought to
        pad: height and width that each is filled up to with zeros, at its lower and right edge; with `resize`, an image is
        first
            scaled to fit into that with its proportions
        reader: a function of path and bytes that is asked instead, and gives an array
    """

    mode: str | None = "RGB"
    resize: tuple[int, int] | None = None
    pad: tuple[int, int] | None = None
    reader: Callable[[str, bytes], Any] | None = None

    def frees_python(self, data: bytes) -> bool:
        """Whether nearly all work on such a file is done without Python's lock, so that threads share it out well."""
        return self.reader is None and self._jpeg(data) is not None

    def decode(self, path: str, data: bytes) -> np.ndarray:
        """The array that a file is. Raises :class:`Undecodable`."""
        if not data:
            raise Undecodable("is empty: it has 0 bytes")
        if self.reader is not None:
            return self._read(path, data)
        if data.startswith(b"\x93NUMPY"):
            return self.fit(_load_npy(data))
        image = self._jpeg(data)
        return self._pillow(data) if image is None else self.fit(image)

    def _read(self, path: str, data: bytes) -> np.ndarray:
        assert self.reader is not None
        try:
            found = self.reader(path, data)
        except Exception as error:  # whatever a reader of somebody's raises is said of the file that it was given
            raise Undecodable(f"the reader raised {type(error).__name__}: {error}") from error
        if found is None:
            raise Undecodable("the reader gave None")
        array = np.frombuffer(found, np.uint8) if isinstance(found, bytes) else np.asarray(found)
        if array.dtype.hasobject or array.dtype.kind in "mMU":
            raise Undecodable(f"the reader gave an array of {array.dtype}, and not of numbers")
        return self.fit(array)

    def _jpeg(self, data: bytes) -> np.ndarray | None:
        """A JPEG through libjpeg-turbo, whose pixels are Pillow's; None where Pillow has to look."""
        if not data.startswith(_JPEG) or self.resize is not None or self.mode not in _CHANNELS:
            return None
        turbo = _turbo()
        if turbo is None:
            return None
        decode, head = turbo
        try:
            # Of a colour image libjpeg-turbo gives the luminance as it is stored, and Pillow that of the pixels it shows.
            if self.mode == "L" and head(data)[2] != "Gray":
                return None
            return np.asarray(decode(data, colorspace=_CHANNELS[self.mode])).squeeze(-1 if self.mode == "L" else ())
        except ValueError:
            return None

    def _pillow(self, data: bytes) -> np.ndarray:
        check_images()
        from PIL import Image, UnidentifiedImageError

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                with Image.open(io.BytesIO(data)) as image:
                    shown = image if self.mode is None or image.mode == self.mode else image.convert(self.mode)
                    if self.resize is not None:
                        shown = shown.resize(self._scaled(shown.width, shown.height), Image.Resampling.BILINEAR)
                    return self.fit(np.asarray(shown))
        except Undecodable:
            raise
        except (UnidentifiedImageError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            why = "is no image that Pillow knows" if isinstance(error, UnidentifiedImageError) else str(error)
            raise Undecodable(why) from error
        except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error … of damaged files
            raise Undecodable(f"cannot be decoded: {error}") from error

    def _scaled(self, width: int, height: int) -> tuple[int, int]:
        assert self.resize is not None
        if self.pad is None:
            return self.resize[1], self.resize[0]
        scale = min(self.resize[0] / height, self.resize[1] / width)
        return max(1, round(width * scale)), max(1, round(height * scale))

    def fit(self, array: np.ndarray) -> np.ndarray:
        """Fills an array up to the size asked for. Raises :class:`Undecodable` for one that is larger."""
        if self.pad is None:
            return array
        height, width = self.pad
        if array.ndim < 2 or array.shape[0] > height or array.shape[1] > width:
            raise Undecodable(f"is of shape {array.shape}, which does not fit into pad={height}x{width}: add resize=")
        found = np.zeros((height, width, *array.shape[2:]), array.dtype)
        found[: array.shape[0], : array.shape[1]] = array
        return found


def _turbo() -> tuple[Callable[..., Any], Callable[..., Any]] | None:
    try:
        from simplejpeg import decode_jpeg, decode_jpeg_header
    except ImportError:
        return None
    return decode_jpeg, decode_jpeg_header


def _load_npy(data: bytes) -> np.ndarray:
    try:
        return np.asarray(np.load(io.BytesIO(data), allow_pickle=False))
    except (ValueError, EOFError, OSError) as error:
        raise Undecodable(f"is no .npy file that can be read: {error}") from error
