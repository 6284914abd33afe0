"""Rollout trees as one row of tokens, each shared token once, with the attention that makes this exact.

A tree is cut into segments: maximal runs of steps without a branch. A token attends to its ancestors, that is, to the
path of its segment up to itself, and its position is its depth in the tree. So every hidden state equals that of the
flattened run, and gradients add up as they would there. All layers but attention see only unique tokens.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import SimpleNamespace
from typing import Annotated, get_type_hints

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from firstfault.tree import Node, Tree


@dataclass
class _Segment:
    """Tokens start to end of the row, after the tokens `before` of their ancestors."""

    start: int
    before: np.ndarray
    end: int = 0

    @property
    def own(self) -> np.ndarray:
        return np.arange(self.start, self.end)

    @property
    def path(self) -> np.ndarray:
        return np.concatenate([self.before, self.own])

    def pieces(self, length: int) -> Iterator[_Segment]:
        """The same tokens in segments of at most `length`, each after the one before."""
        path = self.path
        for start in range(self.start, self.end, length):
            yield _Segment(start, path[: len(self.before) + start - self.start], min(start + length, self.end))


Long, Float, Bool = (Annotated[Tensor, dtype] for dtype in (torch.long, torch.float32, torch.bool))


@dataclass
class Packed:
    """Some trees in one row of N tokens, with A action tokens and T terms.

    `predicted_by` [A] is where the token before each action token stands: for the first token of a branch that is the
    last of the parent, for every child. `term_token` [T] says which action token a term is on, `term_run` [T] which run
    it is of (-1: of several), `term_tree` [T] which tree. `steps` are the nodes in the order of their action tokens.
    `states` [S] is where the last token before each state with a successor stands (the end of the prompt, or of a tool
    output), `state_nodes` the node that it ends.
    """

    tokens: Long  # [N]
    positions: Long  # [N]
    segments: list[_Segment]
    targets: Long  # [A]
    predicted_by: Long  # [A]
    old_logprobs: Float  # [A]
    localized: Bool  # [A]: from a critical step on
    term_token: Long  # [T]
    advantages: Float  # [T]
    weights: Float  # [T]
    clip_low: Float  # [T]
    clip_high: Float  # [T]
    term_run: Long  # [T]
    term_tree: Long  # [T]
    reference_logprobs: Float  # [A], or [0] if there are none
    steps: list[Node]
    states: Long  # [S]
    state_nodes: list[Node]

    @cached_property
    def plan(self) -> TreePlan:
        """The attention of a model; a policy without any has no need of it."""
        return TreePlan(self.segments, self.positions)


# of each column; those without are lists
DTYPES = {name: getattr(hint, "__metadata__", (None,))[0]
          for name, hint in get_type_hints(Packed, include_extras=True).items()}  # fmt: skip


def needed(tree: Tree) -> set[Node]:
    """The nodes that have credit and those on the way to them; of a tree that has none yet, all.

    So completions that only served to know a value, or to find an error, don't go through the model again.
    """
    found: set[Node] = set()
    for node in reversed(tree.nodes):  # children before parents
        if node.terms or node.value_target is not None or not found.isdisjoint(node.children):
            found.add(node)
    return found or set(tree.nodes)


def unique_tokens(tree: Tree) -> int:
    """How many tokens are computed of a tree, where each shared one counts once."""
    return sum(len(node.action_tokens) + len(node.observation_tokens) for node in needed(tree))


def pack(trees: Sequence[Tree], device: torch.device | str = "cpu") -> Packed:
    """Lay what is needed of trees side by side in one row; they don't see each other.

    Raises:
        ValueError: if a step has log-probabilities, or a term advantages, for another number of tokens than its own;
            if the reference's log-probabilities are there for some steps only.
    """
    row = SimpleNamespace(**{name: [] for name in DTYPES})
    nodes = 0  # of earlier trees, which keeps the runs of trees apart
    for number, tree in enumerate(trees):
        _add(row, tree, number, nodes)
        nodes += len(tree.nodes)
    if len(row.reference_logprobs) not in (0, len(row.targets)):
        raise ValueError(f"{len(row.reference_logprobs)} of {len(row.targets)} action tokens have a reference's")
    columns = vars(row).items()
    return Packed(
        **{
            name: torch.tensor(values, dtype=dtype, device=device) if (dtype := DTYPES[name]) else values
            for name, values in columns
        }
    )


def _add(row: SimpleNamespace, tree: Tree, number: int, nodes: int) -> None:
    """Append a tree, depth first, so that the steps of a segment stand side by side."""
    kept = needed(tree)
    children = {node: [child for child in node.children if child in kept] for node in kept}
    ends: dict[Node, int] = {}  # the index of the last token up to and with a node
    inside: dict[Node, _Segment] = {}
    critical: dict[Node, bool] = {}
    stack = [tree.root]
    while stack:
        node = stack.pop()
        parent = node.parent
        if parent is not None and len(children[parent]) == 1:
            segment = inside[parent]
        else:
            segment = _Segment(len(row.tokens), inside[parent].path if parent is not None else np.arange(0))
            row.segments.append(segment)
        inside[node] = segment
        critical[node] = node.critical or (parent is not None and critical[parent])
        before = ends[parent] if parent is not None else -1
        action = range(len(row.targets), len(row.targets) + len(node.action_tokens))
        row.targets += node.action_tokens
        row.predicted_by += [before, *range(len(row.tokens), len(row.tokens) + len(action) - 1)][: len(action)]
        if len(node.logprobs) != len(action):
            raise ValueError(f"step {node.index} has {len(node.logprobs)} log-probabilities on {len(action)} tokens")
        row.old_logprobs += node.logprobs
        row.reference_logprobs += node.reference_logprobs
        row.steps.append(node)
        row.localized += [critical[node]] * len(action)
        row.tokens += node.action_tokens
        for term in node.terms:
            row.term_token += action
            row.advantages += term.on(len(action))
            row.weights += [term.weight] * len(action)
            row.clip_low += [term.clip_low] * len(action)
            row.clip_high += [term.clip_high] * len(action)
            row.term_run += [-1 if term.run is None else nodes + term.run] * len(action)
            row.term_tree += [number] * len(action)
        row.tokens += node.observation_tokens
        segment.end = len(row.tokens)
        row.positions += range(len(segment.before) + len(row.positions) - segment.start,
                               len(segment.before) + len(row.tokens) - segment.start)  # fmt: skip
        ends[node] = len(row.tokens) - 1 if len(row.tokens) > segment.start else before
        if node.children:
            row.states.append(ends[node])
            row.state_nodes.append(node)
        stack.extend(reversed(children[node]))


class TreePlan:
    """Attention of each segment's tokens over their path, segments of like shape together.

    Long segments are taken piece by piece, so that tokens do not attend, masked, to much that comes after them.
    Padding to the longest of a group costs attention only; lengths within a group differ by a factor of about `slack`.
    """

    def __init__(self, segments: list[_Segment], positions: Tensor, slack: float = 1.3, piece: int = 256):
        self.positions = positions
        bucket = lambda length: round(np.log(length) / np.log(slack))  # noqa: E731
        groups: dict[tuple[int, int], list[_Segment]] = defaultdict(list)
        for segment in segments:
            for part in segment.pieces(piece):
                groups[bucket(part.end - part.start), bucket(part.end - part.start + len(part.before))].append(part)
        indexed = [self._index(group) for group in groups.values()]
        self.masks = [mask for *_, mask in indexed]
        self._shapes = [(queries.shape, keys.shape) for queries, _, keys, _ in indexed]
        self._queries, real, self._keys = (torch.cat([index[i].flatten() for index in indexed]) for i in range(3))
        self._where = torch.empty_like(positions)
        self._where[self._queries[real]] = torch.nonzero(real)[:, 0]

    def _index(self, group: list[_Segment]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of a group of S segments: queries [S, T], which of them are real [S, T], keys [S, L], mask [S, 1, T, L]."""
        device = self.positions.device
        pad = lambda rows: torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device)  # noqa: E731
        queries = pad([torch.from_numpy(s.own) for s in group])
        keys = pad([torch.from_numpy(s.path) for s in group])
        real = pad([torch.ones(s.end - s.start, dtype=torch.bool) for s in group])
        mask = torch.arange(keys.shape[1], device=device) <= self.positions[queries][..., None]
        return queries, real, keys, mask[:, None]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        # F.embedding gathers rows like index_select; on a CPU its backward pass is many times faster
        def rows(index: Tensor, x: Tensor, which: int) -> Iterator[Tensor]:
            shapes = [shape[which] for shape in self._shapes]
            parts = F.embedding(index, x.flatten(1)).split([shape.numel() for shape in shapes])
            return (part.view(*shape, *x.shape[1:]).transpose(1, 2) for part, shape in zip(parts, shapes, strict=True))

        outputs = [
            F.scaled_dot_product_attention(q, k, v, mask, scale=scale, enable_gqa=True).transpose(1, 2).flatten(0, 1)
            for q, k, v, mask in zip(
                rows(self._queries, query, 0), rows(self._keys, key, 1), rows(self._keys, value, 1), self.masks,
                strict=True,
            )
        ]  # fmt: skip
        return F.embedding(self._where, torch.cat(outputs).flatten(1)).view_as(query)
