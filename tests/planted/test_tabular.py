"""The tabular policy: trees as the agent's, gradients against the truth, searches and learning on planted mistakes."""

import asyncio
import itertools
from collections import Counter
from functools import partial

import pytest
import torch

from firstfault.localize.bisect import Bisect
from firstfault.localize.search import localize
from firstfault.methods import ELPO, GRPO, METHODS, Method, VinePPO
from firstfault.methods.base import Clipped
from firstfault.planted.process import FIRST_ROW, PlantedProcess, State, Trap, traps
from firstfault.planted.quality import choices, cosine, judge, learn, localization, probes, signal_to_noise
from firstfault.planted.tabular import (
    TabularPolicy,
    TabularRollouts,
    credit,
    exact_gradient,
    gradients,
    grow,
    success_probability,
)
from firstfault.tree import Probe, Task, Tree, Verdict

BUDGET = 16
ALL = [method(rollouts=BUDGET) for method in METHODS.values()]


def rollouts(process: PlantedProcess, budget: int, policy: TabularPolicy | None = None, key=(0,)) -> TabularRollouts:
    [task] = process.train(seed=0, first=0, n=1)
    tree = Tree(task, [FIRST_ROW + process.row(task, State())], key=key)
    return TabularRollouts(process, policy or TabularPolicy.first(process), tree, budget)


def grown(method: Method, process: PlantedProcess, n: int) -> list[Tree]:
    trees = grow(method, process, TabularPolicy.first(process), process.train(seed=0, first=0, n=n), key=(0,))
    credit(method, trees, process, TabularPolicy.first(process))
    return trees


# Trees


@pytest.mark.parametrize("mistake", ["silent", "dead end", "recoverable"])
def test_the_tree_holds_what_the_policy_saw_and_how_likely_it_acted(mistake):
    process = PlantedProcess(traps=traps(mistake), tokens_max=3)
    policy = TabularPolicy.first(process)
    for tree in grown(ELPO(), process, n=10):
        for node in tree.steps:
            states = process.states(tree.task, node)
            row = process.row(tree.task, states[-2])
            assert node.parent.observation_tokens == [FIRST_ROW + row]
            action, *filler = node.action_tokens
            assert len(filler) < 3
            expected = policy.logprobs[row][action] if row < process.rows else 0.0
            assert node.logprobs == [expected] + [0.0] * len(filler)
            assert node.is_leaf == states[-1].is_over
            if node.is_leaf:
                assert node.success == (states[-1].phase == "won") == (node.reward == 1)
        assert Tree.from_json(tree.to_json()) == tree


def test_equal_keys_give_equal_trees_whatever_the_order_of_requests():
    process = PlantedProcess()

    def tree(key: tuple[int, ...], sizes: list[int]) -> Tree:
        handle = rollouts(process, budget=8, key=key)
        for n in sizes:
            asyncio.run(handle.sample(n))
        return handle.tree

    assert tree((3, 4), [8]) == tree((3, 4), [1, 5, 2])
    assert tree((3, 4), [8]) != tree((3, 5), [8])
    assert grown(ELPO(), process, n=3) == grown(ELPO(), process, n=3)
    assert grown(ELPO(), process, n=3)[1] == grown(ELPO(), process, n=2)[1]


def test_the_budget_is_kept_to():
    handle = rollouts(PlantedProcess(), budget=3)
    leaves = asyncio.run(handle.sample(2))
    assert (handle.spent, handle.remaining) == (2, 1)
    with pytest.raises(ValueError, match="asked for 2 of 1"):
        asyncio.run(handle.sample(2))
    with pytest.raises(ValueError, match="after answer"):
        asyncio.run(handle.continue_from(leaves[0]))


@pytest.mark.parametrize(("entropy", "change"), [("own", None), ("raised", 0.5), ("zero", 0.0)])
def test_what_entropies_say_after_the_first_mistake(entropy, change):
    process = PlantedProcess(entropy=entropy)
    policy = TabularPolicy.first(process)
    for tree in grown(GRPO(), process, n=5):
        for leaf in tree.leaves:
            wrong = process.first_wrong(tree.task, leaf) or 99
            for step in leaf.steps:
                row = step.parent.observation_tokens[0] - FIRST_ROW
                own = policy.entropies[row] if row < process.rows else 0.0
                expected = own if step.depth <= wrong or entropy == "own" else change + own * (entropy == "raised")
                assert step.entropies == pytest.approx([expected])


