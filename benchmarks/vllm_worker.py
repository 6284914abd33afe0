"""vLLM on the CPU behind a pipe, for rollouts.py: runs in a Python environment of its own.

Says its version and that of its transformers, then reads pickled batches (prompts, lengths) and answers each with
(tokens written, number of tokens computed); None empties the prefix cache.
"""

import os
import pickle
import sys
from importlib.metadata import version

answers = os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)  # vLLM logs to the standard output

from vllm import LLM, SamplingParams, __version__  # noqa: E402


def main(model: str) -> None:
    llm = LLM(
        model, dtype="float32", skip_tokenizer_init=True, enable_prefix_caching=True, block_size=32, max_model_len=1024
    )
    answer = f"{__version__} with transformers {version('transformers')}"
    while True:
        pickle.dump(answer, answers)
        answers.flush()
        try:
            batch = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        answer = llm.reset_prefix_cache() if batch is None else write(llm, *batch)


def write(llm: LLM, prompts: list[list[int]], lengths: list[int]) -> tuple[list[list[int]], int]:
    samplings = [
        SamplingParams(min_tokens=n, max_tokens=n, ignore_eos=True, logprobs=0, detokenize=False)  # 0: of those drawn
        for n in lengths
    ]
    done = llm.generate([{"prompt_token_ids": tokens} for tokens in prompts], samplings, use_tqdm=False)
    written = [list(result.outputs[0].token_ids) for result in done]
    cached = sum(result.num_cached_tokens for result in done)
    return written, sum(map(len, prompts)) - cached + sum(map(len, written)) - len(written)


if __name__ == "__main__":
    main(sys.argv[1])
