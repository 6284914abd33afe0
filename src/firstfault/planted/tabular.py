"""A tabular policy on a planted process: the project's trees and methods, with exact gradients, in milliseconds.

The policy is a table of logits [rows, 2]. It sees one number (`PlantedProcess.row`, the last token of an observation)
and takes one of two actions, so that it is a language model whose context is one token. `TabularRollouts` grows the
trees that `agent.rollouts.Rollouts` would, and `gradients` derives a method's own loss, on the batch of terms that the
learner would give it. Nothing of a method is written again.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from firstfault.agent.base import Rollouts
from firstfault.agent.batch import Batch
from firstfault.credit import mean
from firstfault.methods.base import Method
from firstfault.planted.process import FILLER, FIRST_ROW, RIGHT, WRONG, PlantedProcess, State
from firstfault.training.learner import term_batch, total_weight
from firstfault.training.metrics import count_clipped
from firstfault.training.pack import pack, unique_tokens
from firstfault.tree import Node, Task, Tree


class TabularPolicy:
    """Logits [rows, 2], float64, with what sampling needs of them in plain numbers.

    >>> policy = TabularPolicy.first(PlantedProcess())
    >>> [round(p, 4) for p in policy.probabilities[0]], round(policy.entropies[8], 3)
    ([0.9975, 0.0025], 0.611)
    """

    def __init__(self, logits: Tensor):
        self.logits = logits
        logprobs = torch.log_softmax(logits, -1)
        self.logprobs: list[list[float]] = logprobs.tolist()
        self.probabilities: list[list[float]] = logprobs.exp().tolist()
        self.entropies: list[float] = torch.special.entr(logprobs.exp()).sum(-1).tolist()

    @classmethod
    def first(cls, process: PlantedProcess) -> TabularPolicy:
        return cls(torch.tensor(process.first_policy(), dtype=torch.float64).log())


class TabularRollouts(Rollouts):
    """Rollouts of a tabular policy.

    All randomness comes from the tree's key and the number of the rollout, none from the order of requests.
    """

    def __init__(self, process: PlantedProcess, policy: TabularPolicy, tree: Tree, budget: int):
        super().__init__(tree, budget)
        self.process = process
        self.policy = policy
        self._moves: dict[State, tuple[int, int, State, State]] = {}  # row, filler tokens, states after RIGHT and WRONG

    async def __aenter__(self) -> TabularRollouts:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def _complete_all(self, nodes: Sequence[Node], first: int) -> list[Node]:
        return [self._continue(node, rollout) for rollout, node in enumerate(nodes, first)]

    def _continue(self, node: Node, rollout: int) -> Node:
        states = self.process.states(self.tree.task, node)
        return self._complete(node, states[-1], rollout, all(state.phase == "good" for state in states))

    def _complete(self, node: Node, state: State, rollout: int, flawless: bool) -> Node:
        draw = random.Random(f"{self.tree.key} {rollout}").random
        while not state.is_over:
            node, state = self._step(node, state, rollout, draw(), flawless)
            flawless = flawless and state.phase == "good"
        node.end, node.success = "answer", state.phase == "won"
        node.reward = float(node.success)
        return node

    def _step(self, node: Node, state: State, rollout: int, draw: float, flawless: bool) -> tuple[Node, State]:
        process, task = self.process, self.tree.task
        if state not in self._moves:
            after = (process.after(task, state, action) for action in (RIGHT, WRONG))
            self._moves[state] = (process.row(task, state), task.info["lengths"][state.position] - 1, *after)
        row, filler, *after = self._moves[state]
        action, logprob, entropy = RIGHT, 0.0, 0.0  # the answer
        if row < process.rows:
            action = RIGHT if draw < self.policy.probabilities[row][RIGHT] else WRONG
            logprob, entropy = self.policy.logprobs[row][action], self.policy.entropies[row]
        if not flawless:
            entropy = {"own": entropy, "raised": entropy + 0.5, "zero": 0.0}[process.entropy]
        state = after[action]
        step = self.tree.add(node, rollout=rollout, action_tokens=[action] + [FILLER] * filler,
                             logprobs=[logprob] + [0.0] * filler, entropies=[entropy] + [0.0] * filler)  # fmt: skip
        if not state.is_over:
            step.observation_tokens = [FIRST_ROW + process.row(task, state)]
        return step, state


def grow(
    method: Method,
    process: PlantedProcess,
    policy: TabularPolicy,
    tasks: Sequence[Task],
    key: tuple[int, ...],
    reference: TabularPolicy | None = None,
) -> list[Tree]:
    """Explore every task with the method's budget; task number i has the key (*key, i).

    `reference` is the policy that training began with, by default the present one.
    """
    present = policy

    def more(first: int, n: int) -> Sequence[Task]:
        return process.train(1_000_003 * (key[0] + 1) + sum(key[1:]), len(tasks) + first, n)

    def start(task: Task, number: int, rollouts: int) -> TabularRollouts:
        tree = Tree(task, [FIRST_ROW + process.row(task, State())], key=(*key, number))
        return TabularRollouts(process, present, tree, rollouts)

    @contextmanager
    def as_reference() -> Iterator[None]:
        nonlocal present
        present = reference or policy
        yield
        present = policy

    return asyncio.run(method.explore_all(Batch(tasks, method.rollouts, start, more, as_reference)))


def credit(method: Method, trees: Sequence[Tree], process: PlantedProcess, reference: TabularPolicy) -> None:
    """The method's rewards and credit, and how likely the policy that training began with is to act so.

    A critic, where the method needs one, knows the mean reward of the runs that saw the same row in these trees.
    """
    method.shape(trees)
    if method.critic:
        rewards: dict[int, list[float]] = defaultdict(list)
        for node in (node for tree in trees for node in tree.nodes if node.children):
            rewards[node.observation_tokens[0]] += [leaf.reward for leaf in node.leaves]
        for node in (node for tree in trees for node in tree.nodes if node.children):
            node.value = mean(rewards[node.observation_tokens[0]])
    method.credit(trees)
    for step in (step for tree in trees for step in tree.steps if method.needs_reference):
        row, (action, *filler) = step.parent.observation_tokens[0] - FIRST_ROW, step.action_tokens
        likely = reference.logprobs[row][action] if row < process.rows else 0.0
        step.reference_logprobs = [likely] + [0.0] * len(filler)


def gradients(method: Method, trees: Sequence[Tree], logits: Tensor, sums: dict[str, float] | None = None) -> Tensor:
    """What each tree adds to the ascent direction of a mini-batch: -∂loss/∂logits, [trees, rows, 2].

    The trees carry the method's terms. The loss is `method.loss` of the whole mini-batch with its own total weight, as
    in `Learner`; every tree has a copy of the logits to itself, so that autograd keeps their shares apart.
    `sums` adds up what the clip cuts off (see `count_clipped`).
    """
    packed = pack(trees)
    copies = logits.detach().repeat(len(trees), 1, 1).requires_grad_()
    rows = packed.tokens[packed.predicted_by] - FIRST_ROW
    decides = (rows >= 0) & (rows < len(logits))  # an answer and filler are certain
    ends = torch.tensor([unique_tokens(tree) for tree in trees]).cumsum(0)
    owner = torch.searchsorted(ends, packed.predicted_by, right=True)
    chosen = torch.log_softmax(copies, -1)[owner[decides], rows[decides], packed.targets[decides]]
    logprobs = torch.zeros(len(rows), dtype=logits.dtype).index_put((decides,), chosen)
    terms = term_batch(packed, logprobs, total_weight(trees))
    if sums is not None:
        count_clipped(terms, packed, sums)
    method.loss(terms).backward()
    return -copies.grad


def success_probability(process: PlantedProcess, tasks: Sequence[Task], policy: TabularPolicy) -> float:
    """J(θ): the mean over tasks of the exact success probability."""
    return sum(process.values(task, policy.probabilities)[State()] for task in tasks) / len(tasks)


def exact_gradient(process: PlantedProcess, tasks: Sequence[Task], policy: TabularPolicy) -> Tensor:
    """∇J(θ) with respect to the logits, [rows, 2]."""
    logits = policy.logits.detach().clone().requires_grad_()
    table = [row.unbind() for row in torch.softmax(logits, -1).unbind()]
    total = sum(process.values(task, table)[State()] for task in tasks)
    (total / len(tasks)).backward()
    return logits.grad
