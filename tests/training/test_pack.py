"""Trees in one row: where everything stands, and that log-probabilities are those of the flattened runs."""

import pytest
import torch

from firstfault.attention import hidden_states, logits, use_planned_attention
from firstfault.training.pack import pack, unique_tokens
from firstfault.tree import Task, Term, Tree


def depth_first(tree):
    """The nodes in the order in which a pack lays them out."""
    nodes, stack = [], [tree.root]
    while stack:
        nodes.append(stack.pop())
        stack.extend(reversed(nodes[-1].children))
    return nodes


def packed_logprobs(model, packed):
    hidden = hidden_states(model, packed.tokens, packed.plan.positions, packed.plan)[packed.predicted_by]
    return torch.log_softmax(logits(model, hidden).float(), -1).gather(-1, packed.targets[:, None])[:, 0]


def flat_logprobs(model, tree):
    """Of each node's action tokens, from every run through it: {node: [run, tokens]}."""
    found = {node: [] for node in tree.steps}
    for leaf in tree.leaves:
        tokens = torch.tensor([leaf.tokens])
        logprobs = torch.log_softmax(model(input_ids=tokens).logits[0, :-1].float(), -1).gather(
            -1, tokens[0, 1:, None]
        )[:, 0]
        at = len(tree.root.observation_tokens) - 1
        for node in leaf.steps:
            found[node].append(logprobs[at : at + len(node.action_tokens)])
            at += len(node.action_tokens) + len(node.observation_tokens)
    return {node: torch.stack(runs) for node, runs in found.items()}


def test_every_token_stands_once_at_its_depth(make_tree):
    #   1 2 3 ─ 4 1 5 5 ─┬ 6 ─┬ 7 8 9
    #                    │    ├ 7
    #                    │    └ 0 1 2 ─┬ 3 1
    #                    │             └ 3 2
    #                    └ 8 5 9 4
    #         └ 2 2 1 ─┬ 3 1 4 4 4
    #                  └ 3
    packed = pack([make_tree("three levels")])
    assert packed.tokens.tolist() == [int(c) for c in "123 4155 6 789 7 012 31 32 8594 221 31444 3".replace(" ", "")]
    assert packed.plan.positions.tolist() == [
        *(0, 1, 2), *(3, 4, 5, 6), 7, *(8, 9, 10), 8, *(8, 9, 10), *(11, 12), *(11, 12), *(7, 8, 9, 10),
        *(3, 4, 5), *(6, 7, 8, 9, 10), 6,
    ]  # fmt: skip
    assert packed.targets.tolist() == [int(c) for c in "41 6 789 7 01 31 32 85 4 22 3 444 3".replace(" ", "")]
    assert packed.predicted_by.tolist() == [
        *(2, 3), 6, *(7, 8, 9), 7, *(7, 12), *(14, 15), *(14, 17), *(6, 19), 21, *(2, 23), 25, *(27, 28, 29), 25,
    ]  # fmt: skip


def test_unique_tokens_counts_shared_ones_once(forest):
    trees = forest()
    assert unique_tokens(trees[0]) == 32
    assert len(pack(trees).tokens) == sum(unique_tokens(tree) for tree in trees)


@pytest.mark.parametrize("seed", range(5))
def test_branches_without_credit_are_not_computed(make_model, make_tree, seed):
    model, tree = use_planned_attention(make_model()), make_tree(seed)
    with torch.no_grad():
        whole, all_tokens = by_step(model, tree), unique_tokens(tree)
        for leaf in tree.leaves[::2]:
            leaf.terms = [Term(1.0, 1.0, 0.2, 0.2)]
        ours = by_step(model, tree)
    assert ours.keys() == {node for leaf in tree.leaves[::2] for node in leaf.path}
    assert len(pack([tree]).tokens) == unique_tokens(tree) < all_tokens
    for node, logprobs in ours.items():
        torch.testing.assert_close(logprobs, whole[node], atol=1e-5, rtol=0)


