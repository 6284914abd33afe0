"""The claims of the ELPO paper, and some of others, at a size that a laptop can carry."""

from functools import partial

from firstfault.evaluation.claims import (
    ablations,
    at_k,
    consistency,
    dynamics,
    efficiency,
    others,
    praise,
    ranking,
    recovery,
    success,
    values,
)
from firstfault.evaluation.claims.compared import Read
from firstfault.evaluation.claims.measured import Measured

MEASURED = {
    "recovery": Measured({"": recovery.measure}, recovery.finding),
    "ranking": Measured({name: partial(ranking.measure, m) for name, m in ranking.METHODS.items()}, ranking.finding),
    "consistency": Measured({"": consistency.measure}, consistency.finding),
    "praise": Measured({"": praise.measure}, praise.finding),
    "values": Measured({"": values.measure}, values.finding, values.policy, trains=True),
}
READ = {
    "main": Read("compare", ("elpo", "grpo"), success.finding, beside=None),
    "pass-at-k": Read("compare", ("elpo", "grpo"), at_k.finding, at_k=True),
    "efficiency": Read("compare", ("elpo", "grpo"), efficiency.finding, beside=None),
    "dynamics": Read("compare", ("elpo", "grpo"), dynamics.finding, beside=None),
    "ablations": Read("ablations", ("elpo", *ablations.PARTS), ablations.without_parts, tuple(ablations.OTHERWISE)),
    "sensitivity": Read("sensitivity", ("elpo", *ablations.VARIED), ablations.other_settings, ablations.ALSO),
    "rollouts": Read("rollouts", ("rollouts=16", *ablations.BUDGETS), ablations.other_budgets, apart=True),
    "vppo": Read("related", ("vppo", "grpo"), others.vppo, ("vppo-uncut",)),
    "vspo": Read("related", ("vspo", "vspo-unsmoothed", "prs", "grpo"), others.vspo),
    "arpo": Read("compare", ("arpo", "grpo"), others.arpo),
    "prs": Read("related", ("prs", "grpo"), others.prs),
    "astarpo": Read("related", ("astarpo", "grpo", "ppo"), others.astarpo, ("rebel",)),
}
CLAIMS = (*MEASURED, *READ)
