"""The `search` tool: the passages of a corpus that match a query best, ranked by BM25 (bm25s, method "lucene").

Words are lower-cased runs of two or more letters and digits; common English words are left out. Passages with equal
scores keep the order of the corpus, so that equal queries give equal outputs.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from firstfault.tools.base import Tool
from firstfault.tools.bm25 import bm25s
from firstfault.tools.corpus import QUIET, Corpus, make_index, passage

NOTHING = "No passage found."


class SearchTool(Tool):
    """Searches documents: texts, or pairs of a title and a text. A call returns the `k` best, a line each.

    A document that shares no word with the query is never returned, however few others there are.

    >>> import asyncio
    >>> tool = SearchTool(["The mayor of Upper Tarn is Mira.", ("Lower Tarn", "a village")], k=1)
    >>> asyncio.run(tool.call("search", {"query": "the mayor of Upper Tarn"}))
    'The mayor of Upper Tarn is Mira.'
    >>> asyncio.run(tool.call("search", {"query": "village"}))
    'Lower Tarn: a village'
    """

    schemas = ({
        "type": "function",
        "function": {
            "name": "search",
            "description": "Search a collection of documents. Returns the passages that match best, one a line.",
            "parameters": {
                "type": "object",
                "properties": {"query": {"type": "string", "description": "The words to look for"}},
                "required": ["query"],
            },
        },
    },)  # fmt: skip

    def __init__(self, documents: Iterable[str | tuple[str, str]], k: int = 3):
        passages = [passage(document) for document in documents]
        self._open(make_index(passages), passages, k)

    @classmethod
    def from_corpus(cls, corpus: str | Path, *, text: str = "text", title: str = "title", k: int = 3) -> SearchTool:
        """Search a JSONL or Parquet file, or all splits of a data set of the Hugging Face Hub, given by its id.

        `text` and `title` name the fields, or columns, of a document; it need not have a title. The index is made
        once and kept in the cache under a hash of the corpus; it is read from disk as needed, not held in memory.

        Raises:
            UserError: if the corpus can't be read, or a document of it has no such text.
        """
        tool = cls.__new__(cls)
        index = Corpus(str(corpus), text, title).load_index()
        tool._open(index, index.corpus, k)
        return tool

    def _open(self, index: bm25s.BM25, passages: Any, k: int) -> None:
        self._index, self._passages, self.k = index, passages, k
        self._known = functools.lru_cache(maxsize=4096)(self._rank)  # the runs of a task often ask the same

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        return "\n".join(self.search(**arguments)) or NOTHING

    def search(self, query: str) -> list[str]:
        """The passages that match best, best first."""
        return list(self._known(query))

    def _rank(self, query: str) -> list[str]:
        [words] = bm25s.tokenize(query, return_ids=False, **QUIET)
        if not words:
            return []
        scores = self._index.get_scores(words)
        k = min(self.k, len(scores))
        least = np.partition(scores, -k)[-k]  # the k-th best score; of the documents that have it, the first are taken
        found = np.flatnonzero((scores >= least) & (scores > 0))
        best = found[np.argsort(-scores[found], kind="stable")][:k]
        return [self._passages[int(i)]["text"] for i in best]
