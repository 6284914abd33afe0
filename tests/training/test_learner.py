"""The learner on trees against the textbook on flattened runs: loss, gradients, bookkeeping.

The flattened side takes an unmodified model, and each run from the prompt to its leaf as a sequence of its own.
"""

import asyncio
import io
import itertools
import math
import random
from dataclasses import replace

import pytest
import torch

from firstfault.config import LearnerConfig, OptimizerConfig
from firstfault.credit import credit_run
from firstfault.engines.base import Sampling
from firstfault.engines.transformers import TransformersEngine
from firstfault.losses import clipped_surrogate, negative_log_likelihood, value_error
from firstfault.methods import GRPO
from firstfault.training import score as score_module
from firstfault.training.learner import Learner, micro_batches, term_batch
from firstfault.training.pack import pack, unique_tokens
from firstfault.tree import Task, Term, Tree


def make_learner(model, *, name="adamw", temperature=1.0, max_grad_norm=1e9, lr=1e-3, critic_step=None, **config):
    optimizer = OptimizerConfig(name=name, lr=lr, muon_lr=1e-2, max_grad_norm=max_grad_norm)
    config = LearnerConfig(**{"mini_batch": 64} | config)
    return Learner(model, optimizer, config, temperature=temperature, critic_step=critic_step)


def gradients(model, trees, loss=clipped_surrogate, *, ties=False, **config):
    """What the learner's update would hand to its optimizer, and its metrics."""
    learner = make_learner(model, **config)
    learner.optimizers.clear()
    metrics = learner.update(trees, loss, ties=ties)
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}, metrics


def flat_gradients(model, loss):
    parameters = dict(model.named_parameters())
    return dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))


def assert_same_gradients(ours, expected, tolerance=1e-4):
    assert ours.keys() == expected.keys()
    whole = torch.stack([g.norm() for g in expected.values()]).norm()
    assert whole > 1e-3
    for name, gradient in expected.items():
        distance = (ours[name] - gradient).norm()
        assert distance <= tolerance * gradient.norm() + 1e-6 * whole, (name, distance, gradient.norm())


# The textbook


def log_probs(model, leaf, temperature=1.0):
    """Of the actions of a run: [(step, log-probabilities of its action tokens)]."""
    tokens = torch.tensor([leaf.tokens])
    logprobs = torch.log_softmax(model(input_ids=tokens).logits[0, :-1] / temperature, -1)
    logprobs = logprobs.gather(-1, tokens[0, 1:, None])[:, 0]
    found, end = [], len(leaf.path[0].observation_tokens)
    for step in leaf.steps:
        found.append((step, logprobs[end - 1 : end - 1 + len(step.action_tokens)]))
        end += len(step.action_tokens) + len(step.observation_tokens)
    return found


def flat_loss(model, trees, credit, temperature=1.0):
    """-Σ w min(ρ A, clip(ρ) A) / Σ w over all tokens of all runs; `credit(leaf, step)` gives A, w and the bounds."""
    total, gains, terms, clipped = 0.0, 0.0, 0, 0
    for tree in trees:
        for leaf in tree.leaves:
            for step, logprobs in log_probs(model, leaf, temperature):
                advantage, weight, low, high = credit(leaf, step)
                advantage = torch.as_tensor(advantage).expand(len(logprobs))
                for logprob, old, a in zip(logprobs, step.logprobs, advantage, strict=True):
                    ratio = torch.exp(logprob - old)
                    bound = ratio.clamp(1 - low, 1 + high)
                    gains = gains + weight * torch.min(ratio * a, bound * a)
                    total += weight
                    terms += 1
                    clipped += bool(ratio * a > bound * a)
    return -gains / total, clipped / terms


def perturb(model, trees, temperature=1.0):
    """Old log-probabilities around those of the model, so that ratios reach from 0.5 to 2."""
    rng = random.Random(5)
    with torch.no_grad():
        for tree in trees:
            for leaf in tree.leaves:
                for step, logprobs in log_probs(model, leaf, temperature):
                    step.logprobs = logprobs.tolist()
            for step in tree.steps:
                step.logprobs = [logprob + rng.uniform(-0.7, 0.7) for logprob in step.logprobs]


def numbers(*what):
    """A random number that depends on `what` alone."""
    return random.Random(str(what))


# Methods: what they write on the tree, and what that means for each step of each flattened run


def length(leaf):
    return sum(len(step.action_tokens) for step in leaf.steps)


