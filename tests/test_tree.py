"""The rollout tree: what its nodes add up to, how it is kept on disk, and how a terminal shows it."""

import gzip
import io
import math
import random
import re
from dataclasses import replace

import pytest
from rich.console import Console

from firstfault.errors import UserError
from firstfault.report.terminal import tree_picture
from firstfault.tree import Call, Node, Probe, Task, Term, Tree, Verdict, load_trees, save_trees

HOSTILE = "[red]red[/red] [/] \x1b[31m\x1b]0;title\x07\x08\x00\x7f\x9b2J \u202egnol \r\n\t日本語 😀 \ud800"


def grow() -> Tree:
    """Three runs of a task: 0 loses after two steps, 1 leaves it after the first and wins, 2 loses on its own.

    root ─ a ─ b ─ lost
             └ won
         └ other
    """
    tree = Tree(Task("6 × 7?", "42", id="t", info={"operations": [["times", 7]]}), prompt=[1, 2], key=(0, 1, 5))
    a = tree.add(tree.root, rollout=0, action_tokens=[3], observation_tokens=[4, 5], logprobs=[-0.1], entropies=[0.2])
    b = tree.add(a, rollout=0, action_tokens=[6, 7], observation_tokens=[8])
    tree.add(b, rollout=0, action_tokens=[9], end="answer", answer="41", success=False, reward=0.0)
    tree.add(a, rollout=1, action_tokens=[10, 11], end="answer", answer="42", success=True, reward=1.0)
    tree.add(tree.root, rollout=2, action_tokens=[12], end="max_steps", success=False, reward=0.0)
    return tree


def named(tree: Tree) -> list[Node]:
    return tree.nodes[1:]


def written(tree: Tree, width: int = 200) -> str:
    """What a terminal with all its abilities is sent."""
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system="truecolor")
    console.print(tree_picture(tree))
    return console.file.getvalue()


def shown(tree: Tree, width: int = 200) -> str:
    """The same without styles."""
    console = Console(file=io.StringIO(), width=width)
    console.print(tree_picture(tree))
    return console.file.getvalue()


# What nodes add up to


def test_a_path_joins_to_the_tokens_that_the_model_saw():
    a, b, lost, won, other = named(grow())
    assert lost.tokens == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert won.tokens == [1, 2, 3, 4, 5, 10, 11]
    assert other.tokens == [1, 2, 12]
    assert a.tokens == [1, 2, 3, 4, 5]
    assert b.parent.tokens == a.tokens


def test_any_tree_joins_to_the_tokens_of_each_run_and_survives_being_saved():
    draw = random.Random(0)
    for _ in range(20):
        tree = Tree(Task("q", "a"), prompt=[draw.randrange(100) for _ in range(draw.randrange(4))])
        seen = {tree.root: list(tree.root.observation_tokens)}
        for rollout in range(30):
            parent = draw.choice(tree.nodes)
            action, observation = ([draw.randrange(100) for _ in range(draw.randrange(4))] for _ in range(2))
            node = tree.add(parent, rollout=rollout, action_tokens=action, observation_tokens=observation)
            seen[node] = seen[parent] + action + observation
        again = Tree.from_json(tree.to_json())
        for node, tokens in seen.items():
            assert node.tokens == tokens == again.nodes[node.index].tokens


def test_parents_stand_before_their_children_and_know_them():
    tree = grow()
    for index, node in enumerate(tree.nodes):
        assert node.index == index
        assert all(child.index > index and child.parent is node for child in node.children)


def test_paths_steps_and_depths_lead_from_the_root():
    tree = grow()
    a, b, lost, _, _ = named(tree)
    assert lost.path == [tree.root, a, b, lost]
    assert lost.steps == [a, b, lost]
    assert tree.root.steps == []
    assert [node.depth for node in tree.nodes] == [0, 1, 2, 3, 2, 1]


def test_leaves_are_the_runs_below_a_node_and_a_subtree_holds_itself():
    tree = grow()
    a, b, lost, won, other = named(tree)
    assert tree.leaves == [lost, won, other]
    assert a.leaves == [won, lost] and b.leaves == [lost] and other.leaves == [other]
    assert a.subtree == [a, b, won, lost]
    assert tree.root.subtree[0] is tree.root and set(tree.root.subtree) == set(tree.nodes)
    assert tree.steps == [a, b, lost, won, other]


def test_an_anchor_is_where_a_rollout_left_the_tree():
    tree = grow()
    a, b, lost, won, other = named(tree)
    assert [node.anchor for node in (a, b, lost, won, other)] == [tree.root] * 3 + [a, tree.root]


TERMS = [
    ([], None),
    ([Term(0.5, 2.0, 0.2, 0.3)], 0.5),
    ([Term(1.0, 3.0, 0.2, 0.3), Term(-1.0, 1.0, 0.2, 0.3)], 0.5),
    ([Term([1.0, 0.0], 1.0, 0.2, 0.3)], 0.5),
    ([Term([2.0, 0.0], 1.0, 0.2, 0.3), Term(0.0, 3.0, 0.2, 0.3)], 0.25),
    ([Term(1.0, 0.0, 0.2, 0.3)], 0.0),
]


