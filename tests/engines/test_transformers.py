"""The local engine against a plain forward pass of the same model with the attention it came with."""

import asyncio
import copy
import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from transformers import (
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen3NextConfig,
    Qwen3NextForCausalLM,
)

from firstfault.engines.base import Sampling
from firstfault.engines.transformers import TransformersEngine, sample
from firstfault.errors import UserError
from firstfault.training.pack import unique_tokens
from firstfault.tree import Node, Task, Tree

TOKEN = 2 * 2 * 2 * 8 * 4  # bytes of the keys and values of one token: 2 layers, 2 heads of 8 floats
PROMPTS = [[3, 1, 4, 1, 5], [9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2], [3, 1, 4, 2], [3, 1], [7] * 20]
SAMPLING = Sampling(max_new_tokens=8)


def generate(engine, *requests):
    """The completions of requests (tokens, sampling, key) that are made together."""

    async def main():
        return await asyncio.gather(*(engine.generate(*request) for request in requests))

    return asyncio.run(asyncio.wait_for(main(), timeout=60))  # a request that is forgotten must not hang the tests


def logits_after(model, tokens):
    with torch.inference_mode():
        return model(input_ids=torch.tensor([tokens])).logits[0].double()


# What is written, and what is said about it


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("architecture", ["qwen2", "qwen3", "llama"])
def test_log_probabilities_and_entropies_are_the_models_own(make_model, architecture, temperature):
    engine = TransformersEngine(make_model(architecture), None)
    sampling = replace(SAMPLING, temperature=temperature)
    prompts = [PROMPTS[0], PROMPTS[1], PROMPTS[4], [2]]
    done = generate(engine, *((prompt, sampling, (1, i)) for i, prompt in enumerate(prompts)))
    assert engine.counts["passes"] == 8  # prompts of all lengths joined in the first
    plain = make_model(architecture)
    for prompt, completion in zip(prompts, done, strict=True):
        logprobs = torch.log_softmax(logits_after(plain, prompt + completion.tokens) / temperature, -1)[
            len(prompt) - 1 :
        ]
        for token, logprob, entropy, row in zip(
            completion.tokens, completion.logprobs, completion.entropies, logprobs, strict=False
        ):
            assert logprob == pytest.approx(row[token].item(), abs=1e-4)
            assert entropy == pytest.approx(-(row.exp() * row).sum().item(), abs=1e-4)
        assert len(completion.tokens) == len(completion.logprobs) == len(completion.entropies) == 8


def test_temperature_0_takes_the_likeliest_token_and_tells_its_probability_at_1(make_model):
    model = make_model()
    (done,) = generate(TransformersEngine(make_model(), None), (PROMPTS[0], replace(SAMPLING, temperature=0.0), (1,)))
    tokens = list(PROMPTS[0])
    for token, logprob in zip(done.tokens, done.logprobs, strict=True):
        row = torch.log_softmax(logits_after(model, tokens)[-1], -1)
        assert token == row.argmax()
        assert logprob == pytest.approx(row[token].item(), abs=1e-4)
        tokens.append(token)


# Nothing is computed twice


def grow(engine: TransformersEngine, tree: Tree, node: Node, rollout: int, steps: int) -> Node:
    """A run of `steps` steps below `node`, each answered by one to three tokens."""
    for step in range(steps):
        (done,) = generate(engine, (node.tokens, SAMPLING, (rollout, step)))
        answer = [rollout % 64, step, 63][: 1 + (rollout + step) % 3]
        node = tree.add(node, rollout=rollout, action_tokens=done.tokens, observation_tokens=answer)
    node.observation_tokens, node.end = [], "answer"
    return node


