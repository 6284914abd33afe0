"""What an agent's message does: its tool calls are made, and it is told what came of them."""

from __future__ import annotations

from firstfault.agent.calls import check_call
from firstfault.agent.rollouts import make_call
from firstfault.tools.base import Session
from firstfault.tree import Node, Tree
from firstfault.writers.base import Message, plain


async def take_step(
    tree: Tree, node: Node, written: Message, session: Session, *, rollout: int, max_steps: int
) -> tuple[Node, list[Message]]:
    """Add the message that a `Writer` has written after `node` to the tree, and make its calls, one after the other.

    As `Agent.step`, for messages: calls of a message that was cut off, or of the last step, are not made.

    Returns:
        the step; and its message, followed by those that tell the agent what came of its calls.

    Raises:
        ReplayError: if the tools' state is lost.
    """
    message = plain(written)
    step, messages = tree.add(node, rollout=rollout, text=message["content"]), [message]
    if written.get("cut"):
        step.end = "max_tokens"
    elif not message.get("tool_calls"):
        step.end, step.answer = "answer", step.text
    elif step.depth >= max_steps:
        step.end = "max_steps"
    else:
        for call in message["tool_calls"]:
            seen = await make_call(check_call(call), session)
            step.calls.append(seen)
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": seen.output})
    return step, messages
