"""The local engine: any Hugging Face causal language model, decoded in one continuous batch.

Every pass of the decode loop takes all that wait: new requests join with what is missing of their prompt, running ones
bring their last token, finished ones leave. The tokens of a pass lie side by side in one row, so no layer computes
padding. A prefix is computed once per policy version: requests that share it wait for the first to compute it, then
copy its keys and values.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from firstfault.attention import autocast, hidden_states, logits, use_planned_attention
from firstfault.engines.base import Completion, Hold, Sampling, Turnstile
from firstfault.engines.prefix import PrefixCache

Drawn = tuple[list[int], list[float], list[float]]  # tokens, their log-probabilities, entropies


class _Request:
    """One completion on its way. The keys and values of its first `cached` tokens stand in its slot."""

    def __init__(self, prompt: list[int], sampling: Sampling, key: tuple[int, ...], due: int):
        self.tokens = list(prompt)
        self.sampling = sampling
        self.key = key
        self.due = due
        self.cached = 0
        self.noise = np.random.default_rng(key).random(sampling.max_new_tokens)
        self.completion = Completion()
        self.future: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()


class TransformersEngine:
    """Decodes with `model` in this process, and shares its weights with whoever trains it.

    Args:
        model: a causal language model; its attention is replaced by ours (see `attention.use_planned_attention`).
        tokenizer: only read for stop strings.
        max_batch: most completions decoded together.
        max_prefill: most prompt tokens that join in one pass (a longer prompt joins alone).
        cache_gb: bound of the store of prefixes; the decode batch itself comes on top.
        deterministic, overlap: see `Turnstile`.

    `counts` adds up `passes`, `rows` (completions decoded in them), `generated_tokens`, `computed_tokens` (all that
    went through the model) and `recomputed_tokens` (those whose keys and values had been computed before and evicted).
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_batch: int = 256,
        max_prefill: int = 8192,
        cache_gb: float = 2.0,
        deterministic: bool = True,
        overlap: int = 1,
    ):
        self.model = use_planned_attention(model)
        self.tokenizer = tokenizer
        self.max_batch = max_batch
        self.max_prefill = max_prefill
        self.turnstile = Turnstile(deterministic, overlap)
        self.counts: Counter[str] = Counter()
        self._cache = PrefixCache(int(cache_gb * 2**30))
        self._slots = Slots(model)
        ends = model.generation_config.eos_token_id if model.generation_config else None
        self._ends = frozenset(
            ends if isinstance(ends, list) else [ends]
        )  # a model may know more ends than its template
        self._waiting: list[_Request] = []
        self._active: list[_Request] = []  # the request at position i owns slot i
        self._thread = ThreadPoolExecutor(1, "engine")
        self._loop: asyncio.Task[None] | None = None

    def load(self, weights: dict[str, Any]) -> None:
        """Take a new policy version; weights that are the model's own need no copy."""
        own = self.model.state_dict()
        if any(own[name].data_ptr() != tensor.data_ptr() for name, tensor in weights.items()):
            self.model.load_state_dict(weights)
        self._cache.clear()

    def release(self) -> None:
        """Give back the memory that sampling took. Must not be called while requests are under way."""
        self._cache.clear()
        self._slots.clear()

    async def generate(
        self, tokens: list[int], sampling: Sampling, key: tuple[int, ...], hold: Hold | None = None
    ) -> Completion:
        if not tokens or sampling.max_new_tokens < 1:
            raise ValueError(
                f"asked for {sampling.max_new_tokens} tokens after {len(tokens)}; both have to be at least one"
            )
        request = _Request(tokens, sampling, key, hold.due if hold else self.turnstile.passes)
        self._waiting.append(request)
        if self._loop is None or self._loop.done():
            self._loop = asyncio.create_task(self._decode())
        with hold.asking() if hold else nullcontext():
            return await request.future

    async def _decode(self) -> None:
        try:
            while self._waiting or self._active:
                await self.turnstile.quiet()
                self._admit()
                if self._active:  # in a thread of its own: tools go on meanwhile
                    hidden, drawn = await asyncio.get_running_loop().run_in_executor(self._thread, self._compute)
                    self._advance(hidden, drawn)
                self.turnstile.passes += 1
        except BaseException as error:  # whoever waits must hear of it
            self._thread.submit(int).result()  # a pass may still be under way
            for request in self._active + self._waiting:
                if not request.future.done():
                    request.future.set_exception(error)
            self._active, self._waiting = [], []
            self._cache.clear()
            if not isinstance(error, Exception):
                raise

    @torch.inference_mode()
    def _admit(self) -> None:
        """Give slots to those that wait, in the order of their keys, and fork what is known of their prompts."""
        self._waiting = [request for request in self._waiting if not request.future.cancelled()]
        due = [request for request in self._waiting if self.turnstile.admits(request.due)]
        later = [request for request in self._waiting if not self.turnstile.admits(request.due)]
        due.sort(key=lambda request: request.key)
        known, prefill = [], 0
        for number, request in enumerate(due):
            if len(self._active) == self.max_batch:
                later += due[number:]
                break
            segments, computing = self._cache.match(request.tokens)
            missing = len(request.tokens) - sum(len(s.tokens) for s in segments)
            if computing or (prefill and prefill + missing > self.max_prefill):
                later.append(request)
                continue
            if missing == 0 and segments[-1].hidden is None:  # ends inside another's text: its last token once more
                missing = 1
                self.counts["recomputed_tokens"] += 1
            request.cached = len(request.tokens) - missing
            self._active.append(request)
            self._slots.reserve(len(self._active), len(request.tokens))
            self._slots.write(len(self._active) - 1, [s.kv for s in segments])
            if missing:
                self.counts["recomputed_tokens"] += self._cache.reserve(request.tokens)
                prefill += missing
            else:
                known.append((request, segments[-1].hidden))
        self._waiting = later
        if known:
            requests = [request for request, _ in known]
            with autocast(self.model):
                self._extend(requests, self._draw(requests, torch.stack([hidden for _, hidden in known])))

    @torch.inference_mode()
    def _compute(self) -> tuple[Tensor, Drawn]:
        """One pass of the model over all that is new: the last hidden state and one more token for every request."""
        self._slots.reserve(len(self._active), max(len(r.tokens) for r in self._active))
        new = [r.tokens[r.cached :] for r in self._active]
        plan = DecodePlan(self._slots, [r.cached for r in self._active], [len(tokens) for tokens in new])
        tokens = torch.tensor([t for row in new for t in row], device=self.model.device)
        self.counts["computed_tokens"] += len(tokens)
        with autocast(self.model):
            hidden = hidden_states(self.model, tokens, plan.positions, plan)[plan.last]
            return hidden, self._draw(self._active, hidden)

    @torch.inference_mode()
    def _advance(self, hidden: Tensor, drawn: Drawn) -> None:
        """Take over what a pass has computed."""
        self.counts["passes"] += 1
        self.counts["rows"] += len(self._active)
        for slot, request in enumerate(self._active):
            request.cached = len(request.tokens)
            if not request.completion.tokens:  # the prompt has just been computed: others may start from it
                self._cache.store(request.tokens, self._slots.read(slot)).hidden = hidden[slot].clone()
        self._extend(list(self._active), drawn)

    def _draw(self, requests: list[_Request], hidden: Tensor) -> Drawn:
        """The next token of each request, from its last hidden state."""
        noise = [r.noise[len(r.completion.tokens)] for r in requests]
        return sample(logits(self.model, hidden).float(), [r.sampling for r in requests], noise)

    def _extend(self, requests: list[_Request], drawn: Drawn) -> None:
        """Give each request its next token, and let the finished ones leave."""
        self.counts["generated_tokens"] += len(requests)
        for request, token, logprob, entropy in zip(requests, *drawn, strict=True):
            request.tokens.append(token)
            done = request.completion
            done.tokens.append(token)
            done.logprobs.append(logprob)
            done.entropies.append(entropy)
            if self._stops(request):
                done.stop_reason = "stop"
            is_full = len(done.tokens) == request.sampling.max_new_tokens
            if done.stop_reason == "stop" or is_full or request.future.cancelled():
                self._release(request)

    def _stops(self, request: _Request) -> bool:
        sampling, tokens = request.sampling, request.completion.tokens
        if tokens[-1] in sampling.stop_tokens | self._ends:
            return True
        if not sampling.stop_strings:
            return False
        reach = max(len(s.encode()) for s in sampling.stop_strings)  # a token spells at least one byte
        tail = self.tokenizer.decode(tokens[-reach:])
        return any(s in tail for s in sampling.stop_strings)

    def _release(self, request: _Request) -> None:
        slot = self._active.index(request)
        self._cache.store(request.tokens[: request.cached], self._slots.read(slot))
        last = self._active.pop()
        if last is not request:
            self._active[slot] = last
            self._slots.move(len(self._active), slot, last.cached)
        if not request.future.done():
            request.future.set_result(request.completion)