@pytest.mark.parametrize("architecture", ["qwen2", "qwen3", "llama"])
def test_branching_from_every_step_recomputes_nothing(make_model, architecture):
    engine = TransformersEngine(make_model(architecture), None)
    tree = Tree(Task("", ""), prompt=PROMPTS[1])
    leaf = grow(engine, tree, tree.root, rollout=0, steps=4)
    rollouts = 1
    for node in [*leaf.path[:-1], leaf.parent, tree.root]:
        other = grow(engine, tree, node, rollout=rollouts, steps=2)
        grow(engine, tree, other.parent, rollout=rollouts + 1, steps=1)
        rollouts += 2
    assert engine.counts["recomputed_tokens"] == 0
    # all but the last token of each run, which nobody needed to read
    assert engine.counts["computed_tokens"] == unique_tokens(tree) - len(tree.leaves)
    assert engine.counts["generated_tokens"] == sum(len(node.action_tokens) for node in tree.steps)


def test_a_prompt_asked_for_many_times_at_once_is_computed_once(make_model):
    engine = TransformersEngine(make_model(), None)
    shared, other = PROMPTS[1], [*PROMPTS[1][:6], 0, 0]
    generate(engine, *((shared, SAMPLING, (1, i)) for i in range(4)), (other, SAMPLING, (1, 4)))
    assert engine.counts["computed_tokens"] == len(shared) + len(other) - 6 + 5 * 7
    assert engine.counts["recomputed_tokens"] == 0
    generate(engine, (shared, replace(SAMPLING, max_new_tokens=1), (1, 5)))  # known to its end: no pass at all
    assert engine.counts["computed_tokens"] == len(shared) + len(other) - 6 + 5 * 7


def test_a_prompt_that_ends_inside_another_computes_its_last_token_again(make_model):
    engine = TransformersEngine(make_model(), None)
    one = replace(SAMPLING, max_new_tokens=1)
    generate(engine, (PROMPTS[1], one, (1,)))
    before = engine.counts["computed_tokens"]
    (done,) = generate(engine, (PROMPTS[1][:7], one, (2,)))
    assert (engine.counts["computed_tokens"] - before, engine.counts["recomputed_tokens"]) == (1, 1)
    (fresh,) = generate(TransformersEngine(make_model(), None), (PROMPTS[1][:7], one, (2,)))
    assert (done.tokens, done.logprobs) == (fresh.tokens, pytest.approx(fresh.logprobs, abs=1e-5))


def test_a_small_cache_costs_passes_but_changes_nothing(make_model):
    def run(cache_gb: float):
        engine = TransformersEngine(make_model(), None, cache_gb=cache_gb)
        tree = Tree(Task("", ""), prompt=PROMPTS[1])
        leaf = grow(engine, tree, tree.root, rollout=0, steps=3)
        for rollout, node in enumerate(leaf.path[:-1], start=1):
            grow(engine, tree, node, rollout=rollout, steps=2)
        return tree, engine.counts

    (whole, counts), (squeezed, more) = run(2.0), run(15 * TOKEN / 2**30)
    assert [node.action_tokens for node in squeezed.nodes] == [node.action_tokens for node in whole.nodes]
    assert counts["recomputed_tokens"] == 0 < more["recomputed_tokens"]
    assert more["computed_tokens"] == counts["computed_tokens"] + more["recomputed_tokens"]


# Randomness comes from the key alone


async def alone(engine, request, others):
    return await engine.generate(*request)


async def first(engine, request, others):
    return (await asyncio.gather(*(engine.generate(*r) for r in [request, *others])))[0]


async def last(engine, request, others):
    return (await asyncio.gather(*(engine.generate(*r) for r in [*others, request])))[-1]


async def late(engine, request, others):
    """The others are in the middle of their completions."""
    tasks = [asyncio.create_task(engine.generate(*r)) for r in others]
    while engine.counts["passes"] < 3:
        await asyncio.sleep(0)
    done = await engine.generate(*request)
    await asyncio.gather(*tasks)
    return done


async def after(engine, request, others):
    """The prompt is in the cache."""
    await asyncio.gather(*(engine.generate(*r) for r in others))
    return await engine.generate(*request)


