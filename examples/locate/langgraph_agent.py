"""The agent of this folder in LangGraph (pip install langgraph langchain langchain-openai); writes langgraph.json.

python examples/locate/server.py --port 8010 &
python examples/locate/langgraph_agent.py http://127.0.0.1:8010/v1
"""

import json
import sys
from pathlib import Path

from langchain.agents import create_agent
from langchain_core.messages import messages_to_dict
from langchain_openai import ChatOpenAI
from tools import Register, notify

TASK = "Start at 0. add 7; double; notify; spend 4; add 9; double."


def run(url: str) -> list:
    register = Register()
    agent = create_agent(
        ChatOpenAI(model="scripted", base_url=url, api_key="none"),
        tools=[register.add, register.subtract, register.double, notify],
        system_prompt="Use the tools, one call at a time. Then say where the register is.",
    )
    return agent.invoke({"messages": [("user", TASK)]})["messages"]


if __name__ == "__main__":
    while "38" in (messages := run(sys.argv[1]))[-1].content:  # it got it right: again
        pass
    record = {"messages": messages_to_dict(messages), "answer": "38"}
    Path(__file__).with_name("langgraph.json").write_text(json.dumps(record, indent=1) + "\n")