def of_node(step):
    """One advantage per node, with bounds of its own."""
    draw = numbers("node", step.index)
    return draw.uniform(-2, 2), draw.choice([0.2, 0.315]), draw.choice([0.2, 0.35])


def node_advantage(step):
    return of_node(step)[0]


def token_advantages(step):
    draw = numbers("token", step.index)
    return [draw.uniform(-2, 2) for _ in step.action_tokens]


def per_node(advantage, run_weight, shared):
    def write(tree):
        for step in tree.steps:
            weights = [run_weight(leaf) for leaf in step.leaves]
            weight = sum(weights) if shared == "per-leaf" else sum(weights) / len(weights)
            step.terms = [Term(advantage(step), weight, *of_node(step)[1:])]

    def credit(leaf, step):
        times = 1 if shared == "per-leaf" else len(step.leaves)
        return advantage(step), run_weight(leaf) / times, *of_node(step)[1:]

    return write, credit


def per_leaf(aggregation):
    def write(tree):
        GRPO(aggregation=aggregation).credit([tree])

    def credit(leaf, step):
        rewards = torch.tensor([other.reward for other in step.path[0].leaves])
        advantage = (leaf.reward - rewards.mean()) / (rewards.std(correction=0) + 1e-6)
        return advantage, 1 / length(leaf) if aggregation == "sequence" else 1.0, 0.2, 0.2

    return write, credit


