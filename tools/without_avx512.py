#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Copy onnxruntime, and let the copy believe that the processor has no AVX-512: what a network takes with AVX2 kernels.

::

    python tools/without_avx512.py avx2/
    PYTHONPATH=avx2 python tools/bench_multiples.py MODEL... --round-to avx2

The kernels are chosen where the library starts, by what XGETBV says of the registers that the system saves. In the
copy this instruction is one that answers SSE and AVX, and nothing else. Of Linux on x86-64; the copy is not for use.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import sys
from pathlib import Path

_ASKED = bytes.fromhex("0f01d0 89c0 48c1e220 4809c2")
"""xgetbv; mov eax, eax; shl rdx, 32; or rdx, rax: the answer is made one number of 64 bits."""
_ANSWERED = bytes.fromhex("b807000000 48c1e220 4809c2")
"""mov eax, 7, in place of the first two, and as long."""
_UNUSED = shutil.ignore_patterns("libonnxruntime_providers_*", "__pycache__")


def without_avx512(library: bytes) -> tuple[bytes, int]:
    """Return the code of a library with the answer in place of the question, and how often that was asked."""
    return library.replace(_ASKED, _ANSWERED), library.count(_ASKED)


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the package is copied to")
    folder = parser.parse_args().folder / "onnxruntime"
    found = importlib.util.find_spec("onnxruntime")
    if found is None or found.origin is None:
        sys.exit("onnxruntime is not installed")
    shutil.copytree(Path(found.origin).parent, folder, ignore=_UNUSED, dirs_exist_ok=True)
    asked = 0
    for path in folder.glob("capi/onnxruntime_pybind11_state*.so"):
        code, times = without_avx512(path.read_bytes())
        path.write_bytes(code)
        asked += times
    print(f"{folder}: the processor is asked in {asked} places, and says AVX2 now")
    return int(not asked)


if __name__ == "__main__":
    sys.exit(main())
