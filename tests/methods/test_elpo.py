"""ELPO, equation by equation, on hand-drawn trees and on runs with planted faults."""

import asyncio
import itertools
import math
import random

import pytest
import torch
from plans import Plan, Planted, planted

from firstfault.credit import normalize
from firstfault.localize.bisect import Bisect
from firstfault.localize.search import localize
from firstfault.methods import ELPO, GRPO
from firstfault.methods.elpo import branch_advantages, entropy_gap, step_rewards, trajectory_advantages
from firstfault.planted import tabular
from firstfault.planted.process import PlantedProcess
from firstfault.planted.tabular import TabularPolicy
from firstfault.training.learner import term_batch
from firstfault.training.pack import pack
from firstfault.tree import Node, Probe, Task, Tree, Verdict

# Trees


def grow(shape: list, lengths: int = 1) -> Tree:
    """A tree from nested lists, in which a number is a leaf with that reward.

    Rewards above 0 are successes. Every step has `lengths` action tokens.
    """
    tree = Tree(Task("q", "a"), prompt=[1])
    rollouts = itertools.count()

    def add(parent: Node, shape: list | float, rollout: int) -> None:
        node = tree.add(parent, rollout=rollout, action_tokens=[2] * lengths, logprobs=[-0.5] * lengths)
        if not isinstance(shape, list):
            node.end, node.success, node.reward = "answer", shape > 0, float(shape)
            return
        for i, child in enumerate(shape):
            add(node, child, next(rollouts) if i else rollout)

    for child in shape:
        add(tree.root, child, next(rollouts))
    return tree


def run(*entropies: list[float]) -> Node:
    """A failed run: the entropies of the tokens of each step."""
    tree = Tree(Task("q", "a"), prompt=[1])
    node = tree.root
    for step in entropies:
        node = tree.add(node, rollout=0, action_tokens=[2] * len(step), entropies=list(step))
    node.end, node.success, node.reward = "answer", False, 0.0
    return node


def explored(method: ELPO, process: Planted) -> Planted:
    asyncio.run(method.explore(process.tree, process))
    return process


def searched(process: Planted, tries=lambda step: 1, **options) -> Verdict:
    """A search on the first run of `process`."""

    async def search() -> Verdict:
        [failed] = await process.sample(1)
        [verdict] = await localize({failed: Bisect(failed.depth - 1, tries, **options)}, process)
        return verdict

    return asyncio.run(search())


def below(node: Node) -> set[Node]:
    return {node}.union(*map(below, node.children))


# Eqs. 3 and 4: the suspect

GAPS = [
    ([[1.0, 3.0], [5.0]], 3.0),
    ([[2.0], [1.0]], -1.0),
    # the mean is over tokens, not over steps
    ([[0.0], [4.0, 4.0, 4.0], [0.0]], 3.0),
    ([[1.0]], -math.inf),
]


@pytest.mark.parametrize(("entropies", "gap"), GAPS)
def test_the_entropy_gap_is_that_of_tokens_after_tool_outputs_over_the_first_response(entropies, gap):
    assert entropy_gap(run(*entropies)) == gap


def test_the_failure_with_the_widest_gap_is_searched():
    plans = [
        Plan(4, fault=2, entropies=[1.0, 2.0, 1.0, 1.0, 1.0]),  # gap .25
        Plan(4, fault=3, entropies=[0.5, 1.0, 1.0, 1.0, 1.0]),  # gap .5
        Plan(4, fault=1, entropies=[3.0, 3.0, 3.0, 3.0, 3.0]),  # gap 0, though the highest entropy
    ]
    process = explored(ELPO(rollouts=12, failures=3), planted(12, plans))
    assert process.tree.verdicts[0].leaf == process.tree.leaves[1].index
    assert process.tree.verdicts[0].step == 3


def test_one_failure_of_each_buffer_is_searched_and_the_others_are_forgotten():
    process = explored(ELPO(rollouts=16, failures=2, tries_max=1), planted(16, [Plan(1, fault=1)]))
    runs = [leaf.index for leaf in process.tree.leaves if leaf.anchor is process.tree.root]
    assert [verdict.leaf for verdict in process.tree.verdicts] == runs[::2]