# Gradients


def test_the_exact_gradient_is_that_of_finite_differences():
    process = PlantedProcess(
        clean=1, traps=(Trap(0.3), Trap(0.4, "dead end"), Trap(0.6, "recoverable")), steps_min=3, steps_max=5
    )
    tasks, policy = process.train(seed=0, first=0, n=5), TabularPolicy.first(process)
    exact = exact_gradient(process, tasks, policy)
    success = partial(success_probability, process, tasks)
    for index in range(policy.logits.numel()):
        step = torch.zeros_like(policy.logits)
        step.view(-1)[index] = 1e-5
        above, below = (success(TabularPolicy(policy.logits + sign * step)) for sign in (1, -1))
        assert exact.view(-1)[index].item() == pytest.approx((above - below) / 2e-5, abs=1e-9)
    assert exact.abs().sum() > 0


def test_a_gradient_by_hand():
    """One trap, two runs: right and won, wrong and lost. Each has one decision and an answer, of one token each."""
    process = PlantedProcess(clean=0, traps=(Trap(0.25),), steps_min=1, steps_max=1)
    tree = Tree(Task("", "", info={"contexts": [0], "lengths": [1, 1]}), prompt=[FIRST_ROW])
    policy = TabularPolicy.first(process)
    for action, success in [(0, True), (1, False)]:
        step = tree.add(tree.root, rollout=action, action_tokens=[action], logprobs=[policy.logprobs[0][action]],
                        observation_tokens=[FIRST_ROW + process.rows])  # fmt: skip
        tree.add(step, rollout=action, action_tokens=[0], logprobs=[0.0], end="answer", success=success,
                 reward=float(success))  # fmt: skip
    GRPO().credit([tree])
    # weights 1/2, total 2; advantages 1 and -1; ∂ ln π / ∂ logits: (.25, -.25) of right, (-.75, .75) of wrong
    expected = torch.zeros(1, process.rows, 2, dtype=torch.float64)
    expected[0, 0] = torch.tensor([0.25 + 0.75, -0.25 - 0.75]) / 4
    torch.testing.assert_close(gradients(GRPO(), [tree], policy.logits), expected, atol=1e-5, rtol=0)


def test_what_the_clip_cuts_off_by_hand():
    """Two runs of one decision and an answer, of a policy that was right with .75 and now is with .99."""
    process = PlantedProcess(clean=0, traps=(Trap(0.25),), steps_min=1, steps_max=1)
    method = GRPO(clip_low=0.2, clip_high=0.315)
    tree = Tree(Task("", "", info={"contexts": [0], "lengths": [1, 1]}), prompt=[FIRST_ROW])
    for action, success in [(0, True), (1, False)]:
        step = tree.add(tree.root, rollout=action, action_tokens=[action],
                        logprobs=[TabularPolicy.first(process).logprobs[0][action]],
                        observation_tokens=[FIRST_ROW + process.rows])  # fmt: skip
        tree.add(step, rollout=action, action_tokens=[0], logprobs=[0.0], end="answer", success=success,
                 reward=float(success))  # fmt: skip
    tree.root.children[1].critical = True
    method.credit([tree])
    logits, sums = torch.tensor([[0.99, 0.01], [0.5, 0.5], [0.5, 0.5]]).log(), Counter()
    shares = gradients(method, [tree], logits, sums)
    # ratios of the decisions: 1.32 for the good one, 0.04 for the bad one, which is critical; both answers: 1
    assert sums == {"terms": 4, "clip_share": 2, "localized_terms": 2, "clip_share_localized": 1}
    assert not shares.any()


SURROGATES = [method for method in ALL if isinstance(method, Clipped | ELPO)]  # the others are regressions