@pytest.mark.parametrize("limits", [{}, {"max_batch": 1}, {"max_batch": 3}, {"max_prefill": 4}, {"cache_gb": 1e-9}])
@pytest.mark.parametrize("company", [alone, first, last, late, after])
def test_a_key_gives_the_same_completion_in_any_company(make_model, company, limits):
    sampling = Sampling(max_new_tokens=12, stop_tokens=frozenset({5}))
    request = (PROMPTS[1], replace(sampling, max_new_tokens=16), (7, 1, 2))
    others = [(prompt, sampling, (7, 0, i)) for i, prompt in enumerate([*PROMPTS, PROMPTS[1][:8], PROMPTS[1]])]
    (expected,) = generate(TransformersEngine(make_model(), None), request)
    done = asyncio.run(company(TransformersEngine(make_model(), None, **limits), request, others))
    assert done.tokens == expected.tokens
    assert done.stop_reason == expected.stop_reason
    assert done.logprobs == pytest.approx(expected.logprobs, abs=1e-5)
    assert done.entropies == pytest.approx(expected.entropies, abs=1e-5)


def test_another_key_gives_another_completion(make_model):
    engine = TransformersEngine(make_model(), None)
    done = generate(engine, *((PROMPTS[0], SAMPLING, (1, i)) for i in range(6)))
    assert len({tuple(completion.tokens) for completion in done}) == 6


def test_prompts_join_within_max_prefill_and_a_longer_one_joins_alone(make_model):
    engine = TransformersEngine(make_model(), None, max_prefill=12)
    one = replace(SAMPLING, max_new_tokens=1)
    generate(engine, *(([i] * length, one, (i,)) for i, length in enumerate([30, 5, 7, 5])))
    assert engine.counts["passes"] == 3  # 30; 5 + 7; 5
    assert engine.counts["rows"] == 4


# Drawing a token


GRID = [(i + 0.5) / 1000 for i in range(1000)]


@pytest.mark.parametrize(
    ("temperature", "top_p", "shares"),
    [
        (1.0, 1.0, [0.1, 0.4, 0.2, 0.3]),
        (0.5, 1.0, [1 / 30, 16 / 30, 4 / 30, 9 / 30]),  # squares, normalized
        (1.0, 0.7, [0, 4 / 7, 0, 3 / 7]),  # 0.4 + 0.3 is just enough
        (1.0, 0.71, [0, 4 / 9, 2 / 9, 3 / 9]),
        (1.0, 0.01, [0, 1, 0, 0]),
        (0.0, 1.0, [0, 1, 0, 0]),
        (0.0, 0.5, [0, 1, 0, 0]),
    ],
)
def test_tokens_are_drawn_as_often_as_their_probability_says(temperature, top_p, shares):
    probs = torch.tensor([0.1, 0.4, 0.2, 0.3], dtype=torch.float64)
    rows = len(GRID)
    if top_p == 0.7:  # clear of the rounding of 0.4 + 0.3 in float32
        top_p -= 1e-6
    tokens, logprobs, entropies = sample(
        probs.log().float().expand(rows, -1), [Sampling(temperature, top_p)] * rows, GRID
    )
    for token, share in enumerate(shares):
        assert tokens.count(token) / rows == pytest.approx(share, abs=1.01e-3)
    assert tokens == sorted(tokens)  # the inverse of the cumulative distribution
    whole = probs ** (1 / (temperature or 1.0))
    whole /= whole.sum()
    assert logprobs == pytest.approx([whole[token].log().item() for token in tokens], abs=1e-6)
    assert entropies == pytest.approx([-(whole * whole.log()).sum().item()] * rows, abs=1e-6)


def test_each_row_is_drawn_by_its_own_settings():
    row = torch.tensor([0.1, 0.4, 0.2, 0.3]).log()
    settings = [Sampling(), Sampling(top_p=0.5), Sampling(temperature=0.0), Sampling(0.5, 0.9)]
    for noise in (0.02, 0.3, 0.6, 0.95):
        apart = [sample(row[None], [s], [noise]) for s in settings]
        together = sample(row.expand(4, -1), settings, [noise] * 4)
        assert together == tuple([x[i][0] for x in apart] for i in range(3))