def test_a_run_without_a_tool_call_is_searched_only_if_there_is_no_other():
    alone, other = Plan(0, fault=1), Plan(2, fault=2, entropies=[9.0, 0.0, 0.0])
    process = explored(ELPO(rollouts=8), planted(8, [alone, other, alone]))
    assert process.tree.verdicts[0].leaf == process.tree.leaves[1].index
    process = explored(ELPO(rollouts=3), planted(3, [alone]))
    [verdict] = process.tree.verdicts
    assert (verdict.steps, verdict.step, verdict.finished, verdict.probes) == (0, 1, False, [])
    ELPO().credit([process.tree])
    assert not verdict.marked


# Eq. 5: completions per anchor

TRIES = [
    # gap, options, tries
    (0.0, {}, 2),
    (+0.2, {}, 2),  # 1 + 2 σ(1) = 2.46
    (-0.2, {}, 2),  # 1.54
    (+0.25, {}, 3),  # 2.55
    (-0.25, {}, 1),  # 1.45
    (0.0, {"tries_max": 2}, 2),  # 1.5: half is rounded up
    (0.0, {"tries_max": 4}, 3),  # 2.5
    (0.5, {"beta": 0.0}, 2),
    (0.5, {"beta": -5.0}, 1),
    (0.5, {"tries_min": 2, "tries_max": 2}, 2),
    (1e3, {}, 3),
    (-1e3, {}, 1),
    (1e300, {"beta": 1e9}, 3),
    (-1e300, {"beta": 1e9}, 1),
]


@pytest.mark.parametrize(("gap", "options", "tries"), TRIES)
def test_tries_grow_with_the_gap_and_are_rounded_half_up(gap, options, tries):
    assert ELPO(**options).tries([[0.0], [gap], [0.0]], 1) == tries


def test_tries_keep_to_their_bounds():
    for gap in range(-30, 31):
        tries = [ELPO(tries_min=2, tries_max=5, beta=beta).tries([[0.0], [gap / 10]], 1) for beta in (1, 5, 50)]
        assert all(2 <= n <= 5 for n in tries)


def test_the_gap_of_an_anchor_is_that_of_the_response_right_after_it():
    entropies = [[0.0], [1.0, 1.0], [-1.0], [1.0]]
    assert [ELPO().tries(entropies, step) for step in (1, 2, 3)] == [3, 1, 3]


def test_bounds_in_the_wrong_order_are_refused():
    with pytest.raises(ValueError, match="tries_min = 4 exceeds tries_max = 3"):
        ELPO(tries_min=4)


# Algorithm 1: the search


def anchors(steps: int, fault: int, verified: bool) -> list[int]:
    """Where Algorithm 1 looks, of a fault that every probe shows truly."""
    left, right, looked = 1, steps, []
    while left <= right if verified else left < right:
        middle = (left + right) // 2
        looked.append(middle)
        if middle < fault:
            left = middle + 1
        else:
            right = middle - 1 if verified else middle
    return looked


@pytest.mark.parametrize("verified", [False, True])
@pytest.mark.parametrize("steps", range(1, 13))
def test_a_search_with_true_probes_finds_every_planted_fault(steps, verified):
    for fault in range(1, steps + 1):
        process = planted(40, [Plan(steps, fault)])
        verdict = searched(process, tries=lambda step: 2, verified=verified)
        looked = anchors(steps, fault, verified)
        assert (verdict.step, verdict.steps, verdict.finished) == (fault, steps, bool(looked))
        assert verdict.probes == [Probe(m, 2, 2 * (m < fault)) for m in looked]
        assert process.requests == [(0, 1)] + [(m, 2) for m in looked]


SEARCHES = [
    # steps, fault, anchors as printed, anchors verified
    (1, 1, [], [1]),
    (2, 1, [1], [1]),
    (2, 2, [1], [1, 2]),
    (8, 1, [4, 2, 1], [4, 2, 1]),
    (8, 3, [4, 2, 3], [4, 2, 3]),
    (8, 5, [4, 6, 5], [4, 6, 5]),
    (8, 8, [4, 6, 7], [4, 6, 7, 8]),
]


@pytest.mark.parametrize(("steps", "fault", "printed", "verified"), SEARCHES)
def test_the_order_of_the_anchors(steps, fault, printed, verified):
    assert [p.step for p in searched(planted(20, [Plan(steps, fault)])).probes] == printed
    assert [p.step for p in searched(planted(20, [Plan(steps, fault)]), verified=True).probes] == verified


