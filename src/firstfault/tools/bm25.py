"""bm25s without JAX.

Where JAX is installed, bm25s starts it as it is imported, for a way to rank that is not used here. A started JAX keeps
most of a GPU's memory to itself, and its threads do not survive that a process is forked.
"""

import sys

jax = sys.modules.get("jax")
sys.modules["jax"] = None  # type: ignore[assignment]  # as if it was not installed
try:
    import bm25s
finally:
    del sys.modules["jax"]
    if jax is not None:
        sys.modules["jax"] = jax

__all__ = ["bm25s"]
