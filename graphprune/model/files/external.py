# SPDX-License-Identifier: Apache-2.0
"""External data: weights that a model keeps in other files of its own folder, opened under suspicion.

Rules, each with what it stops:

1. only known keys, each once: attribute injection, readers that disagree (CVE-2026-34445);
2. the location is a plain relative path: traversal, absolute paths, URLs, in-memory addresses (CVE-2022-25882);
3. the resolved file lies in the folder of the model, or of the file a linked model points to: symbolic links
   that lead out (CVE-2026-27489), while caches that link both files into one folder keep working;
4. opened once without following links, a regular file with a single hard link: swapping, pipes, and secrets
   linked into the folder (CVE-2026-34446);
5. offset and length are within the file and equal to what type and dimensions need.

Source: onnx ``docs/ExternalData.md`` (layout) and ``docs/ExternalDataSecurity.md`` (threats).
"""

from __future__ import annotations

import hashlib
import mmap
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import onnx

from graphprune.errors import ModelFileError, UnsafeModelError, quote

__all__ = ["DataFile", "Extent", "check_sum", "data_folders", "open_data_file", "read_extent", "reason"]

_KEYS = frozenset({"location", "offset", "length", "checksum", "basepath"})
_LONGEST_LOCATION = 4096
_PIECE = 1 << 26
_NUMBER = re.compile(r"[0-9]{1,19}")
_SHA1 = re.compile(r"[0-9a-fA-F]{40}")
# A drive letter, a URL scheme, a home folder, a Windows separator, or a runtime's "this is an address" marker.
_NOT_A_RELATIVE_PATH = re.compile(r"^[A-Za-z]:|://|^~|\\|_ORT_MEM_ADDR_")


@dataclass(frozen=True)
class Extent:
    """Where the bytes of one tensor lie: a location relative to the model, and a range in that file."""

    location: str
    offset: int
    length: int | None
    checksum: str | None


@dataclass(frozen=True, eq=False)
class DataFile:
    """One opened external data file, mapped into memory read-only."""

    path: Path
    content: mmap.mmap | bytes
    size: int
    identity: tuple[int, int]

    def release(self) -> None:
        """Let the system take back the pages that were read; a page that is read again is mapped again."""
        if isinstance(self.content, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            self.content.madvise(mmap.MADV_DONTNEED)

    def digest(self, algorithm: str) -> bytes:
        """Return the digest of the whole file, read in pieces."""
        result = hashlib.new(algorithm, usedforsecurity=algorithm != "sha1")
        whole = memoryview(self.content)
        for start in range(0, self.size, _PIECE):
            result.update(whole[start : start + _PIECE])
            self.release()
        return result.digest()


def read_extent(tensor: onnx.TensorProto, where: str) -> Extent:
    """Return the checked external-data entries of `tensor` (rules 1 and 2)."""
    entries: dict[str, str] = {}
    for entry in tensor.external_data:
        if entry.key not in _KEYS:
            raise UnsafeModelError(
                f"{where}: unknown external data key {quote(entry.key)}; known are {', '.join(sorted(_KEYS))}"
            )
        if entry.key in entries:
            raise UnsafeModelError(f"{where}: external data key {quote(entry.key)} is given twice")
        entries[entry.key] = entry.value
    location = entries.get("location", "")
    _check_location(location, where)
    checksum = entries.get("checksum")
    if checksum is not None and not _SHA1.fullmatch(checksum):
        raise ModelFileError(f"{where}: external data checksum {quote(checksum)} is not a SHA-1 digest")
    return Extent(
        location=location,
        offset=_number(entries, "offset", where) or 0,
        length=_number(entries, "length", where),
        checksum=checksum.lower() if checksum else None,
    )


def _check_location(location: str, where: str) -> None:
    shown = f"{where}: external data location {quote(location)}"
    if not location:
        raise UnsafeModelError(f"{where}: external data without a location")
    if len(location) > _LONGEST_LOCATION:
        raise UnsafeModelError(f"{shown} has {len(location)} characters, more than {_LONGEST_LOCATION}")
    path = PurePosixPath(location)
    if not location.isprintable() or _NOT_A_RELATIVE_PATH.search(location) or path.is_absolute():
        raise UnsafeModelError(f"{shown} is not a plain relative path")
    if ".." in path.parts or not path.parts:
        raise UnsafeModelError(f"{shown} leaves the model's folder")


def _number(entries: dict[str, str], key: str, where: str) -> int | None:
    text = entries.get(key)
    if text is None:
        return None
    if not _NUMBER.fullmatch(text):
        raise UnsafeModelError(f"{where}: external data {key} {quote(text)} is not a number of bytes")
    return int(text)


def data_folders(model_path: Path) -> tuple[Path, ...]:
    """Return the folders in which external data may lie: the model's, and that of the file it links to."""
    folders = (Path(os.path.realpath(model_path.parent)), Path(os.path.realpath(model_path)).parent)
    return folders if folders[0] != folders[1] else folders[:1]


def open_data_file(folders: tuple[Path, ...], location: str, where: str) -> DataFile:
    """Open and map the file at `location` in the first of `folders` (rules 3 and 4).

    Raises
    ------
    UnsafeModelError
        If the file lies outside `folders`, or is not a regular file with one link.
    ModelFileError
        If it is missing or cannot be read.
    """
    shown = f"{where}: external data {quote(location)}"
    path = Path(os.path.realpath(folders[0] / location))
    if not any(path.is_relative_to(folder) for folder in folders):
        raise UnsafeModelError(f"{shown} is a link that leads out of the model's folder")
    try:
        # Non-blocking, so that a pipe put in the file's place cannot make us wait for a writer.
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
        descriptor = os.open(path, flags | getattr(os, "O_BINARY", 0))
    except FileNotFoundError as error:
        raise ModelFileError(
            f"{shown} does not exist", hint="copy the data file into the folder of the model"
        ) from error
    except (OSError, ValueError) as error:
        raise ModelFileError(f"{shown} cannot be opened: {reason(error)}") from error
    try:
        return _map(descriptor, path, shown)
    except (OSError, ValueError) as error:
        raise ModelFileError(f"{shown} cannot be read: {reason(error)}") from error
    finally:
        os.close(descriptor)


def _map(descriptor: int, path: Path, shown: str) -> DataFile:
    """Map the opened file: what was checked is what is read, whatever happens to its name."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise UnsafeModelError(f"{shown} is not a regular file")
    if status.st_nlink > 1:
        raise UnsafeModelError(f"{shown} has {status.st_nlink} hard links", hint="make real copies of the files")
    content = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) if status.st_size else b""
    return DataFile(path, content, status.st_size, (status.st_dev, status.st_ino))


def check_sum(file: DataFile, expected: str, where: str) -> None:
    """Compare the SHA-1 digest of a whole data file with the one its model states."""
    checksum = file.digest("sha1").hex()
    if checksum != expected:
        raise ModelFileError(
            f"{where}: external data {quote(file.path.name)} has checksum {checksum}, the model expects {expected}",
            hint="the data file belongs to another model or is damaged; get both files again",
        )


def reason(error: Exception) -> str:
    """Return in a few words why the system refused."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
