"""The search tool: what it finds, in which order, and what becomes of corpora good and bad."""

import asyncio
import json
import os
import subprocess
import sys

import datasets
import pytest

from firstfault.errors import UserError
from firstfault.tools import SearchTool, Session

VILLAGES = [
    ("Upper Tarn", "The mayor of Upper Tarn is Mira."),
    ("Lower Tarn", "The mayor of Lower Tarn is Benn."),
    ("", "The smith of Upper Tarn is Talo."),
    ("", "Nothing else is known."),
]


def lines(path, rows, **options):
    path.write_text("".join(json.dumps(row, **options) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("the mayor of Upper Tarn", [0, 2, 1]),
        ("mayor", [0, 1]),
        ("BENN?", [1]),
        ("tarn talo", [2, 0, 1]),
        ("Quill", []),
        ("the of is", []),
        ("", []),
        ("?!", []),
        ("a\x00\ud800 mira", [0]),
        ("known " * 5000, [3]),
    ],
)
def test_the_passages_that_share_words_come_best_first(query, found):
    expected = [": ".join(part for part in VILLAGES[i] if part) for i in found]
    assert SearchTool(VILLAGES).search(query) == expected


def test_a_call_gives_a_line_a_passage():
    async def main():
        session = Session([SearchTool([("Tarn", "a village\nby the  sea"), "the sea\r\n\u2028", "land"])])
        return [(await session.call("search", {"query": query})).text for query in ("sea", "sky", "land")]

    assert asyncio.run(main()) == ["the sea\nTarn: a village by the sea", "No passage found.", "land"]


def test_equal_scores_keep_the_order_of_the_corpus():
    tool = SearchTool([f"tarn number {i}" for i in range(1000)], k=5)
    assert tool.search("tarn") == [f"tarn number {i}" for i in range(5)]
    assert tool.search("tarn 998") == ["tarn number 998", *(f"tarn number {i}" for i in range(4))]


def test_many_sessions_share_one_tool():
    async def main():
        tool = SearchTool([f"number {i}" for i in range(100)], k=1)
        first = Session([tool])
        sessions = [first.fork() for _ in range(100)]
        found = await asyncio.gather(*(s.call("search", {"query": f"{i}"}) for i, s in enumerate(sessions)))
        for session in sessions:
            await session.close()
        return [o.text for o in found], tool.fork() is tool

    texts, is_its_own_fork = asyncio.run(main())
    # a word has two letters or digits
    assert texts == ["No passage found."] * 10 + [f"number {i}" for i in range(10, 100)] and is_its_own_fork


@pytest.mark.parametrize("documents", [[], [""], ["?"], ["the", ("", "")]])
def test_documents_without_words_are_refused(documents):
    with pytest.raises(UserError, match=f"^there is nothing to search: {len(documents)} documents without a word;"):
        SearchTool(documents)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("FIRSTFAULT_CACHE", str(folder))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    return folder


def test_a_corpus_is_searched_as_its_documents_are(tmp_path, cache):
    rows = [{"title": title or None, "text": text, "id": 7} for title, text in VILLAGES]
    for corpus in (
        lines(tmp_path / "corpus.jsonl", rows),
        lines(tmp_path / "escaped.jsonl", rows, ensure_ascii=False),
    ):
        tools = [SearchTool.from_corpus(corpus), SearchTool.from_corpus(str(corpus)), SearchTool(VILLAGES)]
        for query in ("the mayor of Upper Tarn", "talo", "quill"):
            first, again, in_memory = (tool.search(query) for tool in tools)
            assert first == again == in_memory
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "corpus.parquet")
    assert SearchTool.from_corpus(tmp_path / "corpus.parquet", k=1).search("benn") == [": ".join(VILLAGES[1])]


def test_a_data_set_is_searched_in_all_its_splits(tmp_path, cache):
    folder = tmp_path / "set"
    folder.mkdir()
    lines(folder / "train.jsonl", [{"text": "a red fox"}])
    lines(folder / "test.jsonl", [{"text": "a grey fox"}])
    assert SearchTool.from_corpus(folder).search("fox") == ["a red fox", "a grey fox"]
    lines(folder / "test.jsonl", [{"text": "a white fox, perhaps"}])
    assert SearchTool.from_corpus(folder).search("white") == ["a white fox, perhaps"]


def test_the_index_is_kept_until_the_corpus_or_its_reading_changes(tmp_path, cache):
    corpus = lines(tmp_path / "a.jsonl", [{"text": "one fish", "body": "red fish"}])

    def search(**options):
        return SearchTool.from_corpus(corpus, **options).search("fish"), len(list(cache.iterdir()))

    assert search() == (["one fish"], 1)
    [made] = cache.iterdir()
    before = made.stat().st_mtime_ns
    assert search(k=1) == (["one fish"], 1) and made.stat().st_mtime_ns == before
    assert search(text="body") == (["red fish"], 2)
    assert search(title="body") == (["red fish: one fish"], 3)
    lines(corpus, [{"text": "two fish"}])
    assert search() == (["two fish"], 4)
    corpus = corpus.rename(tmp_path / "b.jsonl")
    assert search() == (["two fish"], 4)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "can't be read (No such file or directory); give a .jsonl or .parquet file, or"),
        (b"\xff\n", "can't be read ('utf-8' codec can't decode byte 0xff"),
        (b'{"text": "a fish"}\n{"text"\n', "line 2 is not JSON"),
        (b'["a fish"]\n', "document 1 of {corpus} has no text in 'text' (it has no fields); rename the field that"),
        (b'{"id": 1, "body": "a fish"}\n', "has no text in 'text' (it has id, body)"),
        (b'{"text": 7}\n', "has no text in 'text' (it has text)"),
        (b"\n\n", "there is nothing to search: 0 documents without a word"),
    ],
)
def test_a_bad_corpus_is_one_sentence_and_leaves_nothing_behind(content, sentence, tmp_path, cache):
    corpus = tmp_path / "corpus.jsonl"
    if content is not None:
        corpus.write_bytes(content)
    with pytest.raises(UserError) as error:
        SearchTool.from_corpus(corpus)
    assert sentence.format(corpus=corpus) in str(error.value) and "\n" not in str(error.value)
    assert not cache.exists()


def test_a_data_set_that_can_t_be_had_is_one_sentence(cache, monkeypatch, tmp_path):
    with pytest.raises(UserError, match=r"^the corpus .*/missing can't be read \(.+\); give a .jsonl") as error:
        SearchTool.from_corpus(tmp_path / "missing")
    assert "\n" not in str(error.value)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"needs datasets; install it with pip install 'firstfault\[datasets\]'"):
        SearchTool.from_corpus("some/set")


def test_a_cache_that_can_t_be_written_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("FIRSTFAULT_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"can't be written to .+ \(File exists\); make room there, or set"):
        SearchTool.from_corpus(lines(tmp_path / "corpus.jsonl", [{"text": "a fish"}]))


def test_jax_is_left_alone(tmp_path):
    (tmp_path / "jax.py").write_text("print('started')")
    code = "import firstfault.tools.search, sys; print('jax' in sys.modules); import jax"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["False", "started"]
