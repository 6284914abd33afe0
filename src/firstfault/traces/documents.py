"""JSON values from a file: JSON, JSON lines, several values in a row, gzipped or not, or an Inspect log's archive."""

from __future__ import annotations

import gzip
import io
import json
import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firstfault.errors import UserError
from firstfault.text import one_line

SPACE = re.compile(r"\s*")
ZSTANDARD = 93  # the number of this compression in zip files
UNPACKING = (OSError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError)


@dataclass(frozen=True)
class Document:
    """A JSON value with its place in the file, for messages."""

    where: str
    value: Any


def documents(path: Path) -> tuple[list[Document], list[str]]:
    """The JSON values in a file, and a sentence for each part of it that is none.

    Raises:
        UserError: if there is no value at all.
    """
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} can't be read ({error}); give a whole log in JSON, JSON lines or .eval.") from error
    if data[:4] == b"PK\x03\x04":
        return _archive(path, data)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text in UTF-8 ({error}); give a log in JSON, JSON lines or .eval.") from error
    if not text.strip():
        raise UserError(f"{path} is empty; give a log of at least one run.")
    try:
        return [Document(path.name, json.loads(text))], []
    except (ValueError, RecursionError) as error:
        found, refusals = _lines(path, text) or _in_a_row(path, text) or ([], [])
        if not found:
            raise UserError(
                f"{path} is neither JSON nor JSON lines ({error}); it may be cut off: give the whole file."
            ) from error
        return found, refusals


def _lines(path: Path, text: str) -> tuple[list[Document], list[str]] | None:
    """JSON lines; None where less than half of the lines are JSON, which is no such file."""
    found, refusals = [], []
    for number, line in enumerate(text.split("\n"), 1):  # some other line breaks may stand in a JSON string
        if not line.strip():
            continue
        where = f"{path.name}, line {number}"
        try:
            found.append(Document(where, json.loads(line)))
        except (ValueError, RecursionError) as error:
            refusals.append(f"{where}: it is not JSON ({error}); it may be cut off: write one whole value a line.")
    return (found, refusals) if len(found) >= len(refusals) else None


def _in_a_row(path: Path, text: str) -> tuple[list[Document], list[str]] | None:
    """Values over several lines, one behind the other, as exporters print them."""
    decoder, found, position = json.JSONDecoder(), [], SPACE.match(text, 0).end()
    while position < len(text):
        where = f"{path.name}, value {len(found) + 1}"
        try:
            value, end = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            return found, [f"{where}: it is not JSON ({error}); it may be cut off: give the whole file."]
        found.append(Document(where, value))
        position = SPACE.match(text, end).end()
    return found, []


def _archive(path: Path, data: bytes) -> tuple[list[Document], list[str]]:
    """The samples of an Inspect log, each a document of its own."""
    found, refusals = [], []
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except UNPACKING as error:
        raise UserError(f"{path} is a broken archive ({error}); give the whole .eval file.") from error
    names = archive.namelist()
    if not {"header.json", "_journal/start.json"} & set(names):
        raise UserError(f"{path} is an archive, but no log of Inspect; give an .eval file, or unpack it.")
    for info in archive.infolist():
        where = f"{path.name}, {one_line(info.filename)}"
        if re.fullmatch(r"samples/.+/sample\.json", info.filename):
            refusals.append(
                f"{where}: the sample is stored in chunks, which are not read here; write the log as one file with "
                "`inspect log convert LOG --to json --output-dir DIR`."
            )
        elif re.fullmatch(r"samples/.+\.json", info.filename):
            try:
                found.append(Document(where, json.loads(_unpacked(archive, info, data))))
            except (*UNPACKING, RecursionError) as error:
                refusals.append(
                    f"{where}: the sample can't be read ({error}); convert the log to JSON with "
                    "`inspect log convert LOG --to json --output-dir DIR`."
                )
    if not found:
        reason = f": {refusals[0]}" if refusals else "; run the evaluation to the end."
        raise UserError(f"{path} holds no samples{reason}")
    return found, refusals


def _unpacked(archive: zipfile.ZipFile, info: zipfile.ZipInfo, data: bytes) -> bytes:
    """A member of an archive; of Zstandard's, which Python's own zipfile reads from 3.14 on, if a library is there."""
    try:
        return archive.read(info)
    except NotImplementedError:
        if info.compress_type != ZSTANDARD:
            raise
    try:
        import zstandard
    except ImportError as error:
        raise ValueError("it needs `pip install zstandard` (the extra locate has it), or Python 3.14") from error
    # the member's own header: 30 bytes, the last 4 of which are the lengths of a name and a field behind it
    lengths = data[info.header_offset + 26 : info.header_offset + 30]
    start = info.header_offset + 30 + int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
    packed = io.BytesIO(data[start : start + info.compress_size])
    try:
        with zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True) as reader:
            value = reader.read()
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error
    if zlib.crc32(value) != info.CRC:
        raise ValueError("its checksum is wrong")
    return value