METHODS = {
    "a term per node, once per leaf": per_node(node_advantage, lambda leaf: 1 / length(leaf), "per-leaf"),
    "a term per node, counted once": per_node(node_advantage, lambda leaf: 1 / length(leaf), "once"),
    "a term per node, every token alike": per_node(node_advantage, lambda leaf: 1.0, "per-leaf"),
    "advantages per token": per_node(token_advantages, lambda leaf: 1 / length(leaf), "per-leaf"),
    "a term per leaf": per_leaf("sequence"),
    "a term per leaf, every token alike": per_leaf("token"),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("architecture", ["qwen2", "qwen3", "llama"])
def test_loss_and_gradients_on_trees_are_those_on_flattened_runs(make_model, forest, architecture, method):
    write, credit = METHODS[method]
    trees, plain = forest(), make_model(architecture)
    perturb(plain, trees)
    for tree in trees:
        write(tree)
    ours, metrics = gradients(make_model(architecture), trees)
    loss, clip_share = flat_loss(plain, trees, credit)
    assert 0.1 < clip_share < 0.5
    assert metrics["loss"] == pytest.approx(loss.item(), abs=1e-5)
    assert_same_gradients(ours, flat_gradients(plain, loss))


@pytest.mark.parametrize("seed", range(10, 16))
def test_gradients_agree_on_a_random_tree(make_model, make_tree, seed):
    tree, plain = make_tree(seed), make_model()
    perturb(plain, [tree])
    write, credit = METHODS["advantages per token" if seed % 2 else "a term per node, once per leaf"]
    write(tree)
    ours, _ = gradients(make_model(), [tree])
    assert_same_gradients(ours, flat_gradients(plain, flat_loss(plain, [tree], credit)[0]))


def test_gradients_agree_at_the_temperature_of_sampling(make_model, make_tree):
    trees, plain = [make_tree("three levels"), make_tree(0)], make_model()
    perturb(plain, trees, temperature=0.7)
    write, credit = METHODS["a term per leaf"]
    for tree in trees:
        write(tree)
    ours, metrics = gradients(make_model(), trees, temperature=0.7)
    loss, _ = flat_loss(plain, trees, credit, temperature=0.7)
    assert metrics["loss"] == pytest.approx(loss.item(), abs=1e-5)
    assert_same_gradients(ours, flat_gradients(plain, loss))


def test_tied_embeddings_collect_both_gradients(make_model, make_tree):
    trees, plain = [make_tree("three levels")], make_model(tie_word_embeddings=True)
    perturb(plain, trees)
    write, credit = METHODS["a term per leaf"]
    write(trees[0])
    ours, _ = gradients(make_model(tie_word_embeddings=True), trees)
    assert_same_gradients(ours, flat_gradients(plain, flat_loss(plain, trees, credit)[0]))


def test_a_clipped_sum_is_not_the_sum_of_what_is_clipped():
    """A shared token with ratio 1.5 under advantages +2 and -1: the first is clipped to 1.2, the second is not."""
    tree = Tree(Task("", ""), prompt=[1])
    step = tree.add(tree.root, rollout=0, action_tokens=[2], logprobs=[0.0])

    def loss():
        packed = pack([tree])
        return clipped_surrogate(term_batch(packed, torch.tensor([1.5]).log(), 1.0)).item()

    step.terms = [Term(2.0, 0.5, 0.2, 0.2), Term(-1.0, 0.5, 0.2, 0.2)]
    assert loss() == pytest.approx(-(2.0 * 1.2 - 1.5) / 2)
    step.terms = [Term(1.0, 0.5, 0.2, 0.2)]
    assert loss() == pytest.approx(-1.2 / 2)


# The expectation of the estimator, by enumeration


def test_the_mean_gradient_of_grpo_is_its_exact_expectation(make_model):
    """One step, three possible tokens, groups of three runs: all 27 groups by their probability.

    E[∇ 1/3 Σ A_i ln π(a_i)] = Σ_a ∇π(a) E[A_1 | a_1 = a].
    """
    rewards, group = [0.0, 1.0, 0.3], 3
    prompt = [0, 2, 1]
    plain = make_model(vocab_size=3)
    probs = torch.softmax(plain(input_ids=torch.tensor([prompt])).logits[0, -1], -1)

    def first_advantage(tokens):
        values = [rewards[token] for token in tokens]
        mean = sum(values) / group
        std = math.sqrt(sum((value - mean) ** 2 for value in values) / group)
        return (values[0] - mean) / (std + 1e-6)

    closed = 0.0
    for token in range(3):
        expected = sum(
            probs[others[0]].item() * probs[others[1]].item() * first_advantage((token, *others))
            for others in itertools.product(range(3), repeat=2)
        )
        closed = closed - probs[token] * expected
    expected = flat_gradients(plain, closed)

    mean = {name: torch.zeros_like(gradient) for name, gradient in expected.items()}
    for tokens in itertools.product(range(3), repeat=group):
        tree = Tree(Task("", ""), prompt=prompt)
        for i, token in enumerate(tokens):
            tree.add(tree.root, rollout=i, action_tokens=[token], logprobs=[probs[token].log().item()], end="answer",
                     reward=rewards[token], success=rewards[token] == 1)  # fmt: skip
        GRPO().credit([tree])
        ours, metrics = gradients(make_model(vocab_size=3), [tree])
        assert metrics["skipped_updates"] == (len(set(tokens)) == 1)
        for name, gradient in ours.items():
            mean[name] += math.prod(probs[token].item() for token in tokens) * gradient
    assert_same_gradients(mean, expected)


def test_the_mean_gradient_with_shared_prefixes_is_its_exact_expectation(make_model):
    """Runs that stop at once (token 0) or take a second step, in a group of two that share a first step they agree on.

    The tree must not change the estimator: E[∇ 1/2 Σ_i A_i / |run i| Σ_t ln π(a_t)] over independent runs.
    """
    prompt = [1, 2]
    runs = [(0,), *itertools.product([1, 2], range(3))]
    reward = {run: float(sum(run) % 2) for run in runs}
    plain = make_model(vocab_size=3)

    def log_prob(run):
        tokens = torch.tensor([prompt + list(run)])
        logprobs = torch.log_softmax(plain(input_ids=tokens).logits[0], -1)
        return torch.stack([logprobs[len(prompt) - 1 + t, token] for t, token in enumerate(run)])

    score = {run: log_prob(run) for run in runs}
    probability = {run: score[run].sum().exp().item() for run in runs}
    assert sum(probability.values()) == pytest.approx(1)

    loss = 0.0
    mean = {}
    for pair in itertools.product(runs, repeat=2):
        chance = probability[pair[0]] * probability[pair[1]]
        if reward[pair[0]] != reward[pair[1]]:
            for run in pair:  # z-scores of two different numbers are 1 and -1
                sign = 1 if reward[run] == 1 else -1
                loss = loss - chance * sign * score[run].mean() / 2
        tree = Tree(Task("", ""), prompt=prompt)
        firsts = {}
        for i, run in enumerate(pair):
            node = tree.root
            for t, token in enumerate(run):
                is_last = t == len(run) - 1
                if t == 0 and not is_last and token in firsts:
                    node = firsts[token]
                    continue
                node = tree.add(node, rollout=i, action_tokens=[token], logprobs=[score[run][t].item()])
                if is_last:
                    node.end, node.reward, node.success = "answer", reward[run], reward[run] == 1
                elif t == 0:
                    firsts[token] = node
        GRPO().credit([tree])
        for name, gradient in gradients(make_model(vocab_size=3), [tree])[0].items():
            mean[name] = mean.get(name, 0.0) + chance * gradient
    assert_same_gradients(mean, flat_gradients(plain, loss))


# Batches


def credited(model, trees, method="a term per leaf"):
    perturb(model, trees)
    for tree in trees:
        METHODS[method][0](tree)
    return trees


@pytest.mark.parametrize("max_tokens", [1, 60, 120])
def test_micro_batches_add_up_to_the_whole(make_model, forest, max_tokens):
    trees = credited(make_model(), forest())
    whole, expected = gradients(make_model(), trees)
    ours, metrics = gradients(make_model(), trees, max_tokens=max_tokens)
    assert_same_gradients(ours, whole, tolerance=1e-5)
    assert metrics == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("max_tokens", "sizes"), [(1000, [7]), (1, [1] * 7), (60, None)])