@pytest.mark.parametrize("steps", range(1, 13))
def test_only_the_verified_search_can_say_that_no_step_is_irrecoverable(steps):
    fault_in_the_answer = Plan(steps, steps + 1)
    assert searched(planted(40, [fault_in_the_answer]), verified=True).step == steps + 1
    assert searched(planted(40, [fault_in_the_answer])).step == steps


def test_probes_hang_below_the_step_that_they_test():
    process = planted(20, [Plan(4, 3)])
    verdict = searched(process, tries=lambda step: 2)
    failed = process.tree.nodes[verdict.leaf]
    probes = [leaf for leaf in process.tree.leaves if leaf is not failed]
    assert [leaf.anchor for leaf in probes] == [failed.steps[1]] * 2 + [failed.steps[2]] * 2
    assert [leaf.success for leaf in probes] == [True, True, False, False]


def test_one_success_among_the_probes_is_enough():
    outcomes = iter([False, True, False, False, False])
    process = planted(20, [Plan(4, 5)], recovers=lambda step: next(outcomes))
    verdict = searched(process, tries=lambda step: 2)
    assert verdict.probes == [Probe(2, 2, 1), Probe(3, 2, 0)]
    assert verdict.step == 3


# bisect_cost


@pytest.mark.parametrize("verified", [False, True])
@pytest.mark.parametrize("steps", range(0, 7))
def test_the_cost_of_a_search_is_that_of_its_worst_outcome(steps, verified):
    draw = random.Random(steps)
    for _ in range(3):
        counts = [draw.randint(1, 4) for _ in range(steps + 1)]
        spent = []
        for outcomes in itertools.product([False, True], repeat=steps):
            process = planted(100, [Plan(steps, steps + 1)], recovers=lambda step, table=outcomes: table[step - 1])
            searched(process, tries=counts.__getitem__, verified=verified)
            spent.append(process.spent - 1)
        assert Bisect(steps, counts.__getitem__, verified=verified).cost == max(spent)


# Algorithm 1: the budget


def random_plans(draw: random.Random) -> list[Plan]:
    plans = []
    for _ in range(7):
        steps = draw.randint(0, 6)
        entropies = [draw.uniform(0, 2) for _ in range(steps + 1)]
        plans.append(Plan(steps, draw.choice([None, draw.randint(1, steps + 1)]), entropies))
    return plans


