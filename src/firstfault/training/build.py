"""From names and tables of settings to the objects of a run."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from firstfault.agent.chat import Chat
from firstfault.agent.rollouts import Agent
from firstfault.config import AgentConfig, RunConfig, validated
from firstfault.engines.base import Engine, Sampling
from firstfault.errors import UserError
from firstfault.methods import METHODS, Method
from firstfault.tasks import TASKS, JsonlTasks, Mix, TaskSource
from firstfault.tools import MCPTool, SearchTool, Session, Tool
from firstfault.tools.own import own_class, tools_from


def method_class(name: str) -> type[Method]:
    """A method of ours by name, or the user's own from `path/to/file.py:ClassName`."""
    if ":" in name:
        return own_class(name, Method)
    if name not in METHODS:
        raise UserError(_unknown("method", name, METHODS, "or file.py:ClassName"))
    return METHODS[name]


def tasks_class(name: str) -> type[TaskSource]:
    """A family of ours by name, `JsonlTasks` for a .jsonl, or the user's own from `path/to/file.py:ClassName`.

    Several of them, with commas between, are a `Mix`.
    """
    if "," in name:
        return Mix
    if name.endswith(".jsonl"):
        return JsonlTasks
    if ":" in name:
        return own_class(name, TaskSource)
    if name not in TASKS:
        raise UserError(_unknown("task family", name, TASKS, "or a .jsonl file, or file.py:ClassName"))
    return TASKS[name]


def build_method(table: Mapping[str, Any]) -> Method:
    options = {key: value for key, value in table.items() if key != "name"}
    return validated(method_class(table["name"]), options, where=f"method {table['name']}")


def build_tasks(table: Mapping[str, Any]) -> TaskSource:
    options = {key: value for key, value in table.items() if key != "name"}
    cls = tasks_class(table["name"])
    if cls is Mix:
        parts = [part.strip() for part in table["name"].split(",")]
        tables = options.get("families", {})
        if len(set(parts)) < len(parts):
            raise UserError(f"tasks {table['name']}: a family is named twice; name each once.")
        if not isinstance(tables, Mapping) or not all(isinstance(tables[name], Mapping) for name in tables):
            raise UserError(
                f"tasks {table['name']}: families = {tables!r} is no table of tables; write [tasks.families.{parts[0]}]"
                " in a recipe, and its options under it."
            )
        for name in set(tables) - set(parts):
            raise UserError(
                f"tasks {table['name']}: {name!r} has options and is not among them; name it, or drop them."
            )
        options["families"] = {part: build_tasks({"name": part, **tables.get(part, {})}) for part in parts}
    if cls is JsonlTasks and Path(options.setdefault("path", table["name"])) != Path(table["name"]):
        raise UserError(f"tasks {table['name']}: path = {options['path']!r} is another file; leave it out.")
    return validated(cls, options, where=f"tasks {table['name']}")


def complete_tasks(table: Mapping[str, Any], source: TaskSource) -> dict[str, Any]:
    """The table that `source` was built from, with all its options."""
    return {"name": table["name"], **source.model_dump(mode="json", exclude_none=True)}


def complete(config: RunConfig, source: TaskSource, method: Method) -> RunConfig:
    """`config`, which `source` and `method` were built from, with all their options."""
    options = {"name": config.method["name"], **method.model_dump(mode="json", exclude_none=True)}
    return config.model_copy(update={"tasks": complete_tasks(config.tasks, source), "method": options})


def run_tools(config: RunConfig, source: TaskSource) -> list[Tool]:
    """The tools of a run: those of its tasks, and what its settings add.

    Raises:
        UserError: if one can't be had, or two have a function of the same name.
    """
    tools = [*source.tools(), *(tool for name in config.functions for tool in tools_from(name))]
    tools += [MCPTool(server) for server in config.mcp]
    tools += [SearchTool.from_corpus(config.search)] if config.search else []
    names = [schema["function"]["name"] for tool in tools for schema in tool.schemas]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"two tools have a function named {twice!r}; rename it in one of them, or leave one out.")
    return tools


def build_session(config: AgentConfig, tools: Sequence[Tool]) -> Session:
    return Session(tools, timeout=config.tool_timeout, max_output=config.tool_output)


def build_agent(
    config: AgentConfig, engine: Engine, tokenizer: PreTrainedTokenizerBase, source: TaskSource, tools: Sequence[Tool]
) -> Agent:
    session = build_session(config, tools)
    chat = Chat(tokenizer, session.schemas, source.system)
    sampling = Sampling(config.temperature, config.top_p, config.max_new_tokens, chat.stop_tokens, tuple(config.stop))
    return Agent(engine, chat, session, source.judge, sampling, config.max_steps, config.max_context)


def _unknown(kind: str, name: str, known: Mapping[str, Any], more: str) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(known)}, {more}."
    return f"there is no {kind} {name!r}; {hint}"