@pytest.mark.parametrize("method", SURROGATES, ids=lambda method: type(method).__name__)
def test_shares_add_up_to_the_gradient_of_the_mini_batch(method):
    process = PlantedProcess(tokens_max=2)
    trees = grown(method, process, n=4)
    logits = TabularPolicy.first(process).logits
    total = sum(t.weight * len(node.action_tokens) for tree in trees for node in tree.nodes for t in node.terms)
    expected = torch.zeros_like(logits)
    for node in (node for tree in trees for node in tree.steps):
        row, action = node.parent.observation_tokens[0] - FIRST_ROW, node.action_tokens[0]
        if row < process.rows:  # at the sampling policy, every ratio is 1: ρ A has the gradient A ∇ ln π
            slope = torch.eye(2, dtype=torch.float64)[action] - torch.softmax(logits[row], -1)
            advantages = [term.weight * term.on(len(node.action_tokens))[0] for term in node.terms]
            expected[row] += sum(advantages) / total * slope
    torch.testing.assert_close(gradients(method, trees, logits).sum(0), expected, atol=1e-6, rtol=1e-4)


def test_the_direction_of_grpo_is_that_of_the_exact_gradient():
    process = PlantedProcess(clean=1, traps=(Trap(0.4), Trap(0.2)), steps_min=3, steps_max=3)
    task = Task("", "", info={"contexts": [0, 1, 2], "lengths": [1] * 4})
    policy, method = TabularPolicy.first(process), GRPO(rollouts=64)
    trees = grow(method, process, policy, [task] * 60, key=(0,))
    method.credit(trees)
    assert cosine(gradients(method, trees, policy.logits), exact_gradient(process, [task], policy)) > 0.995


@pytest.mark.parametrize("method", ALL, ids=METHODS)
@pytest.mark.parametrize("mistake", ["silent", "dead end", "recoverable"])
def test_the_direction_of_a_method_is_an_ascent_direction(method, mistake):
    process = PlantedProcess(traps=traps(mistake), steps_min=4, steps_max=4)
    shares = gradients(method, grown(method, process, n=60), TabularPolicy.first(process).logits)
    tasks = process.train(seed=0, first=0, n=60)
    # CoRPO pushes down all of a poor group, GRPO-TCR pays for going on, VinePPO trains on one run a task
    least = {"CoRPO": 0.75, "GRPOTCR": 0.85, "VinePPO": 0.8}.get(type(method).__name__, 0.9)
    assert cosine(shares, exact_gradient(process, tasks, TabularPolicy.first(process))) > least


# Searches


@pytest.mark.parametrize("where", ["early", "late", "anywhere"])
@pytest.mark.parametrize("mistake", ["silent", "dead end"])
@pytest.mark.parametrize("verified", [False, True])
def test_a_search_with_a_policy_that_never_errs_finds_the_planted_step(where, mistake, verified):
    """V is then 1 after every good prefix, and one probe an anchor tells."""
    process = PlantedProcess(traps=traps(mistake), where=where, give_up=0.05)
    never = TabularPolicy(torch.tensor([[50.0, 0.0]] * process.rows, dtype=torch.float64))
    for number in range(5):
        handle = rollouts(process, budget=60, key=(number,))
        leaves = asyncio.run(handle.sample(30))
        handle.policy = never
        failed = next(leaf for leaf in leaves if not leaf.success and leaf.depth > 2)
        search = Bisect(failed.depth - 1, lambda step: 1, verified=verified)
        [verdict] = asyncio.run(localize({failed: search}, handle))
        assert judge(process.first_irrecoverable(handle.tree.task, failed), verdict) == "exact"


def test_outcomes_of_searches():
    process = PlantedProcess(clean=1, traps=(Trap(0.4),))
    task = Task("", "", info={"contexts": [0, 1, 0], "lengths": [1] * 4})
    tree = Tree(task, prompt=[FIRST_ROW])
    node = tree.root
    for action in (0, 1, 0, 0):
        node = tree.add(node, rollout=0, action_tokens=[action])
    node.end, node.success = "answer", False  # lost at step 2 of 3
    verdict = lambda step, finished=True: Verdict(node.index, 3, step, finished, [Probe(1, 1, 1)])  # noqa: E731
    truth = process.first_irrecoverable(task, node)
    outcomes = [judge(truth, verdict(step)) for step in (1, 2, 3, 4)]
    assert outcomes == ["early", "exact", "late", "none"]
    assert judge(truth, verdict(2, finished=False)) == "unfinished"
    tree.verdicts = [verdict(1), verdict(2)]
    found = localization(process.first_irrecoverable, [tree, Tree(task, prompt=[])])
    assert found["searches"] == 1 and found["exact"] == found["early"] == 0.5 and found["evidence"] == 1


