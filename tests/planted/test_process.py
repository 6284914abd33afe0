"""The process with planted mistakes, against answers by hand, by enumeration of all runs and by drawing them."""

import itertools
import random

import pytest

from firstfault.planted.process import RIGHT, WRONG, PlantedProcess, State, Trap, traps
from firstfault.tree import Node, Task, Tree

SMALL = PlantedProcess(clean=1, traps=(Trap(0.3), Trap(0.4, "dead end"), Trap(0.6, "recoverable")), chances=2)
#        clean       silent      dead end    recoverable  BROKEN        DEAD
POLICY = [[0.9, 0.1], [0.7, 0.3], [0.6, 0.4], [0.4, 0.6], [0.25, 0.75], [0.35, 0.65]]


def task(*contexts: int) -> Task:
    return Task("", "", info={"contexts": list(contexts), "lengths": [1] * (len(contexts) + 1)})


def run(process: PlantedProcess, of: Task, actions: list[int]) -> Node:
    """The leaf of the run that takes `actions`, then RIGHT until it is over."""
    tree, state = Tree(of, prompt=[]), State()
    node = tree.root
    for action in itertools.chain(actions, itertools.repeat(RIGHT)):
        state = process.after(of, state, action)
        node = tree.add(node, rollout=0, action_tokens=[action])
        if state.is_over:
            node.end, node.success = "answer", state.phase == "won"
            return node


def by_enumeration(process: PlantedProcess, of: Task, policy: list[list[float]]) -> float:
    """The sum of the probabilities of all runs that succeed."""
    longest = 2 * len(of.info["contexts"]) + 1
    runs: dict[tuple[int, ...], float] = {}
    for actions in itertools.product((RIGHT, WRONG), repeat=longest):
        state, probability = State(), 1.0
        taken: list[int] = []
        while not state.is_over:
            row, action = process.row(of, state), actions[len(taken)]
            probability *= policy[row][action] if row < process.rows else float(action == RIGHT)
            state = process.after(of, state, action)
            taken.append(action)
        runs[tuple(taken)] = probability * (state.phase == "won")
    return sum(runs.values())


@pytest.mark.parametrize("contexts", [(0,), (1, 1), (2, 0), (3,), (3, 3), (3, 1, 2), (0, 3, 2, 1), (3, 3, 3, 3)])
def test_values_are_sums_over_all_runs(contexts):
    value = SMALL.values(task(*contexts), POLICY)[State()]
    assert value == pytest.approx(by_enumeration(SMALL, task(*contexts), POLICY), abs=1e-12)


def test_values_by_hand():
    """Wrong at the recoverable context, 2 chances: repaired at once, or after going on at the silent one."""
    values = SMALL.values(task(3, 1), POLICY)
    assert values[State(2, "broken", 1)] == 0.25
    assert values[State(1, "broken", 2)] == pytest.approx(0.25 * 0.7 + 0.75 * 0.25)
    assert values[State()] == pytest.approx(0.4 * 0.7 + 0.6 * (0.25 * 0.7 + 0.75 * 0.25))


@pytest.mark.parametrize("where", ["anywhere", "early", "late"])
@pytest.mark.parametrize("mistake", ["silent", "dead end", "recoverable"])
def test_values_are_what_drawn_runs_come_to(where, mistake):
    process = PlantedProcess(traps=traps(mistake), where=where, steps_min=3, steps_max=5)
    [drawn] = process.train(seed=1, first=0, n=1)
    policy, draw, won, n = process.first_policy(), random.Random(0), 0, 4000
    for _ in range(n):
        state = State()
        while not state.is_over:
            row = process.row(drawn, state)
            action = RIGHT if row == process.rows or draw.random() < policy[row][RIGHT] else WRONG
            state = process.after(drawn, state, action)
        won += state.phase == "won"
    assert won / n == pytest.approx(process.values(drawn, policy)[State()], abs=0.03)  # four standard errors


R, W = RIGHT, WRONG
#       contexts       actions                 steps, success, first wrong, first irrecoverable
RUNS = [
    ((0, 1, 2, 3), [R, R, R, R], 5, True, None, None),
    ((0, 1, 0), [R, W, R], 4, False, 2, 2),  # silent
    ((0, 2, 0, 0), [R, W, R], 3, False, 2, 2),  # a dead end, and given up at once
    ((0, 2, 0, 0), [R, W, W, W], 5, False, 2, 2),  # dragged on
    ((3, 0, 0, 0), [W, R], 6, True, 1, None),  # repaired, which takes a step of its own
    ((3, 0, 0, 0), [W, W, R], 6, True, 1, None),
    ((3, 0, 0, 0), [W, W, W], 5, False, 1, 3),  # both chances missed
    ((0, 0, 0, 3), [R, R, R, W, W], 5, False, 4, 5),  # the answer came first: no tool-call step is at fault
    ((0, 0, 0, 3), [R, R, R, W, R], 6, True, 4, None),
    ((3, 1, 0, 0), [W, R, W], 6, False, 1, 3),  # repaired, then a silent one
]


@pytest.mark.parametrize(("contexts", "actions", "steps", "success", "wrong", "irrecoverable"), RUNS)
def test_the_first_wrong_and_the_first_irrecoverable_step(contexts, actions, steps, success, wrong, irrecoverable):
    of = task(*contexts)
    leaf = run(SMALL, of, actions)
    assert (leaf.depth, leaf.success) == (steps, success)
    assert SMALL.first_wrong(of, leaf) == wrong
    assert SMALL.first_irrecoverable(of, leaf) == irrecoverable


def test_irrecoverable_means_that_no_policy_succeeds():
    of = task(3, 2, 1, 3)
    anyone = [[0.5, 0.5]] * SMALL.rows
    values = SMALL.values(of, anyone)
    for actions in itertools.product((R, W), repeat=9):
        state = State()
        for action in actions:
            assert state.recoverable == (values.get(state, 0) > 0) or state.is_over
            if state.is_over:
                break
            state = SMALL.after(of, state, action)


def test_a_lost_state_looks_like_a_good_one_and_the_others_do_not():
    of = task(1, 2, 3)
    assert SMALL.row(of, State(1)) == SMALL.row(of, State(1, "lost")) == 2
    assert SMALL.row(of, State(1, "broken", 2)) == SMALL.broken_row
    assert SMALL.row(of, State(1, "dead")) == SMALL.dead_row
    assert SMALL.row(of, State(3)) == SMALL.row(of, State(3, "lost")) == SMALL.rows


def test_tasks_are_drawn_by_number_and_traps_fall_where_they_are_told():
    for where in ("early", "late"):
        process = PlantedProcess(where=where, steps_min=6, steps_max=9, tokens_max=3)
        tasks = process.train(seed=0, first=0, n=20)
        assert tasks[5:8] == process.train(seed=0, first=5, n=3)
        for of in tasks:
            trapped = [context >= process.clean for context in of.info["contexts"]]
            third = len(trapped) // 3
            assert 6 <= len(trapped) <= 9 and sum(trapped) == third
            assert all(trapped[:third] if where == "early" else trapped[-third:])
            assert len(of.info["lengths"]) == len(trapped) + 1 and {1, 2, 3}.issuperset(of.info["lengths"])
