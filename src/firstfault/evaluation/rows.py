"""Files of rows that go on: what is in one is not done again, nor mixed with what follows from other settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter

from firstfault.errors import UserError
from firstfault.files import saving, write_whole

Row = TypeVar("Row")


class RowsFile(Generic[Row]):
    """A JSONL file: the settings in the first line, then a row a line.

    Args:
        path: the file; if it is there, it goes on, without a last line that was cut short.
        settings: what the rows follow from.
        row: their dataclass.
        flag: what the file's place is given with.
        whole: leaves the rows that stay of those that are there; by default all.

    Raises:
        UserError: if the file is none of ours, has other settings, or can't be read or written.
    """

    def __init__(
        self,
        path: Path,
        settings: Mapping[str, Any],
        row: type[Row],
        flag: str,
        whole: Callable[[list[Row]], list[Row]] = list,
    ):
        self.path = path
        self.rows: list[Row] = []
        header = _line({"settings": settings})
        try:
            there = path.read_bytes() if path.exists() else b""
            if there:
                made, rows = _read(path, there, row, flag)
                if rows:  # where nothing came of other settings, these may begin
                    _same(path, made, json.loads(header)["settings"], flag)
                self.rows = whole(rows)
            text = header + _lines(self.rows)
            if text.encode() != there:
                write_whole(path, text)
        except OSError as error:
            raise UserError(f"{path} can't be kept ({error.strerror}); give another path with {flag}.") from error

    def add(self, rows: Sequence[Row]) -> None:
        """Keep these rows."""
        with saving(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(_lines(rows))
        self.rows.extend(rows)


def digest(settings: Mapping[str, Any]) -> str:
    """Settings as the name of a place for what follows from them."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode(errors="replace")).hexdigest()[:12]


def read_rows(path: Path, row: type[Row], flag: str) -> list[Row]:
    """The rows of such a file, whatever settings they follow from.

    Raises:
        UserError: if the file is none of ours.
    """
    return _read(path, path.read_bytes(), row, flag)[1]


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"


def _lines(rows: Iterable[Any]) -> str:
    return "".join(_line(asdict(row)) for row in rows)


def _read(path: Path, text: bytes, row: type[Row], flag: str) -> tuple[dict[str, Any], list[Row]]:
    """The settings of a file, and its rows, without a last line that was cut short."""
    first, *lines = text.split(b"\n")
    of_row, names = TypeAdapter(row), {field.name for field in fields(row)}
    rows: list[Row] = []
    expected = "settings"
    try:
        made = dict(json.loads(first)["settings"])
        expected = row.__name__.lower()
        for line in lines[:-1]:  # the last is empty, or was cut short
            values = json.loads(line)
            if not names.issuperset(values):  # they would be lost where the file is written again
                raise ValueError("unknown fields")
            rows.append(of_row.validate_python(values))
    except (ValueError, LookupError, TypeError) as error:
        number = 1 if expected == "settings" else len(rows) + 2
        raise UserError(
            f"line {number} of {path} holds no {expected}; mend it, or give another path with {flag}."
        ) from error
    return made, rows


def _same(path: Path, made: dict[str, Any], settings: dict[str, Any], flag: str) -> None:
    for name in {**settings, **made}:
        if made.get(name) != settings.get(name):
            raise UserError(
                f"{path} was made with {_setting(name, made)}, not {_setting(name, settings)}; give the same settings, "
                f"or another path with {flag}."
            )


def _setting(name: str, settings: Mapping[str, Any]) -> str:
    text = json.dumps(settings.get(name), ensure_ascii=False)
    return f"{name} = {text if len(text) <= 120 else text[:119] + '…'}"