def test_how_late_the_searched_runs_were_lost():
    process = PlantedProcess(clean=0, traps=(Trap(0.4),))
    tree = Tree(Task("", "", info={"contexts": [0, 0, 0], "lengths": [1] * 4}), prompt=[FIRST_ROW])
    leaves = []
    for rollout, actions in enumerate([(1, 0, 0), (0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1), (1, 1, 0)]):
        node = tree.root
        for action in (*actions, 0):
            node = tree.add(node, rollout=rollout, action_tokens=[action])
        node.end, node.success = "answer", not any(actions)
        leaves.append(node)
    tree.verdicts = [Verdict(leaves[2].index, 3, 3, True), Verdict(leaves[5].index, 3, 1, True)]
    # lost at steps 1, 3, 2 (the second run was won), of which 3 was chosen; then 2 and 1, of which 1
    assert choices(process.first_irrecoverable, [tree]) == [(1.0, 1.0), (-0.5, 0.5)]


def test_probes_are_the_completions_from_a_step():
    handle = rollouts(PlantedProcess(), budget=5)
    [leaf, _] = asyncio.run(handle.sample(2))
    begun = asyncio.run(handle.continue_from(leaf.steps[1], 3))
    assert probes(handle.tree) == begun


# Measures


def test_signal_to_noise_of_known_draws():
    """E g = (3, 0), tr Cov = 2 · 4: 9/8. Of pure noise, nothing is left."""
    noise = 2 * torch.randn(5000, 2, generator=torch.Generator().manual_seed(0))
    snr, error = signal_to_noise(noise + torch.tensor([3.0, 0.0]))
    assert snr == pytest.approx(9 / 8, abs=4 * error) and 0.01 < error < 0.05
    snr, error = signal_to_noise(noise[:100])
    assert abs(snr) < 0.03


@pytest.mark.parametrize("method", ALL, ids=METHODS)
@pytest.mark.parametrize("mistake", ["silent", "dead end", "recoverable"])
def test_methods_learn(method, mistake):
    process = PlantedProcess(traps=traps(mistake), steps_min=4, steps_max=5)
    held_out = process.train(seed=9, first=0, n=20)
    curve = learn(method, process, steps=8, seed=0, prompts=8, step_size=0.4, held_out=held_out)
    assert curve[0].success < 0.4 and curve[-1].success > (0.45 if isinstance(method, VinePPO) else 0.8)
    assert 8 * 8 * BUDGET / 2 <= curve[-1].rollouts <= 8 * 8 * BUDGET


def test_points_of_a_curve_hold_the_policy_and_what_the_clip_cut_off():
    process = PlantedProcess(steps_min=4, steps_max=5)
    held_out = process.train(seed=9, first=0, n=5)
    options = {"steps": 2, "seed": 0, "prompts": 4, "held_out": held_out}
    for point in learn(ELPO(), process, **options):
        assert point.success == success_probability(process, held_out, point.policy)
    once = learn(ELPO(), process, mini_batches=1, **options)[-1].clipped
    assert once["terms"] > once["localized_terms"] > 0 and once["clip_share"] == 0  # all ratios are 1
    far = learn(ELPO(), process, step_size=3.0, **options)[-1].clipped
    assert far["clip_share"] > far["clip_share_localized"] > 0


def test_batches_of_as_many_tokens():
    process = PlantedProcess(steps_min=4, steps_max=5)
    held_out = process.train(seed=9, first=0, n=5)
    curve = learn(ELPO(), process, steps=2, seed=0, tokens=300, held_out=held_out)
    written = [after.tokens - before.tokens for before, after in itertools.pairwise(curve)]
    assert all(300 <= tokens < 300 + 16 * 6 for tokens in written)
    assert curve == learn(ELPO(), process, steps=2, seed=0, tokens=300, held_out=held_out)