def by_step(model, tree):
    packed = pack([tree])
    logprobs = packed_logprobs(model, packed).split([len(node.action_tokens) for node in packed.steps])
    return dict(zip(packed.steps, logprobs, strict=True))


def test_the_first_token_of_every_branch_is_predicted_by_the_last_of_the_parent(forest):
    for tree in forest():
        packed, at = pack([tree]), 0
        for node in depth_first(tree)[1:]:
            before = packed.predicted_by[at].item()
            assert packed.tokens[before] == node.parent.tokens[-1]
            assert packed.plan.positions[before] == len(node.parent.tokens) - 1
            at += len(node.action_tokens)


def test_localized_is_all_that_stands_at_or_behind_a_critical_step(make_tree):
    tree = make_tree("three levels")
    critical = tree.root.children[0].children[0]
    critical.critical = True
    packed = pack([tree])
    expected = [node in critical.subtree for node in depth_first(tree)[1:] for _ in node.action_tokens]
    assert packed.localized.tolist() == expected
    assert 0 < sum(expected) < len(expected)


def test_terms_point_at_their_tokens_and_keep_their_numbers():
    tree = Tree(Task("", ""), prompt=[1])
    step = tree.add(tree.root, rollout=0, action_tokens=[2, 3], logprobs=[-0.1, -0.2], observation_tokens=[4])
    tree.add(step, rollout=0, action_tokens=[5], logprobs=[-0.3])
    leaf = tree.add(step, rollout=1, action_tokens=[6, 7], logprobs=[-0.4, -0.5])
    step.terms = [Term(1.0, 0.5, 0.1, 0.2), Term([-1.0, -2.0], 0.25, 0.3, 0.4)]
    leaf.terms = [Term(3.0, 2.0, 0.0, 1.0)]
    packed = pack([tree])
    rows = zip(
        packed.targets[packed.term_token].tolist(),
        packed.old_logprobs[packed.term_token].tolist(),
        *(x.tolist() for x in (packed.advantages, packed.weights, packed.clip_low, packed.clip_high)),
        strict=True,
    )
    assert [pytest.approx(row) for row in rows] == [
        (2, -0.1, 1.0, 0.5, 0.1, 0.2),
        (3, -0.2, 1.0, 0.5, 0.1, 0.2),
        (2, -0.1, -1.0, 0.25, 0.3, 0.4),
        (3, -0.2, -2.0, 0.25, 0.3, 0.4),
        (6, -0.4, 3.0, 2.0, 0.0, 1.0),
        (7, -0.5, 3.0, 2.0, 0.0, 1.0),
    ]


@pytest.mark.parametrize("advantages", [[1.0], [1.0, 2.0, 3.0], []])
def test_advantages_that_do_not_match_the_action_are_refused(make_tree, advantages):
    tree = make_tree("a chain")
    tree.steps[0].terms = [Term(advantages, 1.0, 0.2, 0.2)]  # on two tokens
    with pytest.raises(ValueError, match=f"{len(advantages)} advantages on 2 tokens"):
        pack([tree])


def test_log_probabilities_that_do_not_match_the_action_are_refused(make_tree):
    tree = make_tree("a chain")
    tree.steps[0].logprobs = [-1.0]
    with pytest.raises(ValueError, match="step 1 has 1 log-probabilities on 2 tokens"):
        pack([tree])


@pytest.mark.parametrize("architecture", ["qwen2", "qwen3", "llama"])
def test_log_probabilities_are_those_of_every_flattened_run(make_model, forest, architecture):
    trees = forest()
    model, plain = use_planned_attention(make_model(architecture)), make_model(architecture)
    with torch.no_grad():
        together = packed_logprobs(model, pack(trees))
        for tree in trees:
            flat = flat_logprobs(plain, tree)
            expected = torch.cat([flat[node][0] for node in depth_first(tree)[1:]])
            torch.testing.assert_close(packed_logprobs(model, pack([tree])), expected, atol=1e-5, rtol=0)
            ours, together = together[: len(expected)], together[len(expected) :]
            torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)  # trees of a pack don't see each other
            for runs in flat.values():  # so that it does not matter which run was taken
                torch.testing.assert_close(runs, runs[:1].expand_as(runs), atol=1e-5, rtol=0)
    assert len(together) == 0