def test_micro_batches_keep_to_their_bound(forest, max_tokens, sizes):
    trees = forest()
    batches = list(micro_batches(trees, max_tokens))
    assert sorted(map(id, itertools.chain(*batches))) == sorted(map(id, trees))
    for batch in batches:
        assert len(batch) == 1 or sum(map(unique_tokens, batch)) <= max_tokens
    assert sizes is None or [len(batch) for batch in batches] == sizes


@pytest.mark.parametrize("rows", [1, 7, 32])
def test_chunks_of_logits_change_nothing(make_model, forest, monkeypatch, rows):
    trees = credited(make_model(), forest())
    whole, expected = gradients(make_model(), trees)
    monkeypatch.setattr(score_module, "LOGITS", {"cpu": 1})
    monkeypatch.setattr(score_module, "MIN_ROWS", rows)
    ours, metrics = gradients(make_model(), trees)
    assert_same_gradients(ours, whole, tolerance=1e-5)
    assert metrics == pytest.approx(expected, rel=1e-4)


def without_signal(make_tree, which="a chain"):
    tree = make_tree(which)
    for leaf in tree.leaves:
        credit_run(leaf, 0.0, aggregation="sequence", clip_low=0.2, clip_high=0.2)
    return tree


def test_a_tree_without_gradient_counts_in_the_mean_of_its_mini_batch(make_model, make_tree):
    tree = credited(make_model(), [make_tree("forks at the root")])[0]  # four runs, all weights add up to 4
    alone, metrics = gradients(make_model(), [tree])
    ours, shared = gradients(make_model(), [tree, without_signal(make_tree)])  # a fifth run
    assert_same_gradients(ours, {name: g * 4 / 5 for name, g in alone.items()}, tolerance=1e-5)
    assert shared["loss"] == pytest.approx(metrics["loss"] * 4 / 5)
    assert shared["trained_tokens"] == metrics["trained_tokens"] == unique_tokens(tree)


def test_a_mini_batch_without_gradient_is_skipped(make_model, make_tree):
    model = make_model()
    learner = make_learner(model, mini_batch=2)
    before = {name: p.clone() for name, p in model.named_parameters()}
    metrics = learner.update([without_signal(make_tree) for _ in range(3)], clipped_surrogate)
    assert (metrics["updates"], metrics["skipped_updates"], metrics["trained_tokens"]) == (0, 2, 0)
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())
    assert learner.optimizers[0].state_dict()["state"] == {}
    assert learner.update([], clipped_surrogate)["updates"] == 0


def test_updates_per_batch_are_mini_batches_times_epochs(make_model, forest):
    trees = credited(make_model(), forest(), "a term per node, once per leaf")
    learner = make_learner(make_model(), mini_batch=3, epochs=2)
    metrics = learner.update(trees, clipped_surrogate, seed=(1,))
    assert metrics["updates"] == 2 * math.ceil(7 / 3)
    assert metrics["trained_tokens"] == 2 * sum(map(unique_tokens, trees))


def test_the_order_of_trees_comes_from_the_seed(make_model, forest):
    def trained(seed):
        model = make_model()
        trees = credited(make_model(), forest())
        make_learner(model, mini_batch=2).update(trees, clipped_surrogate, seed=seed)
        return model.lm_head.weight.detach()

    assert torch.equal(trained((1, 2)), trained((1, 2)))
    assert not torch.equal(trained((1, 2)), trained((1, 3)))


