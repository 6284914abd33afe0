"""Sets with short answers: mathematics, multiple choice, question answering."""

from __future__ import annotations

import json
import random
from typing import Any, ClassVar

from pydantic import Field

from firstfault.tasks.base import last_boxed
from firstfault.tasks.catalog.published import Published
from firstfault.tasks.datasets import multiple_choice, short_answer
from firstfault.tasks.judged import Judging
from firstfault.tasks.judges.text import Grade
from firstfault.tree import Task

# Mathematics


class Gsm8k(Published):
    """Word problems of grade school (Cobbe et al. 2021)."""

    # card of openai/gsm8k; an answer is a solution that ends with "#### 72"
    hub, configs, train_split = "openai/gsm8k", ("main",), "train"

    def task(self, row: dict[str, Any]) -> Task:
        return short_answer(row["question"], [row["answer"].rsplit("####", 1)[1].strip().replace(",", "")])


class Math(Published):
    """Problems of mathematics competitions (Hendrycks et al. 2021)."""

    # harness: hendrycks_math; columns problem, level, type, solution
    hub, train_split = "EleutherAI/hendrycks_math", "train"
    configs = (
        *("algebra", "counting_and_probability", "geometry", "intermediate_algebra"),
        *("number_theory", "prealgebra", "precalculus"),
    )

    def task(self, row: dict[str, Any]) -> Task:
        answer = last_boxed(row["solution"].replace("\\fbox", "\\boxed"))
        if answer is None:  # a few are written as \boxed 7
            answer = row["solution"].rsplit("\\boxed", 1)[1].split("$")[0]
        return short_answer(row["problem"], [answer], level=row["level"], type=row["type"])


class Math500(Published):
    """The 500 test problems of MATH that Lightman et al. (2023) held out."""

    # card; columns problem, solution, answer, subject, level, unique_id
    hub = "HuggingFaceH4/MATH-500"

    def task(self, row: dict[str, Any]) -> Task:
        return short_answer(row["problem"], [row["answer"]], subject=row["subject"], level=row["level"])


class Aime24(Published):
    """The American Invitational Mathematics Examination of 2024."""

    # harness: aime24; columns ID, Problem, Solution, Answer, all in one split, which is called train
    hub, test_split = "Maxwell-Jia/AIME_2024", "train"

    def task(self, row: dict[str, Any]) -> Task:
        return short_answer(row["Problem"], [row["Answer"]], source=row["ID"])


class Aime25(Published):
    """The American Invitational Mathematics Examination of 2025."""

    # harness: aime25; columns problem, answer
    hub = "math-ai/aime25"

    def task(self, row: dict[str, Any]) -> Task:
        return short_answer(row["problem"], [row["answer"]])


# Multiple choice


class GpqaDiamond(Published):
    """Questions for graduates in biology, physics and chemistry (Rein et al. 2023); the hub asks for consent."""

    # harness: gpqa; all in one split, which is called train
    hub, configs, test_split = "Idavidrein/gpqa", ("gpqa_diamond",), "train"
    judged_by = "choice"

    choices_seed: int = Field(0, ge=0, description="of the order of the choices")

    def task(self, row: dict[str, Any]) -> Task:
        right, *wrong = (
            row[name].strip() for name in ("Correct Answer", *(f"Incorrect Answer {i}" for i in (1, 2, 3)))
        )
        choices = [right, *wrong]
        random.Random(f"{self.choices_seed}-{row['Question']}").shuffle(choices)
        return multiple_choice(row["Question"], choices, choices.index(right))


class CommonsenseQA(Published):
    """Questions of common sense with five choices (Talmor et al. 2019)."""

    # card and harness: the test split has no answers, so validation is held out
    hub, train_split, test_split, judged_by = "tau/commonsense_qa", "train", "validation", "choice"

    def task(self, row: dict[str, Any]) -> Task:
        choices = dict(zip(row["choices"]["label"], row["choices"]["text"], strict=True))
        return multiple_choice(row["question"], list(choices.values()), list(choices).index(row["answerKey"]))


class Aqua(Published):
    """Word problems of algebra with five choices (Ling et al. 2017)."""

    # card of deepmind/aqua_rat; options are written as "A)21"
    hub, configs, train_split, judged_by = "deepmind/aqua_rat", ("raw",), "train", "choice"

    def task(self, row: dict[str, Any]) -> Task:
        choices = {option[0]: option[2:].strip() for option in row["options"]}
        return multiple_choice(row["question"], list(choices.values()), list(choices).index(row["correct"]))


# Question answering


class QuestionAnswering(Published):
    """Success is exact match of the normalized words."""

    train_split: ClassVar[str | None] = "train"
    test_split: ClassVar[str] = "validation"

    reward: Grade = Field("exact", description="f1 and bleu: also for some of the right words")

    @property
    def judging(self) -> Judging:
        return self.reward

    def task(self, row: dict[str, Any]) -> Task:
        return short_answer(row["question"], [row["answer"]])


class HotpotQA(QuestionAnswering):
    """Questions over two articles of Wikipedia (Yang et al. 2018)."""

    # card of hotpotqa/hotpot_qa; both configurations have the same questions
    hub, configs = "hotpotqa/hotpot_qa", ("distractor",)


class NaturalQuestions(QuestionAnswering):
    """Questions that people asked a search engine, with short answers (Kwiatkowski et al. 2019; Lee et al. 2019)."""

    # harness: nq_open; answer is a list
    hub = "google-research-datasets/nq_open"

    def task(self, row: dict[str, Any]) -> Task:
        return short_answer(row["question"], row["answer"])


class TriviaQA(QuestionAnswering):
    """Questions of quizzes, with the aliases of the answers (Joshi et al. 2017)."""

    # card of mandarjoshi/trivia_qa; answers of the test split are not published
    hub, configs = "mandarjoshi/trivia_qa", ("rc.nocontext",)

    def task(self, row: dict[str, Any]) -> Task:
        answer = row["answer"]
        return short_answer(row["question"], list(dict.fromkeys([answer["value"], *answer["aliases"]])))


class TwoWiki(QuestionAnswering):
    """Questions over several articles, 2WikiMultihopQA (Ho et al. 2020)."""

    # a copy of xanhho/2WikiMultihopQA, which has a loading script, as parquet; columns as in HotpotQA
    hub = "framolfese/2WikiMultihopQA"


class Musique(QuestionAnswering):
    """Questions composed of two to four (Trivedi et al. 2022), those that can be answered."""

    # musique_ans_v1.0 of StonyBrookNLP/musique; columns question, answer, answer_aliases, question_decomposition
    hub = "dgslibisey/MuSiQue"

    def task(self, row: dict[str, Any]) -> Task:
        return short_answer(row["question"], [row["answer"], *row["answer_aliases"]])


class Bamboogle(QuestionAnswering):
    """Questions of two steps that search engines do not answer (Press et al. 2023)."""

    # card; columns Question, Answer
    hub, train_split, test_split = "chiayewken/bamboogle", None, "test"

    def task(self, row: dict[str, Any]) -> Task:
        return short_answer(row["Question"], [row["Answer"]])


class PopQA(QuestionAnswering):
    """Questions on entities, popular ones and others (Mallen et al. 2023)."""

    # columns question, possible_answers (JSON), s_pop and others
    hub, train_split, test_split = "akariasai/PopQA", None, "test"

    def task(self, row: dict[str, Any]) -> Task:
        answers = row["possible_answers"]
        return short_answer(row["question"], json.loads(answers) if isinstance(answers, str) else answers)
