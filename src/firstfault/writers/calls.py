"""What an agent's message does: its tool calls are made, and it is told what came of them."""

from __future__ import annotations

from firstfault.agent.calls import check_call
from firstfault.agent.rollouts import make_call
from firstfault.tools.base import Session
from firstfault.tree import Call
from firstfault.writers.base import Message


async def make_calls(message: Message, session: Session) -> tuple[list[Call], list[Message]]:
    """Make the calls of a message of the assistant, one after the other.

    Returns:
        what came of each call, and the messages that tell the agent so.

    Raises:
        ReplayError: if the tools' state is lost.
    """
    calls, told = [], []
    for call in message.get("tool_calls", ()):
        seen = await make_call(check_call(call), session)
        calls.append(seen)
        told.append({"role": "tool", "tool_call_id": call["id"], "content": seen.output})
    return calls, told