def test_gradients_are_scaled_down_to_the_norm(make_model, forest):
    trees = credited(make_model(), forest())
    whole, metrics = gradients(make_model(), trees)
    norm = torch.stack([g.norm() for g in whole.values()]).norm().item()
    ours, limited = gradients(make_model(), trees, max_grad_norm=norm / 4)
    assert metrics["gradient_norm"] == limited["gradient_norm"] == pytest.approx(norm, rel=1e-5)
    assert_same_gradients(ours, {name: g / 4 for name, g in whole.items()})


def test_supervised_learning_takes_the_log_likelihood_of_actions(make_model, make_tree):
    tree, plain = make_tree("a chain"), make_model()
    for step in tree.steps:
        step.terms = [Term(1.0, 1.0, 0.0, 0.0)]
    ours, metrics = gradients(make_model(), [tree], loss=negative_log_likelihood)
    loss = -torch.cat([logprobs for _, logprobs in log_probs(plain, tree.leaves[0])]).mean()
    assert metrics["loss"] == pytest.approx(loss.item(), abs=1e-5)
    assert_same_gradients(ours, flat_gradients(plain, loss))


# Metrics


def test_metrics_of_a_case_by_hand(make_model):
    """Two runs share a token. Ratios 1.5 and 0.5 are set by way of the old log-probabilities.

    token  ratio  terms (advantage, bounds 0.2 and 0.3)   clipped
    2      1.5    +1 (first run), -1 (second)             the first
    3      0.5    -1 (second run), localized              yes
    4      1.0    +1 (first run)                          no
    """
    plain = make_model()
    tree = Tree(Task("", ""), prompt=[1])
    shared = tree.add(tree.root, rollout=0, action_tokens=[2], observation_tokens=[9])
    won = tree.add(shared, rollout=0, action_tokens=[4], end="answer", reward=1.0, success=True)
    lost = tree.add(shared, rollout=1, action_tokens=[3], end="answer", reward=0.0, success=False)
    lost.critical = True
    entropies = {}
    for leaf, node, at, ratio in ((won, shared, 0, 1.5), (lost, lost, 2, 0.5), (won, won, 2, 1.0)):
        row = torch.log_softmax(plain(input_ids=torch.tensor([leaf.tokens])).logits[0, at], -1).detach()
        node.logprobs = [row[node.action_tokens[0]].item() - math.log(ratio)]
        entropies[node] = -(row.exp() * row).sum().item()
    for leaf, advantage in ((won, 1.0), (lost, -1.0)):
        credit_run(leaf, advantage, aggregation="sequence", clip_low=0.2, clip_high=0.3)
    _, metrics = gradients(make_model(), [tree])
    ratios = [1.5, 1.5, 0.5, 1.0]  # of the terms
    assert metrics == pytest.approx({
        "loss": -(1.3 - 1.5 - 0.8 + 1.0) / 4,
        "gradient_norm": metrics["gradient_norm"],
        "entropy": sum(entropies.values()) / 3,
        "kl_sampler": sum(r - 1 - math.log(r) for r in ratios) / 4,
        "ratio_mean": 4.5 / 4,
        "ratio_distance": 1.5 / 4,
        "clip_share": 2 / 4,
        "clip_share_localized": 1.0,
        "localized_share": 1 / 4,
        "updates": 1,
        "skipped_updates": 0,
        "trained_tokens": 5,
    }, abs=1e-4)  # fmt: skip


def test_sampler_and_learner_agree_on_probabilities(make_model):
    """A tree that the engine wrote, at the weights that wrote it: all ratios are 1."""
    model = make_model("qwen2")
    engine = TransformersEngine(model, None)
    sampling = Sampling(temperature=0.7, max_new_tokens=6)
    tree = Tree(Task("", ""), prompt=[1, 2, 3])

    async def grow():
        for rollout, parent in enumerate([0, 1, 1, 2, 0, 3, 3]):
            done = await engine.generate(tree.nodes[parent].tokens, sampling, (rollout,))
            tree.add(tree.nodes[parent], rollout=rollout, action_tokens=done.tokens, logprobs=done.logprobs,
                     observation_tokens=[rollout, 5])  # fmt: skip

    asyncio.run(grow())
    for step in tree.steps:
        step.terms = [Term(1.0, 1.0, 0.2, 0.2)]
    gradient, metrics = gradients(model, [tree], temperature=0.7)
    assert metrics["ratio_distance"] < 1e-5
    assert metrics["kl_sampler"] < 1e-8
    assert metrics["clip_share"] == 0
    assert gradient