def test_a_nucleus_of_one_row_takes_nothing_from_another():
    logits = torch.tensor([[0.0, -20.7]])  # 1 and 1e-9: in float32, the first alone adds up to 1
    noise = 1 - 1e-10
    assert sample(logits, [Sampling()], [noise])[0] == [1]
    assert sample(logits.expand(2, -1), [Sampling(), Sampling(top_p=0.5)], [noise, noise])[0] == [1, 0]


@pytest.mark.parametrize("noise", [0.0, 1 - 2**-53])
def test_a_token_without_probability_is_never_drawn(noise):
    logits = torch.tensor([[-math.inf, 1.0, -math.inf, 0.0, -math.inf]])
    (token,), _, _ = sample(logits, [Sampling()], [noise])
    assert token == (1 if noise == 0 else 3)
    (token,), _, _ = sample(logits, [Sampling(top_p=0.5)], [noise])
    assert token == 1


# Where a completion ends


def test_a_stop_token_ends_the_completion_and_is_kept(make_model):
    engine = TransformersEngine(make_model(), None)
    (free,) = generate(engine, (PROMPTS[0], SAMPLING, (1,)))
    assert (len(free.tokens), free.stop_reason) == (8, "length")
    for at, stop in enumerate(free.tokens):
        first = free.tokens.index(stop)
        (done,) = generate(engine, (PROMPTS[0], replace(SAMPLING, stop_tokens=frozenset({stop, 64})), (1,)))
        assert (done.tokens, done.stop_reason) == (free.tokens[: first + 1], "stop")
        assert first <= at


@pytest.fixture
def writer(make_model, make_tokenizer):
    """An engine whose model continues the first token of TEXT with the rest of it, where it is greedy."""
    tokenizer = make_tokenizer()
    tokens = tokenizer.encode(TEXT)
    assert len(set(tokens)) == len(tokens)
    model = make_model(vocab_size=len(tokenizer))
    with torch.no_grad():
        for layer in model.model.layers:  # so that the last token alone decides
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.lm_head.weight.zero_()
        for token, following in pairwise(tokens):
            model.lm_head.weight[following] = torch.nn.functional.normalize(
                model.model.embed_tokens.weight[token] * model.model.norm.weight, dim=0
            )
    return TransformersEngine(model, tokenizer), tokens


TEXT = "<|im_start|>caf😀</end>\n7"


@pytest.mark.parametrize(
    "stops",
    [
        ("</end>",),
        ("f😀</",),  # starts inside a token or at its beginning, ends in the middle of another's text
        ("😀",),  # one character of several tokens
        ("d>\n",),
        ("nowhere", "end"),
        ("caf😀</end>\n",),
    ],
)
def test_a_stop_string_ends_the_completion_at_the_token_that_completes_it(writer, stops):
    engine, tokens = writer
    settings = Sampling(temperature=0.0, max_new_tokens=len(tokens) - 1, stop_strings=stops)
    (done,) = generate(engine, (tokens[:1], settings, (1,)))
    texts = [engine.tokenizer.decode(tokens[1 : n + 1]) for n in range(len(tokens))]
    expected = next(n for n, text in enumerate(texts) if any(stop in text for stop in stops))
    assert (done.tokens, done.stop_reason) == (tokens[1 : expected + 1], "stop")
    assert expected > 1


def test_a_stop_string_in_the_prompt_or_nowhere_stops_nothing(writer):
    engine, tokens = writer
    settings = Sampling(temperature=0.0, max_new_tokens=len(tokens) - 4, stop_strings=("caf", "nowhere"))
    (done,) = generate(engine, (tokens[:4], settings, (1,)))
    assert (done.tokens, done.stop_reason) == (tokens[4:], "length")


# New weights, errors, models that can't be used


def test_new_weights_clear_the_cache_and_change_what_follows(make_model):
    engine = TransformersEngine(make_model(seed=0), None)
    request = (PROMPTS[1], SAMPLING, (1,))
    (before,) = generate(engine, request)
    engine.load(make_model(seed=1).state_dict())
    engine.counts.clear()
    (after,) = generate(engine, request)
    assert [after] == generate(TransformersEngine(make_model(seed=1), None), request) != [before]
    assert engine.counts["computed_tokens"] == len(PROMPTS[1]) + 7
    assert engine.counts["recomputed_tokens"] == 0  # that was another policy


