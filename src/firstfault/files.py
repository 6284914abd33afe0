"""Files and folders that appear whole or not at all, and where those are kept that take long to make."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from firstfault.errors import UserError


class NotSaved(UserError):
    """A disk that is full or gone: whatever comes next would be lost as well."""


def cache_folder() -> Path:
    """`$FIRSTFAULT_CACHE`, or else `~/.cache/firstfault`; it need not exist."""
    return Path(os.environ.get("FIRSTFAULT_CACHE") or Path.home() / ".cache" / "firstfault")


def hash_of(file: Path | str) -> str:
    """The SHA-256 of what a file holds."""
    return _hash(str(file), os.stat(file).st_mtime_ns)


@functools.cache
def _hash(file: str, changed: int) -> str:  # every run of a comparison asks for the same
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yields a path beside `path` for a file or a folder to be written to, which is then moved to `path`.

    A file takes the place of an older one. A folder that another process has put there meanwhile stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    _remove(part)
    try:
        yield part
        try:
            part.replace(path)
        except OSError:
            if not (part.is_dir() and path.is_dir()):
                raise
    finally:
        _remove(part)


def write_whole(path: Path, text: str) -> None:
    """Write a file that appears whole or not at all."""
    with whole(path) as part:
        part.write_text(text, encoding="utf-8")


def try_folder(folder: Path) -> None:
    """Make a folder and write to it, before anything is spent on what could not be kept there.

    Raises:
        OSError: if either can't be done.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()


@contextmanager
def alone(folder: Path, file: str = "") -> Iterator[None]:
    """Make a folder, and keep other commands that write to it, or to this file in it, out of it.

    Raises:
        UserError: if one is at work there.
    """
    with saving(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / (f".{file}.lock" if file else ".lock"), "w")  # noqa: SIM115
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            kind = "file" if file else "folder"
            raise UserError(
                f"another command is at work in {folder / file}; wait for it, or give another {kind}."
            ) from None
        yield


@contextmanager
def saving(path: Path) -> Iterator[None]:
    """Turns a failed write into a sentence. torch and safetensors have errors of their own for a full disk."""
    try:
        yield
    except Exception as error:
        # tokenizers raises a bare Exception
        if not isinstance(error, OSError | SafetensorError | RuntimeError) and type(error) is not Exception:
            raise
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise NotSaved(
            f"{path} can't be written ({reason}); what was saved before is whole. Make room, or give another folder, "
            "then give the command again (firstfault train: with --resume)."
        ) from error


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