# Optimizers


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("architecture", ["qwen2", "qwen3", "llama"])
def test_muon_takes_hidden_matrices_and_adamw_the_rest(make_model, architecture, tied):
    model = make_model(architecture, tie_word_embeddings=tied)
    muon, adamw = make_learner(model, name="muon").optimizers
    names = {id(p): name for name, p in model.named_parameters()}
    of = [[names[id(p)] for group in o.param_groups for p in group["params"]] for o in (muon, adamw)]
    assert sorted(of[0] + of[1]) == sorted(names.values())  # each exactly once
    assert all("_proj.weight" in name for name in of[0])
    assert not any("_proj.weight" in name for name in of[1])
    assert sum("embed" in name or "lm_head" in name for name in of[1]) == (1 if tied else 2)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_training_goes_on_bitwise_from_a_saved_state(make_model, forest, name):
    trees = credited(make_model(), forest())
    model = make_model()
    learner = make_learner(model, name=name, mini_batch=3)
    learner.update(trees, clipped_surrogate, seed=(0, 1))
    saved = io.BytesIO()
    torch.save({"model": learner.weights(), "learner": learner.state()}, saved)
    first = learner.update(trees, clipped_surrogate, seed=(0, 2))

    saved.seek(0)
    state = torch.load(saved, weights_only=True)
    other = make_model(seed=3)
    other.load_state_dict(state["model"])
    resumed = make_learner(other, name=name, mini_batch=3)
    resumed.load_state(state["learner"])
    assert resumed.update(trees, clipped_surrogate, seed=(0, 2)) == first
    for (parameter, p), q in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q), parameter


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_updates_raise_the_probability_of_what_succeeded(make_model, make_tree, name):
    tree = make_tree("forks at the root")
    model = make_model()
    with torch.no_grad():
        for leaf in tree.leaves:
            leaf.logprobs = log_probs(model, leaf)[0][1].tolist()
    GRPO().credit([tree])
    learner = make_learner(model, name=name, epochs=5)
    learner.update([tree], clipped_surrogate)
    with torch.no_grad():
        packed = pack([tree])
        ratios = (learner.logprobs(packed, learner.hidden(packed))[0] - packed.old_logprobs).exp().tolist()
    assert ratios[0] > 1.1  # "3", which succeeded
    assert ratios[4] < 0.9  # "7", which failed


def test_trees_without_credit_take_no_place_in_a_mini_batch(make_model, forest):
    trees = credited(make_model(), forest())
    bare = [Tree.from_json(tree.to_json()) for tree in trees]
    for node in (node for tree in bare for node in tree.nodes):
        node.terms = []
    alone, _ = gradients(make_model(), trees, mini_batch=100)
    ours, mixed = gradients(make_model(), [*bare, *trees], mini_batch=len(trees))
    assert mixed["updates"] == 1 and not mixed["skipped_updates"]
    assert_same_gradients(ours, alone, tolerance=1e-5)
    assert make_learner(make_model()).update(bare, clipped_surrogate)["updates"] == 0


def test_no_tree_refers_to_nothing(make_model):
    model = make_model()
    make_learner(model).refer([], model.state_dict())


# What some methods need besides


def test_reference_logprobs_are_those_of_the_other_weights(make_model, forest):
    model, other = make_model(), make_model()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trees = credited(model, forest())
    make_learner(model, max_tokens=40).refer(trees, other.state_dict())
    for leaf in (leaf for tree in trees for leaf in tree.leaves):
        for step, expected in log_probs(other, leaf):
            assert step.reference_logprobs == pytest.approx(expected.tolist(), abs=1e-4)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert trees[0].nodes[1].reference_logprobs != trees[0].nodes[1].logprobs


def test_a_distance_from_the_reference_is_learnt_where_no_advantage_is(make_model, forest):
    model, reference = make_model(), make_model().state_dict()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    trees = credited(model, forest())
    for node in (node for tree in trees for node in tree.nodes):
        node.terms = [replace(term, advantage=0.0) for term in node.terms]
    learner = make_learner(model, lr=1e-3)
    assert learner.update(trees, clipped_surrogate)["updates"] == 0
    learner.refer(trees, reference)
    far = [learner.update(trees, GRPO(kl=1.0).loss, ties=True)["kl_reference"] for _ in range(30)]
    assert far[-1] < far[0] / 4