def test_weights_trained_in_place_are_taken_up_by_load(make_model):
    model = make_model(seed=0)
    engine = TransformersEngine(model, None)
    request = (PROMPTS[1], SAMPLING, (1,))
    generate(engine, request)
    model.load_state_dict(make_model(seed=1).state_dict())
    engine.load(model.state_dict())
    assert generate(engine, request) == generate(TransformersEngine(make_model(seed=1), None), request)


@pytest.mark.parametrize("max_batch", [64, 1])
def test_an_error_reaches_all_who_wait_and_the_engine_works_again(make_model, max_batch):
    engine = TransformersEngine(make_model(), None, max_batch=max_batch)
    good = [(prompt, SAMPLING, (2, i)) for i, prompt in enumerate(PROMPTS)]
    bad = ([3, 1, 1000], SAMPLING, (1, 0))  # there is no token 1000

    async def main():
        return await asyncio.gather(*(engine.generate(*r) for r in [*good, bad]), return_exceptions=True)

    errors = asyncio.run(asyncio.wait_for(main(), timeout=60))
    assert [type(error) for error in errors] == [IndexError] * 6
    assert [c.tokens for c in generate(engine, *good)] == [
        c.tokens for c in generate(TransformersEngine(make_model(), None), *good)
    ]


def test_nobody_decodes_for_who_has_left(make_model):
    engine = TransformersEngine(make_model(), None, max_batch=2)

    async def main():
        tasks = [asyncio.create_task(engine.generate(PROMPTS[0], replace(SAMPLING, max_new_tokens=n), (n,)))
                 for n in (8, 500, 501)]  # fmt: skip
        await tasks[0]
        for task in tasks[1:]:  # one that is under way, one that waits
            task.cancel()
        return await engine.generate(PROMPTS[1], SAMPLING, (1,))

    assert len(asyncio.run(asyncio.wait_for(main(), timeout=60)).tokens) == 8
    assert engine.counts["generated_tokens"] < 40


def test_memory_follows_what_is_written(make_model):
    engine = TransformersEngine(make_model(), None)
    request = (PROMPTS[0], replace(SAMPLING, max_new_tokens=5000), (1,))

    async def main():
        task = asyncio.create_task(engine.generate(*request))
        while engine.counts["generated_tokens"] < 100:
            await asyncio.sleep(0)
        task.cancel()

    asyncio.run(main())
    assert 100 < engine._slots.kv.shape[3] <= 192
    engine.release()
    assert engine._slots.kv.numel() == 0
    assert len(generate(engine, (PROMPTS[0], SAMPLING, (1,)))[0].tokens) == 8


@pytest.mark.parametrize(
    ("prompt", "max_new_tokens"), [([], 4), ([1, 2], 0), ([1, 2], -3)], ids=["no prompt", "no room", "less than none"]
)
def test_a_request_that_asks_for_nothing_is_refused(make_model, prompt, max_new_tokens):
    engine = TransformersEngine(make_model(), None)
    with pytest.raises(ValueError, match="at least one"):
        generate(engine, (prompt, Sampling(max_new_tokens=max_new_tokens), (1,)))


def test_the_engine_waits_for_those_who_may_still_ask(make_model):
    engine = TransformersEngine(make_model(), None)

    async def main():
        hold = engine.turnstile.hold()
        task = asyncio.create_task(engine.generate(PROMPTS[0], SAMPLING, (1,)))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not engine.counts
        hold.close()
        return await task

    first = asyncio.run(main())
    engine.counts.clear()
    assert asyncio.run(main()).tokens == first.tokens  # in another event loop


