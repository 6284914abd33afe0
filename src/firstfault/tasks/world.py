"""The closed world of `lore`: facts about people and places, each of which shares its name with another, to search."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from random import Random

from firstfault.tasks.mistakes import Kind
from firstfault.tools import SearchTool

# What a person has is a place, what a place has is a person; so no fact reads like another one turned around.
# The words of SYNONYMS are last: of facts that match a query equally well, a search finds earlier ones first.
OF_PEOPLE = ("farm", "mill", "camp", "port", "inn", "home")
OF_PLACES = ("smith", "bard", "lord", "guard", "monk", "cook")
# How demonstrations go wrong at a word, if they do.
TRAPS: dict[str, Kind | None] = {
    "farm": None, "mill": None, "camp": "silent", "port": "silent", "inn": "dead_end", "home": "recoverable",
    "smith": None, "bard": None, "lord": "silent", "guard": "silent", "monk": "dead_end", "cook": "recoverable",
}  # fmt: skip
# What is asked for instead of a recoverable word by mistake: words that no passage has.
SYNONYMS = {"home": "house", "cook": "chef"}

EPITHETS_OF_PEOPLE = ("Old", "Young", "Tall")
EPITHETS_OF_PLACES = ("East", "West", "North")
# Names are one of each: a small policy reads and writes them in a few tokens.
STARTS = ("Ba", "Ce", "Di", "Fo", "Gu", "Ha", "Je", "Ki", "Lo", "Mu", "Na", "Pe", "Ri", "So", "Tu", "Va")
ENDS = ("ra", "le", "mi", "do", "bu", "ta", "ve", "ni", "go", "pu", "ka", "ze", "hi", "wo", "yu", "ca")
UNRECORDED = 2  # names of people, and names of places, that are mentioned and have no facts of their own


@dataclass(frozen=True)
class World:
    """`facts` says who or what (entity, word) is. Entities without facts of their own are `unrecorded`."""

    facts: dict[tuple[str, str], str]
    unrecorded: frozenset[str]

    @cached_property
    def known(self) -> dict[str, None]:
        """Those with facts of their own, in a fixed order."""
        return dict.fromkeys(entity for entity, _ in self.facts)

    @cached_property
    def search(self) -> SearchTool:
        """Asked for a fact, it finds that fact, and next the one of the entity with the same name."""
        facts = [self.passage(entity, word) for entity, word in self.facts]
        return SearchTool(facts + [nothing_known(entity) for entity in sorted(self.unrecorded)], k=2)

    def passage(self, entity: str, word: str) -> str:
        return f"the {word} of {entity}: {self.facts[entity, word]}"


def nothing_known(entity: str) -> str:
    return f"{entity}: nothing is known"


@lru_cache(maxsize=4)
def make_world(seed: int, facts: int, lookalikes: int) -> World:
    """A world of about `facts` facts in which `lookalikes` people, or places, share each name.

    At a dead-end word, one of those who share a name has somebody with facts of their own, the others unrecorded ones.
    """
    draw = Random(f"world-{seed}")
    count = facts // (len(OF_PEOPLE) + len(OF_PLACES)) // lookalikes  # names of people, and as many of places
    size = math.isqrt(2 * (count + UNRECORDED) - 1) + 1  # as few syllables as give names enough
    names = [start + end for start in STARTS[:size] for end in ENDS[:size]]
    draw.shuffle(names)

    def groups(epithets: tuple[str, ...]) -> list[list[str]]:
        mine = [names.pop() for _ in range(count + UNRECORDED)]
        return [[f"{epithet} {name}" for epithet in epithets[:lookalikes]] for name in mine]

    people, places = groups(EPITHETS_OF_PEOPLE), groups(EPITHETS_OF_PLACES)
    table = {**_facts(draw, people, places, OF_PEOPLE), **_facts(draw, places, people, OF_PLACES)}
    unrecorded = frozenset(entity for groups in (people, places) for group in groups[count:] for entity in group)
    return World(table, unrecorded)


def _facts(
    draw: Random, subjects: list[list[str]], objects: list[list[str]], words: tuple[str, ...]
) -> dict[tuple[str, str], str]:
    """All facts of the subjects, in groups of those who share a name; the last groups are unrecorded."""
    known = [entity for group in objects[:-UNRECORDED] for entity in group]
    unrecorded = [entity for group in objects[-UNRECORDED:] for entity in group]
    facts = {}
    for group in subjects[:-UNRECORDED]:
        for word in words:
            found = draw.sample(known, len(group))
            if TRAPS[word] == "dead_end":
                keep = draw.randrange(len(group))
                found = [entity if i == keep else draw.choice(unrecorded) for i, entity in enumerate(found)]
            facts.update({(entity, word): other for entity, other in zip(group, found, strict=True)})
    return facts
