"""The report of synthetic run folders: whole, harmless, and honest about what is missing."""

import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from firstfault.errors import UserError
from firstfault.report import tree_svg, write_report
from firstfault.report.curves import Band, Line, Point, bands, chart
from firstfault.report.folder import telling
from firstfault.report.layout import ROW, lay_out
from firstfault.report.metrics import METRICS
from firstfault.tree import Call, Node, Probe, Task, Term, Tree, Verdict, save_trees

HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)>\"' onload='x' ]]> {{ 7*7 }} \x00\x1b[31m \u202e"
    " </title></svg></style></pre></details>"
)
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """All elements and all text of a page."""

    def __init__(self, html: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += f"{data} "


def grow(words: str = "") -> Tree:
    """A lost run 0 of three steps; a probe that wins after step 1; two that lose after step 2; a root run that wins."""
    tree = Tree(Task(f"6 × 7 − 2? {words}", f"40{words}", id="t1"), prompt=[1])

    def step(parent: Node, rollout: int, expression: str, output: str, advantage: float = 0.5) -> Node:
        call = Call(f"calc{words}", {"expression": expression + words}, output + words)
        return tree.add(parent, rollout=rollout, text=words, calls=[call], terms=[Term(advantage, 1.0, 0.2, 0.3)])

    def stop(parent: Node, rollout: int, answer: str) -> Node:
        won = answer == "40"
        return tree.add(
            parent, rollout=rollout, text=words, end="answer", answer=answer + words, success=won, reward=float(won)
        )

    first = step(tree.root, 0, "6*7", "42")
    wrong = step(first, 0, "42+2", "44", -0.25)
    wrong.critical = True
    lost = stop(wrong, 0, "44")
    stop(step(first, 1, "42-2", "40"), 1, "40")
    stop(wrong, 2, "44")
    stop(wrong, 3, "46")
    stop(step(tree.root, 4, "6*7-2", "40"), 4, "40")
    tree.verdicts.append(Verdict(lost.index, 3, 2, True, [Probe(1, 1, 1), Probe(2, 2, 0)], marked=True))
    return tree


def write_run(folder: Path, iterations: int = 3, words: str = "") -> Path:
    rows = [
        {
            "iteration": i, "success": 0.2 + i / 100, "entropy": 0.3,
            **[{}, {"gradient_norm": float("nan")}, {"gradient_norm": 0.4}][i % 3],
            "clip_share": 0.01, "rollouts": 256, "probes": 128, "generated_tokens": 23_000, "tool_calls": 2000,
            "tool_failures": 3, "seconds_explore": 2.0, "seconds_update": 3.0, "learning_rate": 1e-6,
            f"odd{words}": 1,
        }
        for i in range(1, iterations + 1)
    ]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"name": f"chain{words}", "steps": 4}
    lines = ["seed = 3", 'method = "elpo"', "[tasks]", *(f"{k} = {json.dumps(v)}" for k, v in settings.items())]
    (folder / "config.toml").write_text("\n".join(lines))
    records = [
        {"iteration": i, "greedy": g, "greedy_low": g - 0.06, "greedy_high": g + 0.06, "problems": 256, "samples": 4}
        for i, g in ((0, 0.36), (iterations, 0.5))
    ]
    (folder / "evaluation.json").write_text(json.dumps(records))
    for i in {1, iterations}:
        save_trees([grow(words), grow(words), grow(words)], folder / f"trees/step-{i:04d}.jsonl.gz")
    return folder


def drawings(html: str) -> list[ET.Element]:
    return [ET.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)]


def test_report_of_a_run(tmp_path):
    path = write_report(write_run(tmp_path))
    assert path == tmp_path / "report.html"
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == [
        "config.toml", "evaluation.json", "metrics.jsonl", "report.html",
    ]  # fmt: skip
    html = path.read_text(encoding="utf-8")
    page = Page(html)
    assert page.open == []
    words = " ".join(page.text.split())
    for expected in (
        "elpo on chain", "seed 3", "768 rollouts 384 of them probes", "69k generated tokens", "15 s time",
        "0.360 0.300 to 0.420 0.500 0.440 to 0.560 +0.140", "256 problems, 4 samples each",
        METRICS["entropy"], "steps = 4", "continued from step 1 of run 0",
        "Run 0: after step 1, 1 of 1 probes succeeded; after step 2, 0 of 2 probes succeeded; first fault at step 2",
    ):  # fmt: skip
        assert expected in words
    assert METRICS["kl_reference"] not in words
    assert len([e for e in drawings(html) if "ff-tree" in e.get("class", "")]) == 4
    # nothing from elsewhere
    assert not [a for _, attributes in page.elements for a in attributes if a in ("src", "href", "data")]
    assert "url(" not in html and "@import" not in html


