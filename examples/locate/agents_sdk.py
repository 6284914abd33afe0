"""The agent of this folder in the OpenAI Agents SDK (pip install openai-agents); writes agents_sdk.json, a failed run.

python examples/locate/server.py --port 8010 &
python examples/locate/agents_sdk.py http://127.0.0.1:8010/v1
"""

import asyncio
import json
import sys
from pathlib import Path

from agents import Agent, OpenAIChatCompletionsModel, Runner, function_tool, set_tracing_disabled
from openai import AsyncOpenAI
from tools import Register, notify

TASK = "Start at 0. add 7; double; notify; spend 4; add 9; double."


async def run(url: str) -> list[dict]:
    register = Register()
    agent = Agent(
        name="accountant",
        instructions="Use the tools, one call at a time. Then say where the register is.",
        tools=[function_tool(f) for f in (register.add, register.subtract, register.double, notify)],
        model=OpenAIChatCompletionsModel("scripted", AsyncOpenAI(base_url=url, api_key="none")),
    )
    result = await Runner.run(agent, TASK, max_turns=20)
    return [{"role": "system", "content": agent.instructions}, *result.to_input_list()]


if __name__ == "__main__":
    set_tracing_disabled(True)
    while "38" in str((items := asyncio.run(run(sys.argv[1])))[-1]):  # it got it right: again
        pass
    Path(__file__).with_name("agents_sdk.json").write_text(
        json.dumps({"input": items, "answer": "38"}, indent=1) + "\n"
    )