@pytest.mark.parametrize(("terms", "advantage"), TERMS)
def test_the_advantage_of_a_node_is_the_weighted_mean_of_its_terms(terms, advantage):
    assert Node(parent=None, index=0, rollout=0, action_tokens=[1, 2], terms=terms).advantage == advantage


@pytest.mark.parametrize(
    ("advantage", "has_gradient"), [(0.0, False), (-0.1, True), ([0.0, 0.0], False), ([0.0, 0.1], True)]
)
def test_a_tree_has_a_gradient_where_some_advantage_is_not_zero(advantage, has_gradient):
    tree = grow()
    assert not tree.has_gradient
    tree.nodes[2].terms = [Term(0.0, 1.0, 0.2, 0.2), Term(advantage, 1.0, 0.2, 0.2)]
    assert tree.has_gradient == has_gradient


# On disk


def decorated() -> Tree:
    """`grow`, with everything that a tree can hold."""
    tree = grow()
    a, b, lost, _, _ = named(tree)
    tree.task.info |= {"nothing": None, "é": "日本語", "deep": {"list": [1, 2.5, True, None]}}
    a.text = HOSTILE
    a.calls = [
        Call("python", {"code": HOSTILE, "n": None, "deep": [{"x": 1.5}]}, output=HOSTILE, seconds=0.1),
        Call("", {}, failed="malformed"),
    ]
    a.terms = [Term([0.1, -0.2], 1 / 3, 0.2, 0.315), Term(1e-300, 5e-324, 0.0, math.inf)]
    a.value, a.value_samples = 1 / 3, 9
    b.critical, b.value = True, 0.0
    lost.logprobs, lost.entropies = [-math.inf, -1e-17, -0.0], [0.1 + 0.2, math.pi, 1e308]
    tree.verdicts = [
        Verdict(leaf=3, steps=2, step=2, finished=True, probes=[Probe(1, 2, 1), Probe(2, 3, 0)], marked=True),
        Verdict(leaf=5, steps=0, step=1, finished=False),
    ]
    return tree


def contents(node: Node) -> dict:
    """Everything in a node, its neighbours by their number; floats by their digits, so that -0.0 isn't 0.0."""
    values = {**vars(node), "parent": node.parent and node.parent.index, "children": [c.index for c in node.children]}
    values["calls"] = [replace(call, seconds=0.0) for call in node.calls]  # time isn't kept: equal runs, equal files
    return {name: repr(value) for name, value in values.items()}


def test_a_tree_loads_back_equal(tmp_path):
    trees = [decorated(), grow(), Tree(Task("", ""), prompt=[])]
    save_trees(trees, tmp_path / "deep" / "trees.jsonl.gz")
    again = list(load_trees(tmp_path / "deep" / "trees.jsonl.gz"))
    assert again == trees
    for old, new in zip(trees, again, strict=True):
        assert list(map(contents, new.nodes)) == list(map(contents, old.nodes))
        assert (new.task, new.key, new.verdicts) == (old.task, old.key, old.verdicts)
        assert new.root is new.nodes[0]


@pytest.mark.parametrize(("field", "zero"), [("answer", ""), ("value", 0.0), ("reward", 0.0), ("success", False)])
@pytest.mark.parametrize("is_there", [False, True])
def test_nothing_and_zero_and_empty_are_told_apart(field, zero, is_there):
    """An agent that answers with nothing has answered; an advantage of 0 is one."""
    tree, value = grow(), zero if is_there else None
    setattr(tree.nodes[3], field, value)
    again = getattr(Tree.from_json(tree.to_json()).nodes[3], field)
    assert (again, type(again)) == (value, type(value))


def test_a_task_is_of_texts():
    with pytest.raises(UserError, match="a task has id = 7, which is no text; make it a str"):
        Task("1 + 1?", "2", id=7)


ODD = {
    "a text for a reward": ('"reward": 1.0', '"reward": "high"', "reward = 'high': input should be a valid number"),
    "a list for a text": ('"answer": "42"', '"answer": [42]', r"answer = \[42\]: input should be a valid string"),
    "no rollout": ('"rollout": 2, ', "", "rollout is missing"),
    "a parent behind it": ('"parent": 1', '"parent": 4', "node 2 has no parent before it, but 4"),
    "no tree": ('"task"', '"tusk"', "task is missing"),
    "a line cut short": ("}", "", "Expecting property name"),
}


@pytest.mark.parametrize(("old", "new", "words"), ODD.values(), ids=ODD.keys())
def test_a_line_that_is_no_tree_is_named(tmp_path, old, new, words):
    path = tmp_path / "trees.jsonl"
    line = grow().to_json()
    assert old in line
    path.write_text(f"{line}\n{line.replace(old, new)}\n")
    with pytest.raises(UserError, match=rf"trees\.jsonl holds no trees .*\(line 2: .*{words}.*\); restore it") as error:
        list(load_trees(path))
    assert "\n" not in str(error.value)