def test_hostile_text_stays_text(tmp_path):
    html = write_report(write_run(tmp_path, words=HOSTILE)).read_text(encoding="utf-8")
    page = Page(html)
    assert page.open == []
    assert not {"script", "img", "iframe", "object"} & {tag for tag, _ in page.elements}
    assert not [a for _, attributes in page.elements for a in attributes if a.startswith("on")]
    assert "<script>alert(1)</script>" in page.text  # it is shown
    assert "{{ 7*7 }}" in page.text
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\u202e]", html)
    assert len(drawings(html)) > 4
    policy = next(a for tag, a in page.elements if tag == "meta" and "http-equiv" in a)
    assert policy["content"] == "default-src 'none'; style-src 'unsafe-inline'"


def test_what_a_run_may_lack(tmp_path):
    """A run that was killed early: no evaluation, no settings, no trees, a torn last line, a repeated iteration."""
    (tmp_path / "metrics.jsonl").write_text('{"iteration": 1, "x": 1}\n{"iteration": 1, "x": 7}\n{"iterat')
    html = write_report(tmp_path).read_text(encoding="utf-8")
    words = " ".join(Page(html).text.split())
    assert "no evaluation yet" in words and "no config.toml" in words and "Rollout trees" not in words
    assert "x 7" in words
    assert 'class="dot s0"' in html  # one iteration is a point, not a line


def test_a_single_evaluation_has_no_change(tmp_path):
    write_run(tmp_path, iterations=1)
    (tmp_path / "evaluation.json").write_text(
        json.dumps([{"iteration": 0, "greedy": 0.5, "greedy_low": 0.4, "greedy_high": 0.6}])
    )
    words = Page(write_report(tmp_path).read_text(encoding="utf-8")).text
    assert "0.500" in words and "change" not in words


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "holds no metrics.jsonl with at least one iteration"),
        ({"metrics.jsonl": ""}, "holds no metrics.jsonl with at least one iteration"),
        ({"metrics.jsonl": "[1]\n"}, r"metrics.jsonl can't be read \(line 1: input should be an object"),
        ({"metrics.jsonl": '{"iter\n{"iteration": 1}\n'}, "metrics.jsonl can't be read"),
        (
            {"metrics.jsonl": '{"iteration": 1}\n{"iteration": 2, "success": "high"}\n{"iteration": 3}\n'},
            r"metrics.jsonl can't be read \(line 2: success = 'high': input should be a valid number",
        ),
        ({"metrics.jsonl": '{"iteration": 1}\n', "config.toml": "a = "}, "config.toml can't be read"),
        (
            {"metrics.jsonl": '{"iteration": 1}\n', "evaluation.json": '[{"iteration": 0, "greedy": NaN}]'},
            r"evaluation.json can't be read \(0.greedy = nan: input should be a finite number",
        ),
        (
            {"metrics.jsonl": '{"iteration": 1}\n', "evaluation.json": '[{"iteration": 0, "greedy_low": 0.1}]'},
            "evaluation.json can't be read .*greedy_low is there without greedy",
        ),
        (
            {"metrics.jsonl": '{"iteration": 1}\n', "evaluation.json": "{}"},
            "evaluation.json can't be read .input should be a valid array",
        ),
    ],
)
def test_refusals_say_what_is_wrong(tmp_path, files, words):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=words):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_unreadable_trees_are_refused(tmp_path):
    write_run(tmp_path)
    (tmp_path / "trees/step-0003.jsonl.gz").write_bytes(b"not gzip")
    with pytest.raises(UserError, match=r"step-0003\.jsonl\.gz holds no trees as a run writes them"):
        write_report(tmp_path)


def test_tree_svg_says_what_happened():
    tree = grow()
    tree.nodes[1].value, tree.nodes[1].value_samples = 0.5, 4
    tree.nodes[2].value = 0.25  # a critic's
    tree.nodes[3].value = 0.0  # after the end, by VinePPO
    root = ET.fromstring(tree_svg(tree))
    words = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    for expected in (
        "2/5",
        "1/4",
        "0/3",
        "first fault",
        "6*7",
        "→ 42",
        "answer 46",
        "−0.25",
        "expected 40 · tool calc",
    ):
        assert expected in words
    titles = [element.text for element in root.iter("{http://www.w3.org/2000/svg}title")]
    assert any("sampled by rollout 1 (probe)\n1 of 1 runs through it succeed" in title for title in titles)
    values = [line for title in titles for line in title.split("\n") if line.startswith("value")]
    assert values == ["value 0.5 of 4 completions", "value 0.25"]
    # three probes, of which one has two steps
    dashed = [e for e in root.iter() if e.get("stroke-dasharray") and e.get("d", "").count("C")]
    assert len(dashed) == 4


