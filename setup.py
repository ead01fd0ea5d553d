"""Builds the extension modules; everything else about the package is in pyproject.toml.

H5FAST_SANITIZE=address,undefined (or thread) builds with that sanitizer.
"""

import os
import sys

from Cython.Build import cythonize
import numpy
from setuptools import Extension, setup

if sys.platform == "win32":
    raise SystemExit("h5fast needs a POSIX system (Linux or macOS): it reads files with pread and maps them with mmap")

WARNINGS = ["-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-sign-compare", "-Wno-missing-field-initializers"]
# Without state of their own: linked wherever they are needed.
ORDERS = ["order", "permutation", "rowcache", "schedule"]
ENGINE = ["ahead", "announced", "box", "damage", "decode", "deflate", "encode", "encoder", "feed", "fill", "fletcher32",
          "gather", "groups", "inflate", "kept", "lzf", "lzf_encode", "lzf_x86", "moves", "plan", "points", "pool",
          "rowstore", "shuffle", "shuffle_encode", "source", "spans", "storage", "window", "worker", *ORDERS]


def extension(name: str, sources: list[str]) -> Extension:
    sanitizer = os.environ.get("H5FAST_SANITIZE")
    sanitize = [f"-fsanitize={sanitizer}", "-fno-omit-frame-pointer", "-g"] if sanitizer else ["-g0"]
    return Extension(
        f"h5fast.{name}",
        sources=[f"src/{name}.pyx", *(f"src/{source}.c" for source in sources)],
        include_dirs=["src", numpy.get_include()],
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_23_API_VERSION"), ("NPY_TARGET_VERSION", "NPY_1_23_API_VERSION")],
        # No contraction: scale and offset round as NumPy's two operations do.
        extra_compile_args=["-std=gnu11", "-O3", "-ffp-contract=off", *WARNINGS, *sanitize],
        extra_link_args=["-pthread", *sanitize],
        depends=[f"src/{header}" for header in os.listdir("src") if header.endswith((".h", ".pxd"))],
    )


setup(
    ext_modules=cythonize(
        [extension("_library", []), extension("_index", []), extension("_members", ["header"]), extension("_key", []), extension("_selection", []),
         extension("_blocks", ["blocks"]), extension("_cast", ["cast"]), extension("_storage", []), extension("_gather", ENGINE),
          extension("_feed", ["simulate", *ORDERS]), extension("_spans", []), extension("_encode", []), extension("_paged", []),
         extension("_claim", [])],
        build_dir="build/cython",
        include_path=["src"],
        compiler_directives={"language_level": "3", "boundscheck": False, "wraparound": False, "cdivision": True,
                             "embedsignature": True},
    ),
)
