"""The rivals: golden numbers by hand, exact expectations, and where they coincide."""

import asyncio
import inspect
import itertools
import math
import random
import re

import pytest
import torch

from firstfault.credit import mean
from firstfault.losses import TermBatch, clipped_surrogate, clipped_with_gradient
from firstfault.methods import (
    AEPO,
    ARPO,
    CIR,
    DAPO,
    GRPO,
    GRPOTCR,
    METHODS,
    PPO,
    REBEL,
    RLOO,
    VPPO,
    VSPO,
    AStarPO,
    CoRPO,
    GiGPO,
    Method,
    ReinforcePP,
    ToRL,
    TreeGRPO,
    VinePPO,
)
from firstfault.planted.process import PlantedProcess, State, traps
from firstfault.planted.quality import probes
from firstfault.planted.tabular import TabularPolicy, credit, gradients, grow
from firstfault.rewards import REWARDS
from firstfault.tree import Call, Task, Tree, Verdict, independent_runs


def advantages(tree: Tree) -> list[float]:
    return [leaf.advantage for leaf in tree.leaves]


def credited(method: Method, *rewards: float) -> list[float]:
    tree = independent_runs(*rewards)
    method.shape([tree])
    method.credit([tree])
    return advantages(tree)


def grown(method: Method, n: int = 20, **process) -> list[Tree]:
    process = PlantedProcess(**process)
    trees = grow(method, process, TabularPolicy.first(process), process.train(seed=0, first=0, n=n), key=(0,))
    credit(method, trees, process, TabularPolicy.first(process))
    return trees


# All of them


@pytest.mark.parametrize("reward", [0.1, -0.6])
@pytest.mark.parametrize("method", [GRPO(scale="none"), RLOO(), REBEL(), CoRPO(reward_min=-1), ReinforcePP()])
def test_runs_that_score_alike_have_no_advantage(method, reward):
    tree = independent_runs(*[reward] * 6)
    method.credit([tree])
    assert not tree.has_gradient and tree.is_credited


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("budget", [1, 2, 5, 16])
def test_the_budget_is_never_overspent(name, budget):
    budget = max(budget, METHODS[name].model_fields["rollouts"].metadata[0].ge)
    for tree in grown(METHODS[name](rollouts=budget), n=5):
        assert 1 <= len(tree.leaves) <= budget
        assert all(len(term.on(len(node.action_tokens))) for node in tree.steps for term in node.terms)


@pytest.mark.parametrize("name", METHODS)
def test_equal_keys_give_equal_trees_and_credit(name):
    method = METHODS[name](rollouts=12)
    assert grown(method, n=3, entropy="raised") == grown(method, n=3, entropy="raised")


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_a_short_file(name):
    lines = len(inspect.getsourcelines(inspect.getmodule(METHODS[name]))[0])
    assert 20 <= lines <= 150


# Baselines


def test_rloo_compares_with_the_others():
    assert credited(RLOO(), 1, 0, 0, 0) == pytest.approx([1, -1 / 3, -1 / 3, -1 / 3])
    assert credited(RLOO(), 0.7) == [0.7]


