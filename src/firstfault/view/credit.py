"""Whose credit is shown on a tree: that which was written, or that which a method gives to copies of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from firstfault.errors import UserError
from firstfault.methods import METHODS, Method
from firstfault.methods.elpo import ELPO, branch_advantages, trajectory_advantages
from firstfault.training.build import build_method
from firstfault.tree import Node, Term, Tree

UNREACHED = 1e6  # a bound that no ratio reaches: such a term is not clipped


@dataclass(frozen=True)
class Credit:
    """What a method wrote on the trees of a batch. `method` is None where that isn't known."""

    name: str
    trees: Sequence[Tree]
    method: Method | None

    def payload(self, number: int) -> dict[str, Any]:
        """The credit of one tree, a value a node; ELPO's with the two advantages that it is made of."""
        tree = self.trees[number]
        found = {
            "name": self.name,
            "nodes": [summed(node) for node in tree.nodes],
            "critical": [node.index for node in tree.nodes if node.critical],
        }
        rewarded = all(leaf.reward is not None for leaf in tree.leaves)
        if isinstance(self.method, ELPO) and tree.is_credited and rewarded:
            branch, trajectory = branch_advantages(tree), trajectory_advantages(tree)
            found["lambda"] = self.method.lambda_tree
            found["parts"] = [[round(branch[node], 5), round(trajectory[node], 5)] for node in tree.nodes]
        return found


def summed(node: Node) -> dict[str, Any] | None:
    """The terms of a step in a few numbers: their weighted mean, their range, their weight and clip bounds."""
    if not node.terms:
        return None
    advantages = [value for term in node.terms for value in _values(term)]
    found: dict[str, Any] = {
        "advantage": node.advantage,
        "terms": len(node.terms),
        "least": min(advantages, default=0.0),
        "most": max(advantages, default=0.0),
        "weight": sum(term.weight for term in node.terms),
        "clip": _clip(node.terms),
        "gradient": any(term.has_gradient for term in node.terms),
    }
    by_token = [term for term in node.terms if isinstance(term.advantage, list)]
    if len(by_token) == len(node.terms) == 1:
        found["tokens"] = by_token[0].advantage
    return found


def _values(term: Term) -> list[float]:
    return term.advantage if isinstance(term.advantage, list) else [term.advantage]


def _clip(terms: Sequence[Term]) -> list[float] | None:
    """The widest range that the ratio of a term may have; None where nothing clips it, or the loss has no clip."""
    low, high = max(term.clip_low for term in terms), max(term.clip_high for term in terms)
    return None if high >= UNREACHED or low == high == 0 else [1 - low, 1 + high]


def named(name: str, written: Mapping[str, Any]) -> Method:
    """A method of ours: with the options of the run if it is the one that the run had, else with its defaults."""
    if name not in METHODS:
        raise UserError(f"there is no method {name!r} to give credit; choose one of {', '.join(METHODS)}.")
    return build_method(written) if written.get("name") == name else METHODS[name]()


def credit_by(name: str, trees: Sequence[Tree], written: Mapping[str, Any]) -> Credit:
    """The credit that a method gives to copies of the trees of a batch, which may be another method's."""
    method = named(name, written)
    copies = [Tree.from_json(tree.to_json()) for tree in trees]
    if method.critic and any(node.value is None for tree in copies for node in tree.nodes if not node.is_leaf):
        raise UserError(f"{name} needs a critic's values, which these trees don't have; choose another method.")
    try:
        method.shape(copies)
        method.credit(copies)
    except (ValueError, ArithmeticError, LookupError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{name} can't give credit to these trees ({reason}); choose another method.") from error
    if not any(tree.is_credited for tree in copies):
        raise UserError(f"{name} credits only trees that it grew itself: none of these; choose another method.")
    return Credit(name, copies, method)


def as_written(trees: Sequence[Tree], written: Mapping[str, Any]) -> Credit:
    """The credit that the trees carry. Code of a user's own method is not run to show them."""
    name = str(written.get("name", ""))
    try:
        method = named(name, written) if name in METHODS else None
    except UserError:  # settings of another version
        method = None
    return Credit(f"{name or 'method'}, as written", trees, method)