@pytest.mark.parametrize("architecture", ["qwen2", "qwen3", "llama"])
def test_in_bfloat16_trees_are_as_near_to_the_truth_as_flattened_runs(make_model, forest, architecture):
    truth, plain = make_model(architecture), make_model(architecture).to(torch.bfloat16)
    model = use_planned_attention(make_model(architecture).to(torch.bfloat16))
    ours, flattened = [], []
    with torch.no_grad():
        for tree in forest():
            expected, flat = flat_logprobs(truth, tree), flat_logprobs(plain, tree)
            nodes = depth_first(tree)[1:]
            expected = torch.cat([expected[node][0] for node in nodes])
            ours.append(packed_logprobs(model, pack([tree])) - expected)
            flattened.append(torch.cat([flat[node][0] for node in nodes]) - expected)
    ours, flattened = torch.cat(ours), torch.cat(flattened)
    assert 0 < flattened.abs().mean() < 0.05  # nats, of a random model whose distributions are steep
    assert ours.abs().mean() < 1.2 * flattened.abs().mean() and ours.abs().max() < 1.5 * flattened.abs().max()


def test_long_segments_are_taken_piece_by_piece(make_model):
    tree = Tree(Task("", ""), prompt=[1] * 30)
    step = tree.add(tree.root, rollout=0, action_tokens=[2] * 700, logprobs=[-1.0] * 700, observation_tokens=[3] * 20)
    for token in (4, 5):
        tree.add(step, rollout=0, action_tokens=[token] * 300, logprobs=[-1.0] * 300, end="answer", success=True)
    packed = pack([tree])
    assert max(mask.shape[2] for mask in packed.plan.masks) == 256
    area = sum(mask.numel() for mask in packed.plan.masks)
    assert area < 0.85 * (750**2 + 2 * 300 * 1050)  # that of whole segments
    with torch.no_grad():
        ours = packed_logprobs(use_planned_attention(make_model()), packed)
        flat = flat_logprobs(make_model(), tree)
    torch.testing.assert_close(ours, torch.cat([flat[node][0] for node in depth_first(tree)[1:]]), atol=1e-5, rtol=0)


def test_a_tree_of_the_prompt_alone_has_no_action(make_model):
    packed = pack([Tree(Task("", ""), prompt=[1, 2, 3])])
    model = use_planned_attention(make_model())
    assert hidden_states(model, packed.tokens, packed.plan.positions, packed.plan).shape == (3, 32)
    assert packed.targets.tolist() == packed.advantages.tolist() == []


def test_a_branch_sees_its_ancestors_and_nothing_else(make_model, make_tree):
    model = use_planned_attention(make_model())
    tree = make_tree("three levels")
    packed = pack([tree])

    def hidden(packed):
        with torch.no_grad():
            return hidden_states(model, packed.tokens, packed.plan.positions, packed.plan)

    before = hidden(packed)
    at = 0  # each token is changed in turn, and must move itself and exactly what stands behind it
    for node in depth_first(tree):
        length = len(node.action_tokens) + len(node.observation_tokens)
        first = at
        for _ in range(length):
            packed.tokens[at] += 30
            moved = (hidden(packed) - before).abs().amax(-1) > 1e-6
            packed.tokens[at] -= 30
            behind, start = set(range(at, first + length)), 0
            for other in depth_first(tree):
                own = len(other.action_tokens) + len(other.observation_tokens)
                if other is not node and other in node.subtree:
                    behind |= set(range(start, start + own))
                start += own
            assert set(torch.nonzero(moved)[:, 0].tolist()) == behind
            at += 1
