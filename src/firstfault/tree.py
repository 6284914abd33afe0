"""The rollout tree: the one structure that everything else reads and writes.

A node is a step of a run: the tokens that the agent wrote (`action_tokens`), then the tokens that the environment
answered with (`observation_tokens`: tool outputs and the chat template's scaffold up to the agent's next turn). The
root is the environment's first word: its observation is the prompt. A node stores only the tokens it adds, and all
children of a node share its observation.

Invariant: joining the nodes from the root to a node gives exactly the tokens that the model saw, in that order;
nothing is ever tokenized again. A tree is one JSON line, and loads back equal.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from firstfault.errors import UserError, what_is_wrong
from firstfault.files import whole


@dataclass
class Task:
    """One prompt with what is needed to judge an answer; `info` holds whatever else its source knows of it.

    Raises:
        UserError: if the question, the answer or the id is no text.
    """

    question: str
    answer: str
    id: str = ""
    info: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("question", "answer", "id"):
            if not isinstance(getattr(self, name), str):
                raise UserError(f"a task has {name} = {getattr(self, name)!r}, which is no text; make it a str.")


@dataclass
class Call:
    """One tool call of a step, as the agent wrote it, and what came of it. `failed` says why it gave no result.

    `seconds` is not saved: equal runs give equal files.
    """

    name: str
    arguments: dict[str, Any]
    output: str = ""
    failed: str | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Term:
    """One term of the policy loss, on every action token of the node that carries it.

    A method that gives one advantage per node writes one term; a method that gives one per run writes a term for each
    run through the node, because a sum of clipped terms is not the clipped term of their sum. `advantage` is one
    number or one per action token. `weight` is the share of the loss that each token of the term has (see
    `credit.run_weight`). The ratio is clipped to [1 - clip_low, 1 + clip_high]. `run` is the leaf of the one run that
    the term is of, by its index, for losses over whole runs.
    """

    advantage: float | list[float]
    weight: float
    clip_low: float
    clip_high: float
    run: int | None = None

    def on(self, tokens: int) -> list[float]:
        """The advantages of so many action tokens.

        Raises:
            ValueError: if there is one for each token of another number of them.
        """
        advantages = self.advantage if isinstance(self.advantage, list) else [self.advantage] * tokens
        if len(advantages) != tokens:
            raise ValueError(f"a term has {len(advantages)} advantages on {tokens} tokens")
        return advantages

    @property
    def has_gradient(self) -> bool:
        return any(self.advantage) if isinstance(self.advantage, list) else self.advantage != 0


@dataclass
class Probe:
    """The evidence of one anchor of a search: completions sampled after `step` steps of a failed run."""

    step: int
    tries: int
    successes: int


@dataclass
class Verdict:
    """What a search found on one failed run, with its evidence.

    `step` counts from 1; steps + 1 means that no step is irrecoverable. `finished` is false when the budget cut the
    search off, or left it without an answer to rely on. `weights[t - 1]` is how surely step t is at or after the
    first irrecoverable one, `probability` that of `step`, where the search knows one. `marked` says whether the method
    used the verdict.
    """

    leaf: int
    steps: int
    step: int
    finished: bool
    probes: list[Probe] = field(default_factory=list)
    marked: bool = False
    weights: list[float] = field(default_factory=list)  # by default without a doubt
    probability: float | None = None

    @property
    def names_step(self) -> bool:
        """Whether it says that some step is irrecoverable."""
        return self.step <= self.steps

    def __post_init__(self) -> None:
        self.weights = self.weights or [float(t >= self.step) for t in range(1, self.steps + 1)]


@dataclass(eq=False)
class Node:
    """One step. Positions in `logprobs`, `entropies` and `reference_logprobs` (nats) match `action_tokens`."""

    parent: Node | None
    index: int
    rollout: int  # the rollout that sampled this step; -1 for the root
    action_tokens: list[int] = field(default_factory=list)
    observation_tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)
    text: str = ""  # the action as the agent wrote it
    calls: list[Call] = field(default_factory=list)
    # where a run ended
    end: str | None = None  # answer, max_tokens, max_steps or context; None on steps that go on
    answer: str | None = None
    success: bool | None = None
    reward: float | None = None
    judged: float | None = None  # the judge's reward, where a method has put another in its place
    # under the policy that training began with, where a method asks for it
    reference_logprobs: list[float] = field(default_factory=list)
    # what a method writes
    terms: list[Term] = field(default_factory=list)
    critical: bool = False
    value: float | None = None  # of the state after this step
    value_samples: int = 0  # the completions that it is a mean of; 0 where it is no such mean (a critic's)
    value_target: float | None = None  # what a critic shall learn
    children: list[Node] = field(default_factory=list, repr=False)

    @property
    def is_leaf(self) -> bool:
        return self.end is not None

    @property
    def depth(self) -> int:
        """Number of steps up to and with this one: 0 for the root."""
        return len(self.path) - 1

    @property
    def path(self) -> list[Node]:
        """The nodes from the root to this one, both included."""
        nodes: list[Node] = [self]
        while nodes[-1].parent is not None:
            nodes.append(nodes[-1].parent)
        return nodes[::-1]

    @property
    def steps(self) -> list[Node]:
        """The path without the root: what the agent did."""
        return self.path[1:]

    @property
    def tokens(self) -> list[int]:
        """All that the model has seen after this step."""
        return [t for node in self.path for t in node.action_tokens + node.observation_tokens]

    @property
    def subtree(self) -> list[Node]:
        """This node and all below it, parents before children."""
        nodes = [self]
        for node in nodes:
            nodes.extend(node.children)
        return nodes

    @property
    def leaves(self) -> list[Node]:
        """The runs that pass through this node."""
        return [node for node in self.subtree if node.is_leaf]

    @property
    def anchor(self) -> Node:
        """The node that this step's rollout was continued from."""
        node = self
        while node.parent is not None and node.rollout == self.rollout:
            node = node.parent
        return node

    @property
    def is_probe(self) -> bool:
        """Whether this step's rollout was continued from a step of another one."""
        return self.anchor.parent is not None

    @property
    def advantage(self) -> float | None:
        """The weighted mean of the terms, for people to look at; None where nothing was credited."""
        if not self.terms:
            return None
        total = sum(term.weight for term in self.terms)
        mean = [sum(t.advantage) / max(1, len(t.advantage)) if isinstance(t.advantage, list) else t.advantage
                for t in self.terms]  # fmt: skip
        return sum(t.weight * a for t, a in zip(self.terms, mean, strict=True)) / total if total else 0.0