class Slots:
    """Keys and values of the decode batch: `kv` [layers, 2, slots, length, kv_heads, D], grown as needed."""

    def __init__(self, model: PreTrainedModel):
        config = model.config.get_text_config()
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        kv_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        self._shape = (kv_heads, head_dim)
        self._model = model
        self._before = (0, 0)  # slots and length
        self.kv = torch.empty(config.num_hidden_layers, 2, *self._before, *self._shape)

    def clear(self) -> None:
        """Give the memory back; the next request gets as much as was there, in one piece."""
        self._before = self.kv.shape[2:4]
        self.kv = torch.empty(*self.kv.shape[:2], 0, 0, *self._shape)

    def reserve(self, slots: int, length: int) -> None:
        old = self.kv
        if slots <= old.shape[2] and length <= old.shape[3]:
            return
        slots = max(old.shape[2], 1 << (slots - 1).bit_length())
        if length > old.shape[3]:  # by an eighth at least: what is there has to be copied
            length = -(-max(length, old.shape[3] * 9 // 8) // 64) * 64
        length = max(length, old.shape[3])
        if not old.numel():
            slots, length = max(slots, self._before[0]), max(length, self._before[1])
        dtype = torch.bfloat16 if self._model.device.type == "cuda" else self._model.dtype  # as `autocast` computes
        self.kv = torch.zeros(*old.shape[:2], slots, length, *self._shape, dtype=dtype, device=self._model.device)
        self.kv[:, :, : old.shape[2], : old.shape[3]] = old

    def write(self, slot: int, kv: list[Tensor]) -> None:
        if kv:
            joined = torch.cat(kv, dim=2)
            self.kv[:, :, slot, : joined.shape[2]] = joined

    def read(self, slot: int) -> Tensor:
        return self.kv[:, :, slot]

    def move(self, source: int, target: int, length: int) -> None:
        self.kv[:, :, target, :length] = self.kv[:, :, source, :length]


class DecodePlan:
    """Attention of one pass: request i brings `new[i]` tokens behind the `cached[i]` that stand in slot i.

    The last tokens of all requests attend together, straight from the slots; the other tokens of those that bring more
    than one attend together over a copy of their slots.
    """

    def __init__(self, slots: Slots, cached: list[int], new: list[int]):
        device = slots.kv.device
        ends = np.add(cached, new)
        rows = np.repeat(np.arange(len(new)), new)
        starts = np.cumsum(new) - new
        positions = np.arange(len(rows)) - np.repeat(starts - cached, new)
        longest = int(ends.max())
        self._kv = slots.kv.flatten(2, 3)
        self._keys = slots.kv[:, :, : len(new), :longest].transpose(3, 4)
        self._write_to = torch.as_tensor(rows * slots.kv.shape[3] + positions, device=device)
        self.positions = torch.as_tensor(positions, device=device)
        self.last = torch.as_tensor(starts + new - 1, device=device)
        at = torch.arange(longest, device=device)
        self._last_mask = (at < torch.as_tensor(ends, device=device)[:, None])[:, None, None]

        joining = np.flatnonzero(np.asarray(new) > 1)
        self._joining = torch.as_tensor(joining, device=device)
        if len(joining):
            offset = np.arange(max(new[i] for i in joining) - 1)
            real = offset < (np.asarray(new)[joining] - 1)[:, None]
            self._real = torch.as_tensor(real, device=device)
            self._queries = torch.as_tensor(np.where(real, starts[joining, None] + offset, 0), device=device)
            self._mask = (at <= self.positions[self._queries][..., None])[:, None]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        keys, values = self._keys[layer]
        query = query.to(keys.dtype)
        self._kv[layer, 0].index_copy_(0, self._write_to, key.to(keys.dtype))
        self._kv[layer, 1].index_copy_(0, self._write_to, value.to(keys.dtype))
        out = torch.empty_like(query)
        # the query heads of a key head stand as its queries, so that its keys are read once
        last = query[self.last].unflatten(1, (keys.shape[1], -1))
        last = F.scaled_dot_product_attention(last, keys, values, self._last_mask, scale=scale)
        out[self.last] = last.flatten(1, 2)
        if len(self._joining):
            rest = F.scaled_dot_product_attention(
                query[self._queries].transpose(1, 2), keys[self._joining], values[self._joining], self._mask,
                scale=scale, enable_gqa=True,
            )  # fmt: skip
            out[self._queries[self._real]] = rest.transpose(1, 2)[self._real]
        return out


def sample(logits: Tensor, samplings: list[Sampling], noise: list[float]) -> Drawn:
    """Draw one token a row by inverting the cumulative distribution at `noise` in [0, 1).

    Args:
        logits: [rows, V], float32.

    Returns:
        Tokens, their log-probabilities and the entropies (nats), both of the whole distribution at the row's
        temperature, whatever top-p then leaves of it.
    """

    def column(values: list[float], dtype: torch.dtype | None = None) -> Tensor:
        return torch.tensor(values, dtype=dtype, device=logits.device)[:, None]

    logprobs = torch.log_softmax(logits / column([s.temperature or 1.0 for s in samplings]), dim=-1)
    probs = logprobs.exp()
    entropies = torch.special.entr(probs).sum(-1)
    if any(s.top_p < 1 for s in samplings):
        ordered, order = probs.sort(-1, descending=True)
        # by the rounding of its sum, 1 might leave out the last of a row that asked for no nucleus
        nucleus = ordered.cumsum(-1) - ordered < column([s.top_p if s.top_p < 1 else torch.inf for s in samplings])
        probs = torch.zeros_like(probs).scatter(-1, order, ordered * nucleus)
    cumulative = probs.double().cumsum(-1)
    drawn = torch.searchsorted(cumulative, column(noise, torch.float64) * cumulative[:, -1:], right=True)
    greedy = column([s.temperature == 0 for s in samplings])
    tokens = torch.where(greedy, logits.argmax(-1, keepdim=True), drawn.clamp(max=logits.shape[-1] - 1))
    return tokens[:, 0].tolist(), logprobs.gather(-1, tokens)[:, 0].tolist(), entropies.tolist()