def test_tree_svg_survives_hostile_text_and_odd_trees():
    empty = Tree(Task("", ""), prompt=[1])
    unfinished = Tree(Task("?", ""), prompt=[1])
    unfinished.add(
        unfinished.root, rollout=0, text="日本語" * 40, calls=[Call("a", {}, "", failed="timed out"), Call("b", {})]
    )
    long = Tree(Task("?" * 5000, "x" * 5000), prompt=[1])
    node = long.root
    for _ in range(1200):  # deeper than Python recurses
        node = long.add(node, rollout=0, text="step")
    for tree in (grow(HOSTILE), empty, unfinished, long):
        root = ET.fromstring(tree_svg(tree))
        assert not [e for e in root.iter() if e.tag.endswith(("script", "img"))]
        assert not [a for e in root.iter() for a in e.attrib if a.startswith("on")]


def test_steps_of_a_column_keep_apart():
    """Sixteen runs of twelve steps that branch in every way: no two nodes of a column are closer than a row."""
    tree = Tree(Task("?", "!"), prompt=[1])
    for rollout in range(16):
        parent = tree.nodes[rollout * 37 % len(tree.nodes)] if rollout % 4 else tree.root
        parent = parent if not parent.is_leaf else tree.root
        for depth in range(parent.depth + 1, 13):
            end = {"end": "answer", "success": rollout % 3 == 0, "reward": 0.0} if depth == 12 else {}
            parent = tree.add(parent, rollout=rollout, text="t" * 50, critical=depth == 7 and rollout % 3 > 0, **end)
    layout = lay_out(tree)
    for column in {cell.x for cell in layout.cells}:
        here = sorted((cell.y, len(cell.ends)) for cell in layout.cells if cell.x == column)
        for (upper, thick), (lower, thin) in pairwise(here):
            assert lower - upper >= ROW + (thick + thin - 2) * layout.thread / 2
    for cell in layout.cells[1:]:
        assert layout.cells[cell.node.parent.index].x + cell.bend <= cell.text_x < cell.x


def test_the_most_telling_tree_has_a_first_fault_beside_a_success():
    won = Tree(Task("?", "!"), prompt=[1])
    won.add(won.root, rollout=0, end="answer", success=True, reward=1.0)
    mixed = Tree(Task("?", "!"), prompt=[1])
    for success in (True, False):
        mixed.add(mixed.root, rollout=int(success), end="answer", success=success, reward=float(success))
    assert sorted([mixed, grow(), won], key=telling) == [won, mixed, grow()]


@pytest.mark.parametrize(
    "values",
    [
        [1.0],
        [0.0, 0.0],
        [None, None, 3.0],
        [1e-9, 2e-9],
        [-5, 5],
        [1e12, 3],
        [float("inf"), 1, 2],
        [5, 5, 5],
        [1.0] * 1000,
    ],
)
def test_charts_of_all_sizes(values):
    iterations = list(range(1, len(values) + 1))
    root = ET.fromstring(chart(iterations, [Line("x", values)], [Point(0, 0.5, 0.4, 0.6, "greedy")]))
    text = ET.tostring(root, encoding="unicode")
    assert "nan" not in text.replace('class="nan"', "") and "e+" not in text
    assert len(text) < 30_000
    assert ("no number" in text) == (None in values or float("inf") in values)


def test_a_metric_without_any_number_has_no_chart():
    assert chart([1, 2], [Line("x", [None, float("nan")])]) == ""


@pytest.mark.parametrize(
    ("values", "share", "ticks"),
    [
        ([0.4, 0.9], True, "0.2 0.4 0.6 0.8 1.0"),
        ([-1.5, 0.5], False, "-1.5 -1.0 -0.5 0.0 0.5"),  # a reward
        ([3.0, 40.0], False, "0 10 20 30 40"),
        ([0.016, 0.031], False, "0.015 0.020 0.025 0.030 0.035"),  # entropy
        ([0.0, 0.0], False, "0.00 0.25 0.50 0.75 1.00"),
    ],
)
def test_bands_fit_what_they_show(values, share, ticks):
    root = ET.fromstring(bands([Band("a", [1, 2], values, [None, None], [None, None])], "x", "iterations", share=share))
    assert root.get("aria-label") == "x of a along iterations"
    assert " ".join(e.text for e in root if e.get("text-anchor") == "end") == ticks
    *_, line = (e for e in root if e.get("class") == "line s0")
    ends = [float(place.split()[1]) for place in line.get("d")[1:].split("L")]
    assert all(8 <= y <= 144 for y in ends)