@pytest.mark.parametrize("estimate", ["k2", "k3"])
def test_the_kl_term_on_trees_is_that_on_flattened_runs(make_model, forest, estimate):
    trees = credited(make_model(), forest())  # a term per leaf
    for step in (step for tree in trees for step in tree.steps):
        draw = numbers("reference", step.index)
        step.reference_logprobs = [logprob + draw.uniform(-1, 1) for logprob in step.logprobs]
    method = GRPO(kl=1.0, kl_estimate=estimate)
    ours, _ = gradients(make_model(), trees, method.kl_term, ties=method.learns_from_ties)

    def of_token(logprob, reference):
        d = reference - logprob
        return d**2 / 2 if estimate == "k2" else d.exp() - d - 1

    model, total, sums = make_model(), 0.0, 0.0
    for leaf in (leaf for tree in trees for leaf in tree.leaves):
        for step, logprobs in log_probs(model, leaf):
            [weight] = {term.weight for term in step.terms if term.run in (None, leaf.index)}
            total += weight * len(logprobs)
            for logprob, reference in zip(logprobs, step.reference_logprobs, strict=True):
                sums = sums + weight * of_token(logprob, reference)
    assert_same_gradients(ours, flat_gradients(model, sums / total))


def test_a_part_of_the_references_logprobs_is_refused(make_tree):
    tree = make_tree("three levels")
    tree.steps[0].reference_logprobs = [0.0] * len(tree.steps[0].action_tokens)
    with pytest.raises(ValueError, match=r"\d+ of \d+ action tokens have a reference's"):
        pack([tree])


def test_runs_and_trees_of_terms_and_states(make_tree):
    trees = [make_tree("three levels"), make_tree("forks at the root")]
    for tree in trees:
        for leaf in tree.leaves:
            credit_run(leaf, 1.0, aggregation="sequence", clip_low=0.2, clip_high=0.2)
    packed = pack(trees)
    runs = [(tree, leaf) for tree in range(2) for leaf in trees[tree].leaves]
    assert len(packed.term_run.unique()) == len(runs)
    for run in packed.term_run.unique():
        of_run = packed.term_run == run
        [tree] = packed.term_tree[of_run].unique().tolist()
        tokens = sorted(packed.targets[packed.term_token[of_run]].tolist())
        number = int(run) - (len(trees[0].nodes) if tree else 0)
        leaf = trees[tree].nodes[number]
        assert tokens == sorted(token for step in leaf.steps for token in step.action_tokens)
    assert packed.state_nodes == [n for tree in trees for n in depth_first(tree.root) if n.children]
    for node, at in zip(packed.state_nodes, packed.states.tolist(), strict=True):
        assert packed.plan.positions[at] == len(node.tokens) - 1 and packed.tokens[at] == node.tokens[-1]


def depth_first(node):
    yield node
    for child in node.children:
        yield from depth_first(child)


def test_the_critic_learns_what_it_is_taught(make_model, forest):
    learner = make_learner(make_model(), lr=3e-3, critic_step=0.1)
    trees = credited(make_model(), forest())
    states = [node for tree in trees for node in tree.nodes if node.children]
    for node in (node for tree in trees for node in tree.nodes):
        node.terms = []
        node.value_target = 0.3 * (sum(node.tokens) % 3) if node.children else None
    learner.value(trees)
    assert {node.value for tree in trees for node in tree.nodes} == {0.0, None}
    for _ in range(150):
        learner.update(trees, value_error)
    learner.value(trees)
    assert max(abs(node.value - node.value_target) for node in states) < 0.15
    again = make_learner(make_model(), critic_step=0.1)
    again.load_state(learner.state())
    assert torch.equal(again.critic.weight, learner.critic.weight)


@pytest.mark.parametrize("max_tokens", [1, 10_000])
def test_the_critics_error_is_a_mean_over_the_states_of_the_mini_batch(make_model, forest, max_tokens):
    trees = credited(make_model(), forest())
    for tree in trees:
        for node in tree.nodes:
            node.value_target = 1.0 if node.children else None
    learner = make_learner(make_model(), critic_step=0.1, max_tokens=max_tokens)
    assert learner.update(trees, value_error)["loss"] == pytest.approx(0.5)  # it says 0
