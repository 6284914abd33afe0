"""A Python tool of the judges' own, in which they run what an agent must not: everything that reads its answers."""

from __future__ import annotations

import asyncio
import base64
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from firstfault.errors import UserError
from firstfault.tools import PythonTool, Session

PIECE = 50_000  # characters that one call of the tool takes
MAX_REPLY = 60_000  # characters that it prints
MEMORY_MB = 1024  # of a call
START = "import base64, json, zlib\ndata = ''\n"
DATA = "*json.loads(zlib.decompress(base64.b64decode(data)))"


class SandboxedScript:
    """Calls functions of a script of ours in bounded processes; the data travel as JSON and are never code.

    `warm_up` is code that is run once, after the script; `timeout` bounds a call, in seconds. Every call goes on from
    the same state, just after that. The processes start with the first call; after `close`, a later call starts them
    again.
    """

    def __init__(self, script: Path, *, preload: Sequence[str], timeout: float, warm_up: str = ""):
        self._script = f"{START}{script.read_text(encoding='utf-8')}\n{warm_up}"
        tool = PythonTool(timeout=timeout, memory_mb=MEMORY_MB, max_output=MAX_REPLY, preload=preload)
        self._session = Session([tool], max_output=MAX_REPLY)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loaded = False

    async def call(self, function: str, *data: Any) -> Any:
        """What a function of the script returns; None if it raised, hung, or outgrew a bound."""
        await self._load()
        text = base64.b64encode(zlib.compress(json.dumps(data).encode())).decode()
        *first, last = [text[i : i + PIECE] for i in range(0, len(text), PIECE)]
        session = self._session.fork()
        try:
            for piece in first:
                await session.call("python", {"code": f"data += {piece!r}"})
            code = f"data += {last!r}\nprint('\\n' + json.dumps({function}({DATA})))"
            seen = await session.call("python", {"code": code})
            return None if seen.failed else json.loads(seen.text.rpartition("\n")[2])
        except (ValueError, RecursionError):  # what was printed last is not ours
            return None
        finally:
            await session.close()

    async def _load(self) -> None:
        if self._loop is not asyncio.get_running_loop():
            self._loop, self._lock = asyncio.get_running_loop(), asyncio.Lock()
        async with self._lock:
            if not self._loaded:
                seen = await self._session.call("python", {"code": self._script})
                if seen.failed:
                    raise UserError(f"the judges' Python does not start: {seen.text.splitlines()[-1]}")
                self._loaded = True

    async def close(self) -> None:
        await self._session.close()