CHANGES = {
    "a token": lambda tree: tree.nodes[1].action_tokens.append(1),
    "a text": lambda tree: setattr(tree.nodes[1], "text", "x"),
    "an empty answer": lambda tree: setattr(tree.nodes[5], "answer", ""),
    "a term": lambda tree: tree.nodes[1].terms.append(Term(0.0, 1.0, 0.2, 0.2)),
    "a mark": lambda tree: setattr(tree.nodes[1], "critical", True),
    "a verdict": lambda tree: tree.verdicts.append(Verdict(3, 2, 1, True)),
    "the task": lambda tree: tree.task.info.update(x=1),
    "the last digit": lambda tree: setattr(tree.nodes[1], "logprobs", [math.nextafter(-0.1, 0)]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_trees_that_differ_are_not_equal(change):
    tree = grow()
    change(tree)
    assert tree != grow()
    assert grow() == grow()
    assert tree != tree.to_json()


def test_equal_trees_give_equal_files(tmp_path):
    paths = [tmp_path / "one.jsonl.gz", tmp_path / "two.jsonl.gz", tmp_path / "folder" / "three.jsonl.gz"]
    for path in paths:
        save_trees([decorated(), grow()], path)
    assert len({path.read_bytes() for path in paths}) == 1


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "trees.jsonl.gz"

    def broken():
        yield grow()
        assert not path.exists()
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        save_trees(broken(), path)
    assert not path.exists()
    save_trees([grow()], path)
    before = path.read_bytes()
    with pytest.raises(AssertionError):
        save_trees(broken(), path)
    assert path.read_bytes() == before
    save_trees([decorated()], path)  # what a broken attempt has left is no hindrance
    assert list(load_trees(path)) == [decorated()]
    assert [p.name for p in tmp_path.iterdir()] == ["trees.jsonl.gz"]


def test_a_file_is_a_json_line_per_tree(tmp_path):
    path = tmp_path / "trees.jsonl.gz"
    breaks = grow()
    breaks.root.text = "\n\r\u2028\u2029\x85\x0b\x1c"
    save_trees([breaks, grow()], path)
    lines = gzip.decompress(path.read_bytes()).split(b"\n")
    assert len(lines) == 3 and lines[-1] == b""
    assert Tree.from_json(lines[0].decode()) == breaks
    assert list(load_trees(path)) == [breaks, grow()]


# In a terminal


def test_a_run_that_has_no_reward_is_shown():
    tree = grow()
    tree.leaves[0].reward = None
    assert " (answer)" in shown(tree)


def test_the_picture_shows_rewards_advantages_values_and_the_first_fault():
    tree = grow()
    a, b, lost, won, other = named(tree)
    a.text, a.calls = "I calculate.", [Call("python", {}, output="41"), Call("search", {}, "no", failed="timed out")]
    a.terms, a.value, a.value_samples = [Term(-0.5, 1.0, 0.2, 0.3)], 0.25, 8
    b.text, b.critical, b.value = "I go on.", True, 0.0  # a critic's
    lost.value = 0.0  # after the end, by VinePPO
    lost.text, won.text, other.text = "It is 41.", "It is 42.", "What now?"
    assert shown(tree).splitlines() == [
        "6 × 7?",
        "├── I calculate. python() → 41 search() → no  A -0.50  V 0.25 of 8 completions",
        "│   ├── I go on.  V 0  ← first fault",
        "│   │   └── It is 41.  reward +0.00 (answer)",
        "│   └── It is 42.  reward +1.00 (answer)",
        "└── What now?  reward +0.00 (max_steps)",
    ]


def test_markup_is_shown_as_it_stands():
    tree = grow()
    for node in named(tree):
        node.text = "[red]x[/red] [/] [link=http://x]y"
    tree.task.question = "[bold]Why?"
    picture = shown(tree)
    assert picture.count("[red]x[/red] [/] [link=http://x]y") == 5
    assert "[bold]Why?" in picture


def test_what_a_model_wrote_sends_nothing_but_characters_to_the_terminal():
    tree = grow()
    tree.task.question = HOSTILE
    for node in named(tree):
        node.text, node.calls = HOSTILE, [Call(HOSTILE, {}, output=HOSTILE)]
    for hostile in (tree, decorated()):
        picture = written(hostile)
        picture.encode()  # half of a surrogate pair would not go through
        styles = r"\x1b\[[0-9;]*m"  # rich's own: colours, bold, dim
        assert all(c.isprintable() or c == "\n" for c in re.sub(styles, "", picture))
    assert "[red]red[/red] [/] �[31m�]0;title" in shown(tree)
    # its own styles still end: the hostile "\x1b[31m" colours nothing
    assert "\x1b[31m�" not in written(tree)


def test_a_long_text_takes_one_short_line():
    tree = grow()
    tree.nodes[5].text = "word " * 100_000
    lines = shown(tree, width=120).splitlines()
    assert len(lines) == 6
    assert lines[-1] == "└── " + "word " * 14 + "w…  reward +0.00 (max_steps)"
