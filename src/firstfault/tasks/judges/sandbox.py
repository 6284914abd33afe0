"""A Python tool of the judges' own, in which they run what an agent must not: everything that reads its answers."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

from firstfault.tools import PythonTool, Session

PIECE = 25_000  # characters that one call of the tool is sure to take, escaped and with a script before them
MAX_REPLY = 60_000  # characters


class Sandbox:
    """Calls functions of our own scripts in a bounded process; the data travel as JSON and are never code.

    `timeout` (seconds) and `memory_mb` bound a call. Every call starts from a fresh state. The processes start with
    the first call; after `close`, a later call starts them again.
    """

    def __init__(self, *, timeout: float = 10.0, memory_mb: int = 1024, preload: tuple[str, ...] = ()):
        options = {"preload": preload} if "preload" in inspect.signature(PythonTool).parameters else {}
        tool = PythonTool(timeout=timeout, memory_mb=memory_mb, max_output=MAX_REPLY, **options)
        self._session = Session([tool], timeout=timeout, max_output=MAX_REPLY)

    async def call(self, script: Path, function: str, *data: Any) -> Any:
        """What a function of `script` returns; None if it raised, hung, or outgrew a bound."""
        text = json.dumps(data)
        pieces = [text[i : i + PIECE] for i in range(0, len(text), PIECE)]
        last = f"print(json.dumps({function}(*json.loads(data))))"
        session = self._session.fork()
        try:
            if len(pieces) == 1:
                return await self._run(session, f"data = {text!r}\n{script.read_text()}\nimport json\n{last}")
            await self._run(session, f"data = ''\n{script.read_text()}\nimport json")
            for piece in pieces:
                await self._run(session, f"data += {piece!r}")
            return await self._run(session, last)
        finally:
            await session.close()

    async def _run(self, session: Session, code: str) -> Any:
        seen = await session.call("python", {"code": code})
        if seen.failed:
            return None
        try:
            return json.loads(seen.text.rpartition("\n")[2])
        except (ValueError, RecursionError):  # nothing was printed, or not by us
            return None

    async def close(self) -> None:
        await self._session.close()