_PLACE = {"parent", "children", "index", "rollout"}
_DEFAULTS = vars(Node(parent=None, index=0, rollout=-1))


@dataclass
class _Line:
    """A tree as JSON, in which a node has the index of its parent."""

    task: Task
    key: tuple[int, ...]
    verdicts: list[Verdict]
    nodes: Annotated[list[dict[str, Any]], Field(min_length=1)]
    discarded: int = 0


_LINE, _NODE = TypeAdapter(_Line), TypeAdapter(Node)


class Tree:
    """All rollouts of one task that share prefixes. `nodes` lists parents before children; `nodes[0]` is the root.

    >>> tree = Tree(Task("1 + 1?", "2"), prompt=[5, 6])
    >>> step = tree.add(tree.root, rollout=0, action_tokens=[7], observation_tokens=[8, 9])
    >>> leaf = tree.add(step, rollout=0, action_tokens=[3], end="answer", success=True, reward=1.0)
    >>> other = tree.add(step, rollout=1, action_tokens=[4], end="answer", success=False, reward=0.0)
    >>> leaf.tokens, other.tokens, other.anchor is step
    ([5, 6, 7, 8, 9, 3], [5, 6, 7, 8, 9, 4], True)
    >>> Tree.from_json(tree.to_json()) == tree
    True
    """

    def __init__(self, task: Task, prompt: list[int], key: tuple[int, ...] = ()):
        self.task = task
        self.key = key  # (seed, iteration, task number): with it, all randomness of the tree can be drawn again
        self.root = Node(parent=None, index=0, rollout=-1, observation_tokens=list(prompt))
        self.nodes: list[Node] = [self.root]
        self.verdicts: list[Verdict] = []
        self.discarded = 0  # rollouts that were taken back, because their tools could not be brought back

    def add(self, parent: Node, *, rollout: int, **fields: Any) -> Node:
        """Append a step below `parent`."""
        node = Node(parent=parent, index=len(self.nodes), rollout=rollout, **fields)
        parent.children.append(node)
        self.nodes.append(node)
        return node

    def discard(self, rollout: int) -> None:
        """Take back what a rollout has added, which must not have been branched from."""
        kept = [node for node in self.nodes if node.rollout != rollout]
        place = {node.index: i for i, node in enumerate(kept)}
        for i, node in enumerate(kept):
            node.index, node.children = i, [child for child in node.children if child.rollout != rollout]
        for verdict in self.verdicts:
            verdict.leaf = place[verdict.leaf]
        self.nodes = kept
        self.discarded += 1

    @property
    def steps(self) -> list[Node]:
        return self.nodes[1:]

    @property
    def leaves(self) -> list[Node]:
        return [node for node in self.nodes if node.is_leaf]

    @property
    def has_success(self) -> bool:
        return any(leaf.success for leaf in self.leaves)

    @property
    def is_credited(self) -> bool:
        """Whether a method has written anything on it, be it that nothing is learnt."""
        return any(node.terms or node.value_target is not None for node in self.nodes)

    @property
    def has_gradient(self) -> bool:
        """Whether anything is learnt from what it scored: from an advantage, or a value."""
        return any(n.value_target is not None or any(term.has_gradient for term in n.terms) for n in self.nodes)

    def to_json(self) -> str:
        def plain(node: Node) -> dict[str, Any]:
            values = {k: v for k, v in vars(node).items() if k not in _PLACE and v != _DEFAULTS[k]}
            values["calls"] = [{k: v for k, v in asdict(call).items() if k != "seconds"} for call in node.calls]
            values["terms"] = [asdict(term) for term in node.terms]
            return {"parent": node.parent.index if node.parent else None, "rollout": node.rollout, **values}

        return json.dumps({
            "task": asdict(self.task),
            "key": self.key,
            "verdicts": [asdict(v) for v in self.verdicts],
            "discarded": self.discarded,
            "nodes": [plain(node) for node in self.nodes],
        }, ensure_ascii=False)  # fmt: skip

    @classmethod
    def from_json(cls, line: str) -> Tree:
        """What `to_json` wrote.

        Raises:
            ValueError: if it is something else.
        """
        data = _LINE.validate_python(json.loads(line))
        tree = cls(data.task, prompt=[], key=data.key)
        tree.verdicts, tree.discarded, tree.nodes = data.verdicts, data.discarded, []
        for index, fields in enumerate(data.nodes):
            above = fields.get("parent")
            if index and not (isinstance(above, int) and above in range(index)):
                raise ValueError(f"node {index} has no parent before it, but {above!r}")
            parent = tree.nodes[above] if index else None
            node = _NODE.validate_python({**fields, "parent": parent, "index": index, "children": []})
            tree.nodes.append(node)
            if parent is not None:
                parent.children.append(node)
        tree.root = tree.nodes[0]
        for verdict in tree.verdicts:
            if verdict.leaf not in range(len(tree.nodes)):
                raise ValueError(f"a search is of node {verdict.leaf}, which is not there")
            steps = range(tree.nodes[verdict.leaf].depth + 1)
            if any(probe.step not in steps for probe in verdict.probes):
                raise ValueError(f"a search asked after a step that node {verdict.leaf} does not have")
        return tree

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tree) and self.to_json() == other.to_json()

    __hash__ = None  # type: ignore[assignment]  # trees are mutable


