"""What is searched: documents and their index, and a user's own corpus with its index on disk."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firstfault.errors import UserError
from firstfault.files import cache_folder, whole
from firstfault.progress import quiet_datasets
from firstfault.tools.bm25 import bm25s

logging.getLogger("bm25s").setLevel(logging.WARNING)  # it sets itself to DEBUG

QUIET = {"show_progress": False}
FORMAT = 1  # of what is in an index folder; another number makes all indices anew


def passage(document: str | tuple[str, str]) -> dict[str, str]:
    """A document, or its title and text, in one line, as bm25s keeps it.

    >>> passage(("Tarn", "a village\\nby the sea"))
    {'text': 'Tarn: a village by the sea'}
    """
    parts = [document] if isinstance(document, str) else [part for part in document if part.strip()]
    return {"text": " ".join(": ".join(parts).split())}


def make_index(passages: Sequence[dict[str, str]]) -> bm25s.BM25:
    """The BM25 index of the words of passages."""
    tokens = bm25s.tokenize([passage["text"] for passage in passages], **QUIET)
    if not tokens.vocab:
        raise UserError(f"there is nothing to search: {len(passages)} documents without a word; give some with text.")
    index = bm25s.BM25()
    index.index(tokens, **QUIET)
    return index


@dataclass(frozen=True)
class Corpus:
    """`source` is a .jsonl or .parquet file, or else the id of a data set; `text` and `title` name its fields."""

    source: str
    text: str
    title: str

    def load_index(self) -> bm25s.BM25:
        """The index with its passages, read from disk as needed; made now if the cache does not have it."""
        folder = cache_folder() / f"search-{self._key()}"
        if not folder.exists():
            self._make(folder)
        return bm25s.BM25.load(folder, mmap=True, load_corpus=True, verbosity=0, **QUIET)

    @property
    def _is_file(self) -> bool:
        return self.source.endswith((".jsonl", ".parquet"))

    def _key(self) -> str:
        """A hash of what the corpus holds and of how it is read."""
        settings = [FORMAT, bm25s.__version__, self.text, self.title]
        digest = hashlib.sha256(json.dumps(settings).encode())
        if self._is_file:
            try:
                with open(self.source, "rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
            except OSError as error:
                raise self._unreadable(error.strerror) from error
        else:
            for part in self._data_set():
                digest.update(part._fingerprint.encode())  # of the revision, the files and their size
        return digest.hexdigest()[:16]

    def _make(self, folder: Path) -> None:
        """Index the corpus into `folder`, which appears whole or not at all."""
        passages = [passage(document) for document in self.documents()]
        index = make_index(passages)
        try:
            with whole(folder) as partial:
                index.save(partial, corpus=passages, **QUIET)
        except OSError as error:
            raise UserError(
                f"the index of {self.source} can't be written to {folder} ({error.strerror}); make room there, or set "
                "FIRSTFAULT_CACHE to another folder."
            ) from error

    def documents(self) -> Iterator[tuple[str, str]]:
        """Title and text of each document; the title is empty where there is none."""
        rows = self._lines() if self.source.endswith(".jsonl") else (row for part in self._data_set() for row in part)
        for number, row in enumerate(rows, 1):
            if not isinstance(row, Mapping) or not isinstance(row.get(self.text), str):
                has = ", ".join(map(str, row)) if isinstance(row, Mapping) else "no fields"
                raise UserError(
                    f"document {number} of {self.source} has no text in {self.text!r} (it has {has}); "
                    f"rename the field that holds the text to {self.text!r}."
                )
            title = row.get(self.title)
            yield ("" if title is None else str(title)), row[self.text]

    def _lines(self) -> Iterator[Any]:
        try:
            with open(self.source, encoding="utf-8-sig", newline="\n") as file:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        try:
                            yield json.loads(line)
                        except (ValueError, RecursionError) as error:
                            raise UserError(
                                f"{self.source}, line {number} is not JSON ({error}); write one object per line."
                            ) from error
        except (OSError, UnicodeDecodeError) as error:
            raise self._unreadable(str(error)) from error

    def _data_set(self) -> list[Any]:
        """The splits of a data set, or the one of a Parquet file."""
        datasets = quiet_datasets(f"the corpus {self.source}", instead="give a .jsonl")
        try:
            if self.source.endswith(".parquet"):
                parts = datasets.load_dataset("parquet", data_files=self.source)
            else:
                parts = datasets.load_dataset(self.source)
        except Exception as error:  # whatever the network, the Hub and its many formats come up with
            raise self._unreadable(" ".join(str(error).split())) from error
        return list(parts.values())

    def _unreadable(self, reason: str) -> UserError:
        return UserError(
            f"the corpus {self.source} can't be read ({reason}); give a .jsonl or .parquet file, or the id of a data "
            "set on the Hugging Face Hub."
        )