OPTIONS = [
    {},
    {"literal": True},
    {"search": "verified"},
    {"search": "verified", "literal": True},
    {"failures": 1},
    {"failures": 6, "tries_min": 3, "tries_max": 3},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_the_whole_budget_is_used_and_every_completion_counts(options):
    draw = random.Random(0)
    for budget in range(1, 25):
        method = ELPO(rollouts=budget, **options)
        process = planted(budget, random_plans(draw), recovers=lambda step: draw.random() < 0.4)
        explored(method, process)
        assert process.remaining == 0
        assert len(process.tree.leaves) == budget


def algorithm_1(process: Planted, method: ELPO) -> list[tuple[int, int]]:
    """Algorithm 1 as it is printed, one completion at a time: the failed runs and their critical steps."""
    verdicts, rollouts, n_total = [], 0, process.budget

    def sample(node: Node) -> Node:
        [leaf] = asyncio.run(process.continue_from(node, 1))
        return leaf

    while rollouts < n_total:
        buffer = []
        while len(buffer) < method.failures and rollouts < n_total:
            leaf = sample(process.tree.root)
            rollouts += 1
            if not leaf.success:
                buffer.append(leaf)
        if not buffer:
            break
        worst = max(buffer, key=entropy_gap)
        steps = len(worst.steps) - 1
        left, right = 1, steps
        while left < right and rollouts < n_total:
            middle = (left + right) // 2
            successes = 0
            for _ in range(method.tries([s.entropies for s in worst.steps], middle)):
                if rollouts < n_total:
                    successes += sample(worst.steps[middle - 1]).success
                    rollouts += 1
            if successes:
                left = middle + 1
            else:
                right = middle
        verdicts.append((worst.index, left))
    return verdicts


def test_literal_exploration_is_algorithm_1():
    """Asking side by side for what must follow anyway changes neither the completions nor the verdicts."""
    for seed in range(40):
        draw = random.Random(seed)
        budget, plans = draw.randint(1, 30), random_plans(draw)
        method = ELPO(rollouts=budget, literal=True, failures=draw.randint(1, 4))

        def process(seed=seed, budget=budget, plans=plans) -> Planted:
            luck = random.Random(seed)
            return planted(budget, plans, recovers=lambda step: luck.random() < 0.5)

        ours, printed = explored(method, process()), process()
        assert [(v.leaf, v.step) for v in ours.tree.verdicts] == algorithm_1(printed, method)
        ours.tree.verdicts.clear()
        assert ours.tree == printed.tree


REQUESTS = [
    # failures wanted, whole runs (F failed, S succeeded), budget, asked for
    (3, "FFF", 3, [3]),
    (3, "SFF" + "F", 4, [3, 1]),
    (3, "SSF" + "SF" + "F", 6, [3, 2, 1]),
    (3, "SSS" + "SSS" + "SS", 8, [3, 3, 2]),
    (1, "SSS", 3, [1, 1, 1]),
    (4, "SFF", 3, [3]),
]


@pytest.mark.parametrize(("failures", "outcomes", "budget", "asked"), REQUESTS)
def test_as_many_whole_runs_are_asked_for_as_must_follow_anyway(failures, outcomes, budget, asked):
    plans = [Plan(3, 1 if outcome == "F" else None) for outcome in outcomes]
    process = explored(ELPO(rollouts=budget, failures=failures), planted(budget, plans))
    assert [n for depth, n in process.requests if n] == asked
    assert all(depth == 0 for depth, n in process.requests)


def test_without_failures_all_rollouts_are_whole():
    process = explored(ELPO(rollouts=16), planted(16, [Plan(3)]))
    assert not process.tree.verdicts
    assert all(leaf.anchor is process.tree.root for leaf in process.tree.leaves)


@pytest.mark.parametrize(("budget", "begins"), [(8, False), (9, True)])
def test_a_search_that_cannot_be_finished_is_not_begun_unless_literal(budget, begins):
    """8 steps, 2 tries at each anchor: a search takes at most 6 rollouts, after the 3 that find a failure."""
    plans = [Plan(8, 3)]
    process = explored(ELPO(rollouts=budget), planted(budget, plans))
    assert bool(process.tree.verdicts) == begins
    assert any(depth for depth, n in process.requests) == begins
    assert process.remaining == 0
    literal = explored(ELPO(rollouts=budget, literal=True), planted(budget, plans))
    [verdict] = literal.tree.verdicts
    assert verdict.finished == begins
    assert sum(probe.tries for probe in verdict.probes) == budget - 3


def test_a_search_whose_last_anchor_got_fewer_tries_than_it_asked_for_is_not_finished():
    """Anchors 4, 2, 3, of which the last asks for 3 tries; a success is a success, however few were tried."""

    def search(budget: int, fault: int) -> Verdict:
        return searched(planted(budget, [Plan(4, fault)]), tries=lambda step: 3)

    assert [p.tries for p in search(7, 4).probes] == [3, 3]
    assert search(7, 3).finished and search(7, 4).finished
    assert [p.tries for p in search(6, 3).probes] == [3, 2]
    assert not search(6, 3).finished and search(6, 3).step == 3
    assert search(6, 4).finished and search(6, 4).step == 4


# Which verdicts are believed


def marked(tree: Tree) -> list[Node]:
    return [node for node in tree.nodes if node.critical]


def test_the_step_that_a_search_found_is_marked():
    process = explored(ELPO(rollouts=9), planted(9, [Plan(8, 3)]))
    ELPO().credit([process.tree])
    [verdict] = process.tree.verdicts
    assert verdict.marked
    assert marked(process.tree) == [process.tree.nodes[verdict.leaf].steps[2]]


def test_a_search_that_was_cut_off_marks_nothing_unless_literal():
    tree = explored(ELPO(rollouts=6, literal=True), planted(6, [Plan(8, 6)])).tree
    [verdict] = tree.verdicts
    assert (verdict.finished, verdict.probes) == (False, [Probe(4, 2, 2), Probe(6, 1, 0)])
    ELPO().credit([tree])
    assert not verdict.marked and not marked(tree)
    ELPO(literal=True).credit([tree])
    assert verdict.marked and marked(tree) == [tree.nodes[verdict.leaf].steps[4]]  # L = 5, as far as it came


def test_an_anchor_that_was_cut_short_is_remembered_while_the_answer_rests_on_it():
    for tries, finished in ((3, True), (1, False)):
        search = Bisect(4, lambda step: 3)
        assert search.ask(20) == (2, 3)
        search.tell(2, [False] * tries)
        assert search.ask(20) == (1, 3)
        search.tell(1, [True])
        assert (search.verdict().step, search.verdict().finished) == (2, finished)


def test_a_tree_without_a_success_marks_nothing_unless_literal():
    """Without a success anywhere, every search ends at step 1, whatever the truth."""
    tree = explored(ELPO(rollouts=9), planted(9, [Plan(8, 5)], recovers=lambda step: False)).tree
    [verdict] = tree.verdicts
    assert (verdict.finished, verdict.step) == (True, 1)
    ELPO().credit([tree])
    assert not verdict.marked and not marked(tree)
    ELPO(literal=True).credit([tree])
    assert verdict.marked and marked(tree) == [tree.nodes[verdict.leaf].steps[0]]


def test_a_whole_run_that_succeeded_is_evidence_that_step_1_lost_what_could_be_won():
    tree = explored(ELPO(rollouts=10), planted(10, [*[Plan(8, 1)] * 3, Plan(8)])).tree
    [verdict] = tree.verdicts
    assert not any(probe.successes for probe in verdict.probes)
    ELPO().credit([tree])
    assert verdict.marked and marked(tree) == [tree.nodes[verdict.leaf].steps[0]]


def test_a_verdict_that_no_step_is_irrecoverable_marks_nothing():
    tree = explored(ELPO(rollouts=11, search="verified"), planted(11, [Plan(4, 5)])).tree
    assert tree.verdicts[0].step == 5 and tree.verdicts[0].steps == 4
    for literal in (False, True):
        ELPO(search="verified", literal=literal).credit([tree])
        assert not tree.verdicts[0].marked and not marked(tree)


# Ablations


def test_without_a_search_probes_stand_anywhere_and_nothing_is_marked():
    asked = set()
    for seed in range(60):
        process = PlantedProcess()
        [tree] = tabular.grow(
            ELPO(rollouts=12, search="random", failures=1, tries_min=2, tries_max=2),
            process,
            TabularPolicy.first(process),
            process.train(seed=seed, first=0, n=1),
            key=(seed,),
        )
        ELPO(search="random").credit([tree])
        assert not marked(tree) and len(tree.leaves) <= 12
        for verdict in tree.verdicts:
            steps = [probe.step for probe in verdict.probes]
            assert len(set(steps)) == len(steps) == math.ceil(math.log2(verdict.steps))
            assert all(probe.tries == 2 and 1 <= probe.step <= verdict.steps for probe in verdict.probes)
            assert (verdict.finished, verdict.step) == (False, verdict.steps + 1)
            asked.update((verdict.steps, step) for step in steps)
    longest = max(steps for steps, _ in asked)
    assert {step for steps, step in asked if steps == longest} == set(range(1, longest + 1))


def test_the_run_to_search_is_chosen_by_entropy_or_by_chance():
    plans = [Plan(4, 2, entropies=[0.1, h, h, h, h]) for h in (0.2, 0.9, 0.4)]
    chosen = set()
    for key in range(20):
        for choice in ("entropy", "random"):
            process = planted(7, plans)
            process.tree.key = (key,)
            tree = explored(ELPO(rollouts=7, choice=choice, beta=0.0), process).tree
            chosen.add((choice, tree.nodes[tree.verdicts[0].leaf].rollout))
    assert chosen == {("entropy", 1), ("random", 0), ("random", 1), ("random", 2)}


# Eqs. 6 to 10: advantages

#   root ─ a ─ b ─ c1 (1)
#          │     └ c2 (0)
#          └ d (0)
#        ─ e ─ f (0)
BRANCHED = [[[1, 0], 0], [0]]


def test_a_steps_reward_is_the_mean_over_its_children_not_over_its_leaves():
    tree = grow(BRANCHED)
    rewards = step_rewards(tree)
    root, a, b, c1, c2, d, e, f = tree.nodes
    assert [rewards[node] for node in (c1, c2, b, d, a, f, e, root)] == [1, 0, 0.5, 0, 0.25, 0, 0, 0.125]


def test_branch_advantages_are_z_scores_among_siblings_and_inherited_by_an_only_child():
    tree = grow(BRANCHED)
    root, a, b, c1, c2, d, e, f = tree.nodes
    advantages = branch_advantages(tree)
    for siblings, rewards in [((a, e), (0.25, 0)), ((b, d), (0.5, 0)), ((c1, c2), (1, 0))]:
        assert [advantages[node] for node in siblings] == normalize(rewards)
    assert advantages[f] == advantages[e]
    assert advantages[root] == 0


def test_standard_deviations_are_the_populations():
    """Of 1, 0, 0, 0 that is √3/4; the sample's would be 1/2."""
    tree = grow([1, 0, 0, 0])
    z = [math.sqrt(3), *[-1 / math.sqrt(3)] * 3]
    assert [branch_advantages(tree)[leaf] for leaf in tree.leaves] == pytest.approx(z, abs=1e-4)
    assert [trajectory_advantages(tree)[leaf] for leaf in tree.leaves] == pytest.approx(z, abs=1e-4)


def test_siblings_that_score_alike_get_zero_and_inherit_nothing():
    tree = grow([[[0, 0]], 1])
    _, a, b, c1, c2, _ = tree.nodes
    advantages = branch_advantages(tree)
    assert advantages[a] == advantages[b] == pytest.approx(-1, abs=1e-4)
    assert advantages[c1] == advantages[c2] == 0
    tree = grow([[[0, 0.3, 0.6]], 0.3])  # siblings alike on the mean of what is below them
    assert [branch_advantages(tree)[node] for node in tree.root.children] == [0, 0]


def test_a_linear_segment_shares_one_advantage():
    tree = grow([[[[[1]]]], [[[0]]]])
    advantages = branch_advantages(tree)
    for child, value in zip(tree.root.children, (1, -1), strict=True):
        assert [advantages[node] for node in child.subtree] == pytest.approx([value] * len(child.subtree), abs=1e-4)


def test_a_single_run_has_no_advantage():
    tree = grow([[[1]]])
    assert set(branch_advantages(tree).values()) == set(trajectory_advantages(tree).values()) == {0.0}


def test_trajectory_advantages_are_z_scores_over_all_leaves_and_their_mean_below_a_step():
    tree = grow(BRANCHED)
    root, a, b, c1, c2, d, e, f = tree.nodes
    advantages = trajectory_advantages(tree)
    won, lost = math.sqrt(3), -1 / math.sqrt(3)  # rewards 1, 0, 0, 0
    assert [advantages[node] for node in (c1, c2, d, f)] == pytest.approx([won, lost, lost, lost], abs=1e-4)
    assert advantages[b] == pytest.approx((won + lost) / 2, abs=1e-4)
    assert advantages[a] == pytest.approx((won + 2 * lost) / 3, abs=1e-4)
    assert advantages[e] == advantages[f]
    assert advantages[root] == pytest.approx(0)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_lambda_weighs_branches_against_trajectories(share):
    tree = grow(BRANCHED)
    ELPO(lambda_tree=share).credit([tree])
    branch, trajectory = branch_advantages(tree), trajectory_advantages(tree)
    for node in tree.steps:
        [term] = node.terms
        assert term.advantage == pytest.approx(share * branch[node] + (1 - share) * trajectory[node])
    assert not tree.root.terms


def test_success_steers_the_search_and_reward_feeds_the_advantages():
    """Failures that score -1.1 and successes that score 1, as in the paper's example."""
    searches = [explored(ELPO(rollouts=9), planted(9, [Plan(8, 3)], rewards=r)) for r in [(0, 1), (-1.1, 1.0), (5, 2)]]
    assert [process.tree.verdicts for process in searches] == [searches[0].tree.verdicts] * 3
    plain, negative, upside_down = (process.tree for process in searches)
    for tree in (plain, negative, upside_down):
        ELPO().credit([tree])
    advantages = [[node.advantage for node in tree.steps] for tree in (plain, negative, upside_down)]
    assert advantages[1] == pytest.approx(advantages[0], abs=1e-4)  # z-scores don't see scale and origin
    assert advantages[2] == pytest.approx([-a for a in advantages[0]], abs=1e-4)


def test_rewards_of_steps_take_failures_as_they_are_scored():
    tree = grow([[[-1.1, 1.0], -1.1], -1.1])
    root, a, b, *_ = tree.nodes
    rewards = step_rewards(tree)
    assert rewards[b] == pytest.approx(-0.05)
    assert rewards[a] == pytest.approx(-0.575)
    assert rewards[root] == pytest.approx(-0.8375)


def test_runs_that_score_alike_teach_nothing_even_if_they_branch():
    for reward in (0, 0.1):
        tree = grow([[[reward] * 3, reward], reward])
        ELPO().credit([tree])
        assert not tree.has_gradient


# Eq. 11: clip bounds


def test_the_lower_bound_is_wider_on_the_critical_step_and_all_below_it_only():
    tree = grow([[[[0], 0], 1], [0]])
    _, _, b, c, lost, probe_lost, _, _, _ = tree.nodes
    tree.verdicts = [Verdict(leaf=lost.index, steps=3, step=2, finished=True, probes=[Probe(1, 1, 1), Probe(2, 1, 0)])]
    method = ELPO(clip_low=0.1, clip_high=0.3, clip_low_extra=0.05)
    method.credit([tree])
    wide = {node for node in tree.steps if node.terms[0].clip_low == pytest.approx(0.15)}
    assert wide == below(b) == {b, c, lost, probe_lost}
    for node in tree.steps:
        assert node.terms[0].clip_high == 0.3
        assert node in wide or node.terms[0].clip_low == 0.1
    assert marked(tree) == [b]


def test_two_searches_widen_below_both_of_their_steps_once():
    tree = grow([[[[0], 0], 1], [[0]]])
    _, _, b, c, lost, _, _, d, _, other = tree.nodes
    probes = [Probe(1, 1, 1)]
    tree.verdicts = [
        Verdict(leaf=lost.index, steps=3, step=2, finished=True, probes=probes),
        Verdict(leaf=lost.index, steps=3, step=3, finished=True, probes=probes),
        Verdict(leaf=other.index, steps=2, step=1, finished=True, probes=[Probe(1, 2, 0)]),
    ]
    ELPO().credit([tree])
    assert marked(tree) == [b, c, d]
    wide = {node for node in tree.steps if node.terms[0].clip_low == pytest.approx(0.315)}
    assert wide == below(b) | below(d)


def test_a_search_without_a_probe_of_its_own_marks_nothing_unless_literal():
    for literal in (False, True):
        tree = grow([[[0], 1], [[0]]])
        lost, other = (leaf for leaf in tree.leaves if not leaf.success)
        tree.verdicts = [
            Verdict(leaf=lost.index, steps=2, step=2, finished=True, probes=[Probe(1, 1, 1)]),
            Verdict(leaf=other.index, steps=1, step=1, finished=False),
        ]
        ELPO(literal=literal).credit([tree])
        assert [verdict.marked for verdict in tree.verdicts] == [True, literal]


# Weights: what a shared step counts


@pytest.mark.parametrize(
    ("aggregation", "shared", "weights"),
    [
        ("token", "per-leaf", [3, 2, 1, 1, 1, 1, 1]),
        ("token", "once", [1, 1, 1, 1, 1, 1, 1]),
        # runs of 3, 3, 2 and 2 steps, of 2 tokens each
        ("sequence", "per-leaf", [1 / 6 + 1 / 6 + 1 / 4, 1 / 3, 1 / 6, 1 / 6, 1 / 4, 1 / 4, 1 / 4]),
        ("sequence", "once", [(1 / 6 + 1 / 6 + 1 / 4) / 3, 1 / 6, 1 / 6, 1 / 6, 1 / 4, 1 / 4, 1 / 4]),
    ],
)
def test_a_shared_step_counts_once_per_run_or_once(aggregation, shared, weights):
    tree = grow(BRANCHED, lengths=2)
    ELPO(aggregation=aggregation, shared=shared).credit([tree])
    assert [node.terms[0].weight for node in tree.steps] == pytest.approx(weights)


def test_per_leaf_weights_add_up_to_what_the_flattened_runs_would():
    tree = grow(BRANCHED, lengths=3)
    ELPO(aggregation="sequence").credit([tree])
    assert sum(node.terms[0].weight * len(node.action_tokens) for node in tree.steps) == pytest.approx(4)
    ELPO(aggregation="token").credit([tree])
    assert sum(node.terms[0].weight * len(node.action_tokens) for node in tree.steps) == 3 * (3 + 3 + 2 + 2)


# Against GRPO


def loss(method, tree: Tree, shift: float) -> torch.Tensor:
    """The loss of a policy whose log-probabilities are about `shift` away from the sampler's, and its gradient."""
    for node in tree.nodes:
        node.terms = []
    method.credit([tree])
    packed = pack([tree])
    noise = torch.rand(len(packed.targets), generator=torch.Generator().manual_seed(0))
    logprobs = (packed.old_logprobs + shift * (noise - 0.5)).requires_grad_()
    total = sum(term.weight * len(node.action_tokens) for node in tree.nodes for term in node.terms)
    value = method.loss(term_batch(packed, logprobs, total))
    value.backward()
    return torch.cat([value.detach()[None], logprobs.grad])


@pytest.mark.parametrize("aggregation", ["sequence", "token"])
@pytest.mark.parametrize("shift", [0.0, 0.3, 2.0])
def test_without_branches_and_without_wider_clipping_elpo_is_grpo(aggregation, shift):
    tree = grow([[1], [[0]], [[[1]]], 0, [0]], lengths=3)
    clip = {"clip_low": 0.2, "clip_high": 0.315, "aggregation": aggregation}
    elpo = loss(ELPO(lambda_tree=0, clip_low_extra=0, **clip), tree, shift)
    grpo = loss(GRPO(**clip), tree, shift)
    torch.testing.assert_close(elpo, grpo)
    assert grpo.abs().sum() > 0


def test_a_term_per_step_is_a_term_per_run_as_long_as_nothing_is_clipped():
    tree = grow(BRANCHED, lengths=2)
    elpo = loss(ELPO(lambda_tree=0, clip_low_extra=0, aggregation="token"), tree, shift=0.1)
    grpo = loss(GRPO(aggregation="token"), tree, shift=0.1)
    torch.testing.assert_close(elpo, grpo)
    clipped = [loss(method, tree, shift=3.0) for method in (ELPO(lambda_tree=0, aggregation="token"), GRPO())]
    assert not torch.allclose(*clipped)


def test_the_wider_bound_goes_on_pushing_down_a_lost_suffix():
    """A token of a lost run whose ratio fell to .75: cut off at a lower bound of .8, not at .685."""
    tree = grow([[0, 1]])
    _, _, lost, _ = tree.nodes
    tree.verdicts = [Verdict(leaf=lost.index, steps=1, step=1, finished=True, probes=[Probe(1, 1, 1)])]

    def gradient(method: ELPO) -> float:
        method.credit([tree])
        packed = pack([tree])
        logprobs = (packed.old_logprobs + math.log(0.75)).requires_grad_()
        method.loss(term_batch(packed, logprobs, 1.0)).backward()
        return logprobs.grad[1].item()  # of the lost leaf

    assert gradient(ELPO()) > 0
    assert gradient(ELPO(clip_low_extra=0)) == 0


# A search with a posterior


def test_the_posterior_searches_runs_side_by_side_and_weighs_the_clip_by_its_doubt():
    process = planted(40, [Plan(6, 3), Plan(6, 4)], recovers=lambda step: True)
    tree = explored(ELPO(rollouts=40, search="posterior", failures=2), process).tree
    first = tree.verdicts[:2]
    assert [verdict.step for verdict in first] == [3, 4]
    rounds = process.requests[2:6]
    assert [n for _, n in rounds] == [1, 1, 1, 1]  # a try each, in turn
    method = ELPO(search="posterior", clip_low_extra=0.1)
    method.credit([tree])
    for verdict in first:
        run = tree.nodes[verdict.leaf].steps
        assert verdict.marked and run[verdict.step - 1].critical
        for step, weight in zip(run, verdict.weights, strict=False):
            assert step.terms[0].clip_low == pytest.approx(0.2 + 0.1 * weight)
        assert run[-1].terms[0].clip_low == pytest.approx(0.2 + 0.1 * verdict.weights[-1])  # the answer
        assert 0 < verdict.weights[0] < 0.1 and verdict.weights[verdict.step - 1] > 0.8


@pytest.mark.parametrize(
    ("probability", "marked", "critical"), [(0.4, False, False), (0.6, True, False), (0.8, True, True)]
)
def test_how_sure_a_posterior_must_be(probability, marked, critical):
    tree = explored(ELPO(rollouts=9), planted(9, [Plan(8, 5)])).tree
    [verdict] = tree.verdicts
    verdict.probability, verdict.finished = probability, probability >= 0.5
    ELPO().credit([tree])
    assert verdict.marked == marked
    assert any(node.critical for node in tree.nodes) == critical
    assert any(node.terms[0].clip_low > 0.2 for node in tree.steps) == marked