@pytest.mark.parametrize("overlap", [0, 2])
def test_batches_do_not_follow_the_clock(make_model, overlap):
    """Runs whose tools take different times: bitwise equal, since the engine waits for whoever may still ask."""

    def run(delays):
        engine = TransformersEngine(make_model(), None, overlap=overlap)

        async def agent(number, hold):
            tokens, said = PROMPTS[number], []
            for step in range(3):
                said.append(
                    await engine.generate(tokens, replace(SAMPLING, max_new_tokens=3 + number), (number, step), hold)
                )
                await asyncio.sleep(delays[number] * step)  # a tool
                tokens = tokens + said[-1].tokens + [step]
            hold.close()
            return said

        async def main():
            holds = [engine.turnstile.hold() for _ in PROMPTS]
            return await asyncio.gather(*map(agent, range(len(PROMPTS)), holds))

        return asyncio.run(asyncio.wait_for(main(), timeout=60)), engine.counts

    said, counts = run([0] * 5)
    assert run([0.007, 0, 0.03, 0.002, 0.011]) == (said, counts)
    assert counts["rows"] > 2 * counts["passes"]


def test_an_engine_that_is_not_deterministic_goes_on_without_them(make_model):
    engine = TransformersEngine(make_model(), None, deterministic=False)
    engine.turnstile.hold()
    assert len(generate(engine, (PROMPTS[0], SAMPLING, (1,)))[0].tokens) == 8


SMALL = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 8,
    "num_attention_heads": 4, "num_key_value_heads": 2,
}  # fmt: skip


@pytest.mark.parametrize(
    ("model_class", "config", "reason"),
    [
        (MistralForCausalLM, MistralConfig(**SMALL, sliding_window=4), "sliding window"),
        (Gemma2ForCausalLM, Gemma2Config(**SMALL), "sliding_attention"),
        (GptOssForCausalLM, GptOssConfig(**SMALL, num_local_experts=4), "sliding_attention"),
        (Qwen3NextForCausalLM, Qwen3NextConfig(**SMALL), "linear_attention"),
        (
            MambaForCausalLM,
            MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=1, state_size=4),
            "linear_attention",
        ),
        (GraniteForCausalLM, GraniteConfig(**SMALL, logits_scaling=8.0), "logits_scaling"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_a_model_that_a_tree_can_not_share_is_refused(model_class, config, reason):
    with pytest.raises(UserError, match=reason):
        TransformersEngine(model_class(config), None)


def test_attention_that_is_not_plain_is_refused():
    own = {"head_dim": 4, "num_key_value_heads": 4, "moe_intermediate_size": 16, "n_routed_experts": 4, "n_group": 1,
           "topk_group": 1, "num_experts_per_tok": 2, "kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4,
           "qk_nope_head_dim": 8, "v_head_dim": 8}  # fmt: skip
    config = DeepseekV3Config(**SMALL | own)
    with pytest.raises(
        UserError, match=r"DeepseekV3ForCausalLM can't be used, its attention is not plain \(values of 8 "
    ):
        TransformersEngine(DeepseekV3ForCausalLM(config).eval(), None)


@pytest.mark.parametrize("softcapping", ["attn_logit_softcapping", "final_logit_softcapping"])
def test_capped_logits_are_refused(make_model, softcapping):
    model = make_model()
    setattr(model.config, softcapping, 30.0)
    with pytest.raises(UserError, match=softcapping):
        TransformersEngine(model, None)


@pytest.mark.parametrize(
    "model",
    [
        MistralForCausalLM(MistralConfig(**SMALL, sliding_window=None)),
        GPTNeoXForCausalLM(
            GPTNeoXConfig(
                vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4
            )
        ),
    ],
    ids=["Mistral without a window", "GPT-NeoX, which knows no key heads"],
)
def test_other_models_with_full_attention_are_accepted(model):
    model.eval()
    engine = TransformersEngine(copy.deepcopy(model), None)
    (done,) = generate(engine, (PROMPTS[1], SAMPLING, (1,)))
    logprobs = torch.log_softmax(logits_after(model, PROMPTS[1] + done.tokens)[len(PROMPTS[1]) - 1 : -1], -1)
    assert done.logprobs == pytest.approx(logprobs[range(8), done.tokens].tolist(), abs=1e-4)
