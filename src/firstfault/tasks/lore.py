"""Multi-hop questions over a generated world, answered by looking up one fact after the other."""

from __future__ import annotations

import zlib
from random import Random

from pydantic import Field, model_validator

from firstfault.tasks.base import Turn, call_text, last_boxed
from firstfault.tasks.chains import GIVE_UP, ORDINALS
from firstfault.tasks.judges.text import Grade, graded, require_sacrebleu
from firstfault.tasks.mistakes import FlawedTasks
from firstfault.tasks.world import SYNONYMS, TRAPS, World, make_world, nothing_known
from firstfault.tools import SearchTool, Session
from firstfault.tree import Node, Task

HELD_OUT = 8  # one question of so many


class Lore(FlawedTasks):
    r"""A chain of facts that starts at a known name, to be looked up one by one; the last name goes in \boxed{}.

    >>> task = Lore(hops_max=3).train(seed=1, first=0, n=1)[0]
    >>> print(task.question)
    Start with West Jedo.
    First the lord.
    Second the camp.
    Third the smith.
    >>> task.answer
    'Old Kido'
    >>> print("\n".join(Lore().world.search.search("the lord of East Kibu")))
    the lord of East Kibu: Young Babu
    the lord of West Kibu: Young Fota

    A search for a fact finds it, and in the next line the fact of somebody with almost the same name. That is what
    demonstrations fall for (`world.TRAPS` has the words):

    - silent: they go on with the look-alike's fact, and end with another answer;
    - dead end: so they do, and come to somebody of whom nothing is known; they ask once more and give up;
    - recoverable: they ask for something that no passage speaks of, and find facts that they did not ask for. The next
      step asks again rightly (`repaired` of them), or goes on with what stands there.

    Training and held-out tasks share the world, which `world_seed` makes, and no question: a hash of its text says
    whether a question is held out.
    """

    hops_min: int = Field(3, ge=1, description="fewest facts of a chain")
    hops_max: int = Field(6, le=10, description="most facts of a chain")
    facts: int = Field(720, ge=240, le=3000, description="facts of the world, about")
    lookalikes: int = Field(2, ge=2, le=3, description="people, or places, that share a name")
    world_seed: int = Field(0, ge=0, description="of the world, which training and held-out tasks share")
    reward: Grade = Field("exact", description="f1 and bleu: also for some of the right words")

    @model_validator(mode="after")
    def _ordered(self) -> Lore:
        if self.hops_min > self.hops_max:
            raise ValueError(f"hops_min {self.hops_min} exceeds hops_max {self.hops_max}")
        if self.reward == "bleu":
            require_sacrebleu()
        return self

    @property
    def world(self) -> World:
        return make_world(self.world_seed, self.facts, self.lookalikes)

    def train(self, seed: int, first: int, n: int) -> list[Task]:
        return [self._task(f"train-{seed}-{i}", held_out=False) for i in range(first, first + n)]

    def held_out(self, n: int) -> list[Task]:
        return [self._task(f"held-out-{i}", held_out=True) for i in range(n)]

    def tools(self) -> list[SearchTool]:
        return [self.world.search]

    def _task(self, name: str, held_out: bool) -> Task:
        draw = Random(name)
        while True:
            task = self._draw(draw, name)
            if task and (zlib.crc32(task.question.encode()) % HELD_OUT == 0) == held_out:
                return task

    def _draw(self, draw: Random, name: str) -> Task | None:
        """A task, or None if it came to somebody who has no fact that may be asked for."""
        world, hops = self.world, draw.randint(self.hops_min, self.hops_max)
        known = world.known
        chain, words = [draw.choice(list(known))], []
        for step in range(hops):
            mine = [word for word in self.vocabulary(TRAPS, step, hops) if world.facts.get((chain[-1], word)) in known]
            if not mine:
                return None
            words.append(draw.choice(mine))
            chain.append(world.facts[chain[-1], words[-1]])
        lines = [f"{ordinal} the {word}." for ordinal, word in zip(ORDINALS, words, strict=False)]
        return Task("\n".join([f"Start with {chain[0]}.", *lines]), chain[-1], name, {"chain": chain, "words": words})

    def difficulty(self, task: Task) -> str:
        """The number of facts of its chain."""
        return str(len(task.info["words"]))

    def lesson(self, progress: float) -> Lore:
        """Short chains first: they teach how to copy and to call at a third of the cost."""
        if progress >= 0.5:
            return self
        return self.model_copy(update={"hops_min": 1, "hops_max": min(3, self.hops_max)})

    def demonstrate(self, task: Task) -> list[Turn]:
        """An imperfect demonstration, drawn from the task's name."""
        draw = Random(f"demonstration-{task.id}")
        entity, turns = task.info["chain"][0], []

        def ask(word: str) -> list[str]:
            query = f"the {word} of {entity}"
            found = self.world.search.search(query)
            turns.append(Turn(said + call_text("search", {"query": query}), ("\n".join(found),)))
            return found

        for ordinal, word in zip(ORDINALS, task.info["words"], strict=False):
            said = f"{ordinal} the {word}."
            falls = self.falls(draw, TRAPS[word])
            asks_badly = falls and TRAPS[word] == "recoverable"
            found = ask(SYNONYMS[word] if asks_badly else word)
            if asks_badly and draw.random() < self.repaired:
                found = ask(word)
            if found[0] == nothing_known(entity):
                ask(word)
                return [*turns, GIVE_UP]
            entity = found[1 if falls and not asks_badly else 0].partition(": ")[2]
        return [*turns, Turn(f"\\boxed{{{entity}}}")]

    async def judge(self, task: Task, answer: str, session: Session) -> tuple[bool, float]:
        """Success is the right name, letter case, articles and punctuation aside."""
        return graded(last_boxed(answer) or "", [task.answer], self.reward)

    def first_wrong_step(self, task: Task, leaf: Node) -> int | None:
        """The first step with a search that finds neither the next fact of the chain first, nor what one found before.

        If there is none, it is the answer, unless that is right.
        """
        facts = [self.world.passage(*hop) for hop in zip(task.info["chain"], task.info["words"], strict=False)]
        seen: list[str] = []  # the outputs with the facts so far
        for number, step in enumerate(leaf.steps, 1):
            for call in step.calls:
                if call.output.partition("\n")[0] in facts[len(seen) : len(seen) + 1]:
                    seen.append(call.output)
                elif call.output not in seen:
                    return number
        return None if leaf.success else len(leaf.steps)
