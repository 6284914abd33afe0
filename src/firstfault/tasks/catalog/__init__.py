"""The published data sets: where each one is, what its columns are called, and how its answers are judged.

Names, configurations, splits and columns are those of the hub. The source stands beside each set: its card (the
README on the hub), or the loader of a project that reads it, such as lm-evaluation-harness ("harness").
"""

from firstfault.tasks.catalog.agentrl import OpenAgentRL, OpenAgentSFT
from firstfault.tasks.catalog.answers import (
    Aime24,
    Aime25,
    Aqua,
    Bamboogle,
    CommonsenseQA,
    GpqaDiamond,
    Gsm8k,
    HotpotQA,
    Math,
    Math500,
    Musique,
    NaturalQuestions,
    PopQA,
    TriviaQA,
    TwoWiki,
)
from firstfault.tasks.catalog.programs import HumanEval, LiveCodeBench
from firstfault.tasks.catalog.published import Published

PUBLISHED: dict[str, type[Published]] = {
    "gsm8k": Gsm8k,
    "math": Math,
    "math500": Math500,
    "aime24": Aime24,
    "aime25": Aime25,
    "gpqa-diamond": GpqaDiamond,
    "commonsenseqa": CommonsenseQA,
    "aqua": Aqua,
    "hotpotqa": HotpotQA,
    "nq": NaturalQuestions,
    "triviaqa": TriviaQA,
    "2wiki": TwoWiki,
    "musique": Musique,
    "bamboogle": Bamboogle,
    "popqa": PopQA,
    "humaneval": HumanEval,
    "livecodebench": LiveCodeBench,
    "open-agentrl-30k": OpenAgentRL,
    "open-agentrl-sft-3k": OpenAgentSFT,
}