def independent_runs(*rewards: float, steps: int = 1, tokens: int = 2) -> Tree:
    """A small tree to try things on: runs with these rewards that share nothing, of equal steps of equal lengths."""
    tree = Tree(Task("q", "a"), prompt=[1])
    for rollout, reward in enumerate(rewards):
        node = tree.root
        for _ in range(steps):
            node = tree.add(node, rollout=rollout, action_tokens=[2] * tokens, logprobs=[-0.5] * tokens,
                            entropies=[0.5] * tokens)  # fmt: skip
        node.end, node.success, node.reward = "answer", reward > 0, float(reward)
    return tree


def save_trees(trees: Iterable[Tree], path: Path) -> None:
    """Write trees to `path` (.jsonl.gz), a JSON line each; the file appears whole or not at all."""
    # no name and no time stamp in it: equal trees give equal files
    with whole(path) as part, part.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file:
        for tree in trees:
            # half of a surrogate pair, which JSON can hold and UTF-8 can't, is written as JSON's \ud800
            file.write(tree.to_json().encode(errors="backslashreplace") + b"\n")


def load_trees(path: Path) -> Iterator[Tree]:
    """Read what `save_trees` wrote, one tree at a time, or such lines in a plain file.

    Raises:
        UserError: if the file can't be read, or a line is no tree.
    """
    number = 1
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
            for line in file:
                yield Tree.from_json(line)
                number += 1
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise UserError(
            f"{path} can't be read ({error.strerror}); give a file of trees, such as RUN/trees/step-0001.jsonl.gz."
        ) from error
    except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} holds no trees as a run writes them (line {number}: {what_is_wrong(error)}); restore it, or give "
            "another file."
        ) from error
