"""The methods. A new one is a file here and a line in `METHODS`; a user's own is `path/to/file.py:ClassName`."""

from firstfault.methods.base import Method
from firstfault.methods.elpo import ELPO
from firstfault.methods.grpo import GRPO

METHODS: dict[str, type[Method]] = {"elpo": ELPO, "grpo": GRPO}
