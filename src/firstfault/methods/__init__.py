"""The methods. A new one is a file here and a line in `METHODS`; a user's own is `path/to/file.py:ClassName`."""

from firstfault.methods.aepo import AEPO
from firstfault.methods.arpo import ARPO
from firstfault.methods.astarpo import AStarPO
from firstfault.methods.base import Method
from firstfault.methods.cir import CIR
from firstfault.methods.corpo import CoRPO
from firstfault.methods.dapo import DAPO
from firstfault.methods.elpo import ELPO
from firstfault.methods.gigpo import GiGPO
from firstfault.methods.grpo import GRPO
from firstfault.methods.grpo_tcr import GRPOTCR
from firstfault.methods.ppo import PPO
from firstfault.methods.rebel import REBEL
from firstfault.methods.reinforce_pp import ReinforcePP
from firstfault.methods.rloo import RLOO
from firstfault.methods.torl import ToRL
from firstfault.methods.tree_grpo import TreeGRPO
from firstfault.methods.vineppo import VinePPO
from firstfault.methods.vppo import VPPO
from firstfault.methods.vspo import VSPO

METHODS: dict[str, type[Method]] = {
    "elpo": ELPO,
    "grpo": GRPO,
    "rloo": RLOO,
    "ppo": PPO,
    "reinforce-pp": ReinforcePP,
    "dapo": DAPO,
    "grpo-tcr": GRPOTCR,
    "torl": ToRL,
    "cir": CIR,
    "corpo": CoRPO,
    "tree-grpo": TreeGRPO,
    "arpo": ARPO,
    "aepo": AEPO,
    "gigpo": GiGPO,
    "vineppo": VinePPO,
    "vppo": VPPO,
    "vspo": VSPO,
    "astarpo": AStarPO,
    "rebel": REBEL,
}