@pytest.mark.parametrize("p", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("n", [2, 3, 5])
@pytest.mark.parametrize(
    ("method", "share"),
    [
        (RLOO(), lambda n, p: 1.0),
        (GRPO(scale="none"), lambda n, p: (n - 1) / n),
        (CoRPO(reward_min=0.0), lambda n, p: (n - 1) / n),
        (CoRPO(reward_min=1.0), lambda n, p: 1.0),  # a constant baseline has no bias
    ],
    ids=["rloo", "mean-centred", "corpo above", "corpo below"],
)
def test_the_expected_gradient_of_one_decision_is_exact(method, share, n, p):
    """Over all groups of n runs of a policy that succeeds with probability p = σ(x): the truth is dp/dx = p (1 - p)."""
    expected = 0.0
    for outcome in itertools.product([1, 0], repeat=n):
        probability = math.prod(p if won else 1 - p for won in outcome)
        slopes = [1 - p if won else -p for won in outcome]  # of the log-probability
        expected += probability * mean([a * slope for a, slope in zip(credited(method, *outcome), slopes, strict=True)])
    assert expected == pytest.approx(share(n, p) * p * (1 - p))


@pytest.mark.parametrize(("method", "unbiased"), [(RLOO(), True), (RLOO(aggregation="sequence"), False)])
def test_rloo_needs_tokens_that_count_alike_where_runs_differ_in_length(method, unbiased):
    """One choice among a right run of 10 tokens and wrong ones of 1 and 100, over all groups of 4, on the 3 logits."""
    policy, rewards, lengths = (0.5, 0.25, 0.25), (1, 0, 0), (10, 1, 100)
    expected = [0.0] * 3
    for group in itertools.product(range(3), repeat=4):
        tree = independent_runs(*(rewards[choice] for choice in group))
        for leaf, choice in zip(tree.leaves, group, strict=True):
            leaf.action_tokens = [2] * lengths[choice]  # of which the first decides
        method.credit([tree])
        for leaf, choice in zip(tree.leaves, group, strict=True):
            weight = math.prod(policy[c] for c in group) * leaf.terms[0].weight * leaf.advantage / len(group)
            expected = [sum_ + weight * ((at == choice) - policy[at]) for at, sum_ in enumerate(expected)]
    truth = [p * (r - 0.5) for p, r in zip(policy, rewards, strict=True)]  # dE[R]/d logit
    assert truth == [0.25, -0.125, -0.125]
    assert (expected == pytest.approx(truth)) == unbiased
    assert (expected[2] < 0) == unbiased  # by sequence, the long wrong run rises


@pytest.mark.parametrize("n", [3, 6, 10])
def test_reinforce_pp_gives_groups_that_scored_alike_nothing_at_all(n):
    trees = [independent_runs(1, *[0] * (n - 1)), independent_runs(*[1] * n), independent_runs(*[0] * n)]
    ReinforcePP().credit(trees)
    assert [tree.has_gradient for tree in trees] == [True, False, False]


def test_reinforce_pp_normalizes_over_the_batch():
    trees = [independent_runs(1, 0, 0, 0), independent_runs(5, 5)]
    ReinforcePP().credit(trees)
    centred = [0.75, -0.25, -0.25, -0.25, 0, 0]
    std = math.sqrt(mean([x * x for x in centred]))
    assert advantages(trees[0]) + advantages(trees[1]) == pytest.approx([x / std for x in centred], abs=1e-4)


def test_corpo_never_praises_failure_and_is_mean_centred_above_its_threshold():
    assert credited(CoRPO(), 0.4, 0, 0, 0) == pytest.approx([-0.1, -0.5, -0.5, -0.5])
    for rewards in ([1, 1, 1, 0], [1, 0.5, 0.5, 1]):
        assert credited(CoRPO(), *rewards) == pytest.approx(credited(GRPO(scale="none"), *rewards))
    assert credited(CoRPO(), 0, 0) == [-0.5, -0.5]


@pytest.mark.parametrize("method", [DAPO, GRPOTCR])
def test_a_penalty_that_would_take_from_every_run_is_refused(method):
    assert method(overlong_limit=4096, overlong_buffer=819)
    with pytest.raises(ValueError, match="overlong_buffer = 4096 leaves nothing of overlong_limit = 4096"):
        method(overlong_limit=4096)


def test_grpo_tcr_is_grpo_over_shaped_rewards():
    tree = independent_runs(1, 0, 0, steps=3)
    for node in tree.leaves[2].steps[1:2]:
        node.action_tokens = [2] * 19_000  # a run of 19,004 tokens
    method = GRPOTCR()
    method.shape([tree])
    assert [leaf.reward for leaf in tree.leaves] == pytest.approx([1, -0.8, -0.8])
    method.credit([tree])
    late = -0.8 - (19_004 - 16_384) / 4096
    assert advantages(tree) == pytest.approx(credited(GRPO(), 1, -0.8, late), abs=1e-4)
    assert {(term.weight, term.clip_high) for node in tree.steps for term in node.terms} == {(1.0, 0.28)}


def test_shaped_rewards():
    tree = Tree(Task("q", "a"), prompt=[1])
    call = lambda name, failed=None: Call(name, {}, output="", failed=failed)  # noqa: E731

    def run(calls, end="answer", reward=0.0):
        step = tree.add(tree.root, rollout=0, calls=calls)
        return tree.add(step, rollout=0, end=end, success=reward == 1, reward=reward)

    leaves = [
        run([call("search")], reward=1.0),
        run([call("search"), call("python")], reward=1.0),
        run([call("search"), call("python", failed="unknown tool")], reward=1.0),
        run([call("search", failed="malformed")], reward=1.0),
        run([call("search")], reward=0.4),
        run([], end="max_steps"),
    ]
    shaped = {name: [reward(leaf) for leaf in leaves] for name, reward in REWARDS.items()}
    assert shaped["judge"] == [1, 1, 1, 1, 0.4, 0]
    assert shaped["signed"] == [1, 1, 1, 1, -1, -1]
    assert shaped["turns"] == pytest.approx([1, 1, 1, 1, -0.9, -0.9])
    assert shaped["tools"] == pytest.approx([1, 1.1, 1, -1, 0.4, -1])
    assert shaped["progressive"] == pytest.approx([1, 1, 1, 0, 0.46, 0])


# Trees


def test_shaping_twice_is_shaping_once_and_takes_back_what_was_written():
    trees = grown(PPO(rollouts=4, reward="progressive"), n=20)
    rewards = [leaf.reward for tree in trees for leaf in tree.leaves]
    assert set(rewards) == {0.1, 1.0} and trees[0].root.value_target is not None
    RLOO(reward="progressive").shape(trees)
    assert [leaf.reward for tree in trees for leaf in tree.leaves] == rewards
    assert not any(tree.is_credited for tree in trees)
    GRPO().shape(trees)
    assert {leaf.reward for tree in trees for leaf in tree.leaves} == {0.0, 1.0}


def test_tree_grpo_branches_every_chain_as_often():
    for tree in grown(TreeGRPO(), steps_min=4, steps_max=6):
        assert len(tree.root.children) == 4
        assert [len(chain.leaves) for chain in tree.root.children] == [4] * 4
        assert all(leaf.anchor is not tree.root for leaf in probes(tree))
    few = grown(TreeGRPO(rollouts=6, chains=2), n=5, steps_min=4, steps_max=4)
    assert all(sorted(len(chain.leaves) for chain in tree.root.children) == [3, 3] for tree in few)
    deeper = grown(TreeGRPO(chains=2, rounds=2, expansions=2, rollouts=10), n=5, steps_min=4, steps_max=4)
    assert all(len(chain.leaves) == 5 for tree in deeper for chain in tree.root.children)


@pytest.mark.parametrize("method", [ARPO(), AEPO()], ids=["arpo", "aepo"])
def test_branches_start_where_the_entropy_has_risen(method):
    branched = 0
    for tree in grown(method, entropy="raised"):
        branched += len(probes(tree))
        for leaf in probes(tree):
            decided_on = [step for step in leaf.anchor.children if step.parent is not step.anchor]
            assert any(method.gap(step) > 0 for step in decided_on)
    assert branched > 20
    calm = grown(ARPO(alpha=0.5, beta=-10.0), entropy="zero")  # no entropy is below that of the start but 0
    assert all(len(tree.leaves) == 16 for tree in calm)


def test_the_coin_of_arpos_code_falls_by_the_entropy_one_call_before():
    tree = Tree(Task("q", "a"), prompt=[1], key=(1, 2))
    first = tree.add(tree.root, rollout=0, entropies=[0.0])
    torn = tree.add(first, rollout=0, entropies=[2.5])
    after, method = tree.add(torn, rollout=0, entropies=[0.0]), ARPO(branch="coin")
    assert method.branches(tree, after)  # with probability .5 + .2 · 2.5
    shares = [method.branches(Tree(Task("q", "a"), [1], key=(i,)), torn) for i in range(400)]
    assert mean(shares) == pytest.approx(0.5, abs=0.1)  # the gap that it sees is 0


@pytest.mark.parametrize("aggregation", ["token", "sequence"])
def test_arpos_soft_and_hard_credit_have_the_same_gradient_while_nothing_is_clipped(aggregation):
    settings = {"entropy": "raised", "traps": traps("recoverable"), "tokens_max": 5}
    arpo = ARPO(aggregation=aggregation)
    trees = grown(arpo, **settings)
    logits = TabularPolicy.first(PlantedProcess(**settings)).logits
    soft = gradients(arpo, trees, logits)
    hard = ARPO(advantages="hard", aggregation=aggregation)
    hard.shape(trees)
    hard.credit(trees)
    assert any(probes(tree) for tree in trees)
    torch.testing.assert_close(gradients(hard, trees, logits), soft, atol=1e-6, rtol=1e-5)
    # and another one where ratios are clipped
    far = logits + torch.randn(logits.shape, generator=torch.Generator().manual_seed(0), dtype=logits.dtype)
    apart = gradients(hard, trees, far)
    arpo.shape(trees)
    arpo.credit(trees)
    difference = (gradients(arpo, trees, far) - apart).abs().max()
    assert difference > 0.01 * apart.abs().max()


def test_tree_grpo_spends_what_it_can_not_branch_on_whole_runs():
    process = PlantedProcess(steps_min=1, steps_max=2, traps=traps("dead end"))
    policy = TabularPolicy.first(process)
    for rollouts in (7, 16):
        trees = grow(TreeGRPO(rollouts=rollouts), process, policy, process.train(0, 0, n=20), key=(0,))
        assert {len(tree.leaves) for tree in trees} == {rollouts}


def test_aepo_weighs_tokens_by_their_entropy():
    tree = independent_runs(1, 0)
    tree.leaves[0].entropies = [0.0, 1.0]
    tree.leaves[1].entropies = [1.0, 0.0]
    AEPO().credit([tree])
    assert [leaf.terms[0].advantage for leaf in tree.leaves] == [
        pytest.approx([0.8, 1.2], abs=1e-4), pytest.approx([-1.2, -0.8], abs=1e-4)
    ]  # fmt: skip


def test_aepo_does_not_branch_three_times_in_a_row():
    tree = Tree(Task("q", "a"), prompt=[1])
    node = tree.add(tree.root, rollout=0, entropies=[0.0])
    decisions = []
    for _ in range(3):
        place, node = node, tree.add(node, rollout=0, entropies=[50.0])
        decisions.append(AEPO().branches(tree, node))
        tree.add(place, rollout=1, entropies=[1.0])
    assert decisions == [True, True, False]


def test_what_aepo_grows_has_no_two_branched_places_in_a_row():
    """Entropies here rise by about half a nat: P_t is then above τ for the first branch, and not for one behind it."""
    trees = grown(AEPO(), entropy="raised", traps=traps("recoverable"))
    assert sum(len(probes(tree)) for tree in trees) > 20
    for node in (node for tree in trees for node in tree.steps if node.depth > 1):
        assert len(node.children) < 2 or len(node.parent.children) < 2


def test_a_good_clipped_token_keeps_its_gradient_and_all_else_is_the_surrogate():
    draw = random.Random(0)
    logprobs = torch.tensor([draw.uniform(-1, 1) for _ in range(200)], requires_grad=True)
    signs = torch.tensor([draw.choice([-1.0, 1.0]) for _ in range(200)])
    one = torch.ones(200)
    batch = TermBatch(logprobs, 0 * one, signs, one, 0.2 * one, 0.2 * one, 200.0)
    kept, cut = clipped_with_gradient(batch), clipped_surrogate(batch)
    torch.testing.assert_close(kept, cut)
    ours, theirs = (torch.autograd.grad(loss, logprobs)[0] for loss in (kept, cut))
    good = (signs > 0) & (logprobs > math.log(1.2))
    torch.testing.assert_close(ours[~good], theirs[~good])
    assert good.any() and not theirs[good].any()
    torch.testing.assert_close(ours[good], torch.full_like(ours[good], -1.2 / 200))


def test_aepos_loss_of_a_token_that_became_impossible_has_a_gradient():
    logprobs = torch.tensor([-200.0], requires_grad=True)
    one = torch.ones(1)
    clipped_with_gradient(TermBatch(logprobs, 0 * one, one, one, 0.2 * one, 0.2 * one, 1.0)).backward()
    assert logprobs.grad.tolist() == [0.0]


# Steps


def test_gigpo_compares_steps_from_the_same_state():
    tree = Tree(Task("q", "a"), prompt=[1])
    for rollout, (seen, reward) in enumerate([("x", 1.0), ("x", 0.0), ("y", 0.0)]):
        step = tree.add(tree.root, rollout=rollout, action_tokens=[2], calls=[Call("f", {}, output=seen)])
        tree.add(step, rollout=rollout, action_tokens=[3], end="answer", success=reward > 0, reward=reward)
    GiGPO(omega=0.5).credit([tree])
    won, lost = math.sqrt(2), -1 / math.sqrt(2)
    assert [[step.advantage for step in leaf.steps] for leaf in tree.leaves] == [
        pytest.approx([1.5 * won, won + 0.5], abs=1e-4),  # among those that saw x
        pytest.approx([1.5 * lost, lost - 0.5], abs=1e-4),
        pytest.approx([1.5 * lost, lost], abs=1e-4),  # nobody else saw y
    ]


def test_gigpo_discounts_the_return_by_the_steps_to_go():
    tree = Tree(Task("q", "a"), prompt=[1])
    for rollout, steps in enumerate([1, 3]):
        node = tree.root
        for i in range(steps):
            node = tree.add(node, rollout=rollout, action_tokens=[2], observation_tokens=[rollout, i])
        node.end, node.success, node.reward = "answer", True, 1.0
    GiGPO(scale="none").credit([tree])
    assert [leaf.steps[0].advantage for leaf in tree.leaves] == pytest.approx(
        [(1 - 0.95**2) / 2, -(1 - 0.95**2) / 2], abs=1e-6
    )


def test_gigpo_without_scale_is_in_units_of_the_reward():
    tree = independent_runs(1, 0, 0, 0)
    GiGPO(scale="none").credit([tree])
    assert advantages(tree) == [1.5, -0.5, -0.5, -0.5]  # against the group, and again: all took the first step


def test_vineppos_values_are_those_of_the_process():
    """Within four standard errors of the exact success probabilities, for the start and for all states together."""
    process = PlantedProcess(traps=traps("recoverable"), steps_min=4, steps_max=4)
    policy = TabularPolicy.first(process)
    distances, variances = [], []
    for tree in grown(VinePPO(rollouts=46), n=150, traps=traps("recoverable"), steps_min=4, steps_max=4):
        exact = process.values(tree.task, policy.probabilities)
        for node in tree.nodes:
            if node.value_samples:
                state = State() if node.parent is None else process.states(tree.task, node)[-1]
                p = exact.get(state, 0.0)  # a state from which nothing succeeds is not listed
                distances.append(node.value - p)
                variances.append(p * (1 - p) / node.value_samples)
    assert len(distances) > 500
    assert abs(sum(distances)) < 4 * math.sqrt(sum(variances))
    assert mean([d * d for d in distances]) == pytest.approx(mean(variances), rel=0.15)


def test_vineppo_spends_what_it_has_and_trains_on_whole_runs_only():
    for tree in grown(VinePPO(rollouts=12), steps_min=6, steps_max=6):
        trained = [leaf for leaf in tree.leaves if leaf.terms]
        assert len(tree.leaves) == 12 and all(leaf.anchor is tree.root for leaf in trained)
        assert tree.root.value_samples in (1, 2)
    trees = grown(VinePPO(), n=10)
    whitened = [
        term.advantage
        for tree in trees
        for leaf in tree.leaves
        if leaf.value is not None
        for step in leaf.steps
        for term in step.terms[:1]
    ]
    assert mean(whitened) == pytest.approx(0, abs=0.2)


def test_vppo_pays_the_good_prefix():
    tree = independent_runs(1, 0, 0, steps=4, tokens=3)
    tree.root.observation_tokens = [1] * 2
    tree.verdicts = [Verdict(leaf=tree.leaves[1].index, steps=4, step=3, finished=True)]
    VPPO().credit([tree])
    baseline = (1 + 0.5 * 4 / 12 + 0) / 3  # 6 tokens before the error, less the 2 of the prompt
    paid = [[[a + baseline for a in step.terms[0].advantage] for step in leaf.steps] for leaf in tree.leaves]
    assert paid == [
        [pytest.approx([1] * 3)] * 4,
        [pytest.approx([0.5] * 3), pytest.approx([0.5, 0, 0]), pytest.approx([0] * 3), pytest.approx([0] * 3)],
        [pytest.approx([0] * 3)] * 4,
    ]


def test_vppo_pays_all_calls_of_a_run_whose_answer_alone_was_wrong():
    tree = independent_runs(1, 0, steps=3, tokens=1)
    tree.verdicts = [Verdict(leaf=tree.leaves[1].index, steps=2, step=3, finished=True)]
    VPPO(cut=0).credit([tree])
    baseline = (1 + 0.5 * 2 / 3) / 2
    assert [step.advantage + baseline for step in tree.leaves[1].steps] == pytest.approx([0.5, 0.5, 0])


def test_vppo_marks_the_error_that_it_used():
    tree = independent_runs(1, 0, 0, steps=3, tokens=1)
    _, lost, unknown = tree.leaves
    tree.verdicts = [Verdict(lost.index, steps=2, step=2, finished=True),
                     Verdict(unknown.index, steps=2, step=1, finished=False)]  # fmt: skip
    VPPO().shape([tree])
    VPPO().credit([tree])
    assert [verdict.marked for verdict in tree.verdicts] == [True, False]
    assert [step.critical for leaf in (lost, unknown) for step in leaf.steps] == [False, True, False] + [False] * 3


def test_vppos_relu_spares_the_good_prefix():
    tree = independent_runs(1, 1, 1, 0, steps=2, tokens=1)
    tree.verdicts = [Verdict(leaf=tree.leaves[3].index, steps=2, step=2, finished=True)]
    VPPO(cut=0, relu=True).credit([tree])
    baseline = (3 + 0.25) / 4
    assert [step.advantage for step in tree.leaves[3].steps] == pytest.approx([0, -baseline])


def test_every_file_names_its_paper_and_what_is_ours():
    for name, method in METHODS.items():
        assert re.search(r"\d{4}\.\d{5}", method.paper), name


# Across tasks


def batches(method: Method, size: int = 6, seed: int = 0, **process) -> list[Tree]:
    process = PlantedProcess(**process)
    policy = TabularPolicy.first(process)
    return grow(method, process, policy, process.train(seed, first=0, n=size), key=(seed,))


@pytest.mark.parametrize("seed", range(5))
def test_dapo_draws_until_its_batch_is_full_or_its_budget_spent(seed):
    method = DAPO(group=4)
    trees = batches(method, seed=seed)
    assert all(len(tree.leaves) == 4 for tree in trees)
    full = sum(len({leaf.success for leaf in tree.leaves}) > 1 for tree in trees)
    assert full == 6 or len(trees) == 6 * 16 // 4
    assert len({tree.task.question + str(tree.task.info) for tree in trees}) > 1
    assert len({tree.key for tree in trees}) == len(trees)
    method.shape(trees)
    method.credit(trees)
    assert sum(tree.has_gradient for tree in trees) == full
    assert not [node for tree in trees if not tree.has_gradient for node in tree.nodes if node.terms]


def test_vspo_replaces_groups_that_score_alike_by_fresh_ones_of_uncertain_tasks():
    replaced = 0
    for seed in range(10):
        trees = batches(VSPO(group=4, reward="judge"), seed=seed)
        first, more = trees[:6], trees[6:]
        useful = [tree for tree in first if len({leaf.reward for leaf in tree.leaves}) > 1]
        assert len(more) == (6 - len(useful) if useful else 0)
        assert all(any(tree.task is other.task for other in useful) for tree in more)
        assert all(tree.key != other.key and tree != other for tree in more for other in first)
        replaced += len(more)
    assert replaced > 5


def test_vspo_knows_a_task_by_more_than_its_question():
    trees = [independent_runs(1, 0), independent_runs(1, 0)]
    trees[1].task.answer = "another"
    VSPO().credit(trees)
    assert [round(leaf.advantage, 3) for tree in trees for leaf in tree.leaves] == [1.0, -1.0, 1.0, -1.0]


def test_vspo_with_reused_rollouts_and_1_over_n_is_grpo():
    process = PlantedProcess()
    logits = TabularPolicy.first(process).logits
    useful = next(tree for tree in batches(GRPO(rollouts=8)) if len({leaf.reward for leaf in tree.leaves}) > 1)
    copies = [Tree.from_json(useful.to_json()) for _ in range(3)]
    vspo = VSPO(smoothing=1.0, kl=0)
    vspo.credit(copies)
    GRPO().credit([useful])
    # of three copies, each with a third of the advantage, the mean loss is a third; their sum is GRPO's
    torch.testing.assert_close(3 * gradients(vspo, copies, logits).sum(0), gradients(GRPO(), [useful], logits).sum(0))


def test_a_batch_refuses_what_its_budget_does_not_have():
    class Greedy(GRPO):
        async def explore_all(self, batch):
            return await batch.grow(batch.draw(batch.size + 1), self.explore, self.rollouts)

    with pytest.raises(ValueError, match="asked for 7 x 16 of 96 rollouts"):
        batches(Greedy())


def test_torl_and_cir_limit_the_calls_of_a_run():
    seen = []

    class Handle:
        remaining = 4

        def limit_calls(self, n):
            seen.append(n)

        async def sample(self, n):
            assert n == 4 and seen  # before anything is sampled
            return []

    for method, iteration in [(ToRL(calls=2), 1), (CIR(), 0), (CIR(), 25), (CIR(calls=[3], stage=1), 9)]:
        asyncio.run(method.explore(Tree(Task("q", "a"), [1], key=(0, iteration, 0)), Handle()))
    assert seen == [2, 4, 16, 3]


# Regressions


def test_rebels_loss_is_that_of_all_pairs():
    draw = torch.Generator().manual_seed(0)
    logprobs = torch.randn(7, generator=draw, requires_grad=True)
    runs, trees = torch.tensor([0, 0, 3, 3, 3, 5, 8]), torch.tensor([0, 0, 0, 0, 0, 0, 1])
    rewards = torch.tensor([1.0, 1, 0, 0, 0, 0.5, 2])  # of runs 0, 3 and 5 of a tree, and 8 of another
    zero = torch.zeros(7)
    batch = TermBatch(logprobs, zero, rewards, zero + 1, zero, zero, 4.0, runs, trees)
    x = [logprobs[:2].sum() / 2 - 1, logprobs[2:5].sum() / 2, logprobs[5] / 2 - 0.5]
    pairs = sum((a - b) ** 2 for a in x for b in x) / (2 * 3)
    loss = REBEL(eta=2.0).loss(batch)
    torch.testing.assert_close(loss, pairs / 4)
    assert torch.autograd.grad(loss, logprobs)[0][-1] == 0  # alone in its tree


def test_the_direction_of_rebel_and_astarpo_at_the_sampling_policy_is_that_of_a_policy_gradient():
    """At ln ρ = 0, the gradient of (ln ρ / η - A)² is -2 A ∇ln π / η of whole runs."""
    process = PlantedProcess(steps_min=4, steps_max=4)
    logits = TabularPolicy.first(process).logits
    trees = grown(REBEL(rollouts=8), n=10, steps_min=4, steps_max=4)
    rebel = gradients(REBEL(eta=1.0), trees, logits)
    for tree in trees:
        for node in tree.steps:
            node.terms = []
        centred = [leaf.reward - mean([other.reward for other in tree.leaves]) for leaf in tree.leaves]
        GRPO(aggregation="token").credit_runs(tree, centred)
    tokens = sum(len(term.on(len(n.action_tokens))) for tree in trees for n in tree.steps for term in n.terms)
    policy_gradient = gradients(GRPO(aggregation="token"), trees, logits) * tokens
    torch.testing.assert_close(rebel * 80, 2 * policy_gradient, atol=1e-5, rtol=1e-4)


def test_astarpo_values_tasks_by_the_reference_alone():
    process = PlantedProcess(steps_min=4, steps_max=4)
    [task] = process.train(seed=0, first=0, n=1)
    sure = TabularPolicy(torch.tensor([[50.0, 0.0]] * process.rows, dtype=torch.float64))
    trees = grow(AStarPO(), process, sure, [task], key=(0,), reference=TabularPolicy.first(process))
    online, earlier = trees
    assert [leaf.success for leaf in online.leaves] == [True] and len(earlier.leaves) == 8
    assert not all(leaf.success for leaf in earlier.leaves)
    share = mean([leaf.success for leaf in earlier.leaves])
    assert online.root.value == pytest.approx(0.5 * math.log(1 - share + share * math.exp(2)))
    assert online.root.value_samples == 0  # it is no mean
    credit(AStarPO(), trees, process, TabularPolicy.first(process))
    assert online.leaves[0].advantage == pytest.approx(1 - online.root.value)
    assert not any(node.terms for node in earlier.nodes) and online.key != earlier.key


def test_astarpo_drops_tasks_without_hope_only_if_told_so():
    never = TabularPolicy(torch.tensor([[0.0, 50.0]] * PlantedProcess().rows, dtype=torch.float64))
    for drop in (False, True):
        method = AStarPO(drop_hopeless=drop)
        process = PlantedProcess()
        trees = grow(method, process, TabularPolicy.first(process), process.train(0, 0, 1), (0,), reference=never)
        assert (trees[0].root.value is None) == drop


def test_astarpos_values_of_large_rewards_and_small_temperatures():
    assert AStarPO(beta_1=1e-4).optimal_value([1.0, 0.0]) == pytest.approx(1.0, abs=1e-3)
    assert AStarPO(beta_1=1e6).optimal_value([1.0, 0.0]) == pytest.approx(0.5, abs=1e-3)


def test_astarpos_loss_by_hand():
    zero = torch.zeros(3)
    logprobs, before = torch.tensor([-1.0, -2.0, -4.0]), torch.tensor([-2.0, -2.5, -3.0])
    batch = TermBatch(logprobs, zero, torch.tensor([0.4, 0.4, -0.3]), zero + 1, zero, zero, 2.0,
                      torch.tensor([0, 0, 1]), torch.tensor([0, 0, 0]), before)  # fmt: skip
    by_hand = ((0.1 * 1.5 - 0.4) ** 2 + (0.1 * -1.0 + 0.3) ** 2) / 2
    assert AStarPO(beta_2=0.1).loss(batch).item() == pytest.approx(by_hand)


# A critic


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_ppos_advantages_between_their_two_ends(gamma):
    tree = independent_runs(1, 0, steps=3)
    for i, node in enumerate(node for node in tree.nodes if node.children):
        node.value = 0.1 * (i + 1)
    leaf = tree.leaves[0]
    values = [step.parent.value for step in leaf.steps]
    deltas = [gamma * values[1] - values[0], gamma * values[2] - values[1], 1 - values[2]]
    assert PPO(gamma=gamma, lambda_gae=0).advantages(leaf) == pytest.approx(deltas)
    returns = [gamma**2 - values[0], gamma - values[1], 1 - values[2]]
    assert PPO(gamma=gamma, lambda_gae=1).advantages(leaf) == pytest.approx(returns)


def test_ppo_teaches_its_critic_the_return_and_whitens_its_advantages():
    tree = independent_runs(1, 0, 0, steps=2)
    for node in tree.nodes:
        node.value = 0.25 if node.children else None
    PPO(lambda_gae=1).credit([tree])
    assert tree.root.value_target == pytest.approx(1 / 3)  # a state that all runs share
    assert [leaf.parent.value_target for leaf in tree.leaves] == pytest.approx([1, 0, 0])
    scores = [step.advantage for leaf in tree.leaves for step in leaf.steps]
    assert mean(scores) == pytest.approx(0, abs=1e-6) and mean([s * s for s in scores]) == pytest.approx(1, abs=1e-3)


def test_gae_with_true_values_is_unbiased():
    """On the enumerable process: the mean advantage of an action in a state is what it changes in V, for every λ."""
    process = PlantedProcess(clean=0, traps=traps("silent")[:2], steps_min=2, steps_max=2)
    policy, [task] = TabularPolicy.first(process), process.train(0, 0, 1)
    exact = process.values(task, policy.probabilities)
    value = lambda state: exact.get(state, 0.0)  # noqa: E731
    trees = grow(PPO(), process, policy, [task] * 300, key=(0,))
    seen: dict = {}
    for tree in trees:
        for node in tree.nodes:
            node.value = value(State() if node.parent is None else process.states(task, node)[-1])
        for leaf in tree.leaves:
            for step, advantage in zip(leaf.steps, PPO(lambda_gae=0.7).advantages(leaf), strict=True):
                before = State() if step.parent.parent is None else process.states(task, step.parent)[-1]
                after = process.states(task, step)[-1]
                truth = float(after.phase == "won") if after.is_over else value(after)
                seen.setdefault((before, step.action_tokens[0], truth - value(before)), []).append(advantage)
    for (_, _, truth), found in seen.items():
        spread = max(0.0, mean([a * a for a in found]) - mean(found) ** 2) ** 0.5
        assert mean(found) == pytest.approx(truth, abs=5 * spread / len(found) ** 0.5 + 1e-9)
