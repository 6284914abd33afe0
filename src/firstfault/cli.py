"""The command line: verbs that each call one function."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from firstfault import __version__
from firstfault.config import RunConfig, merge, read_recipe, validated
from firstfault.errors import UserError

NAMED = ("tasks", "method")  # settings that are a name with options of its own


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb. Bad input is one sentence on stderr and exit code 2."""
    # threads that wait for work must sleep, not spin: they share the cores with the tools' processes
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what was begun must not go on alone
    # flags may be written with either - or _, as settings are in TOML
    arguments = [_dashed(a) for a in (sys.argv[1:] if arguments is None else arguments)]
    try:
        parsed, unknown = _parser(arguments).parse_known_args(arguments)
        if unknown:
            parsed.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
        if getattr(parsed, "sandbox", None):
            os.environ["FIRSTFAULT_SANDBOX"] = parsed.sandbox
        parsed.run(parsed)
        return 0
    except UserError as error:
        print(f"firstfault: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "firstfault: interrupted; what was finished is saved, and the same command goes on (train: with --resume).",
            file=sys.stderr,
        )
        return 130


def _dashed(argument: str) -> str:
    flag, equals, value = argument.partition("=")
    return flag.replace("_", "-") + equals + value if flag.startswith("--") else argument


# verbs


def train(parsed: argparse.Namespace) -> None:
    from firstfault.report import write_report
    from firstfault.report.terminal import achieved
    from firstfault.training.build import build_method, build_tasks
    from firstfault.training.loop import Trainer

    console = Console(stderr=True)
    config = _config(parsed)
    trainer = Trainer(
        config, build_tasks(config.tasks), build_method(config.method), resume=parsed.resume, console=console
    )
    trainer.train()
    Console().print(achieved(trainer.folder))
    if trainer.folder.read_metrics():
        print(f"report: {write_report(config.run_dir)}")


def evaluate(parsed: argparse.Namespace) -> None:
    from firstfault.evaluation.command import EvalConfig, command

    command(_config(parsed), validated(EvalConfig, _given(parsed, "own"), "settings"), as_json=parsed.json)


def methods(parsed: argparse.Namespace) -> None:
    from firstfault.methods import METHODS

    _list("methods", METHODS)


def tasks(parsed: argparse.Namespace) -> None:
    from firstfault.tasks import TASKS

    _list("task families", TASKS)


def report(parsed: argparse.Namespace) -> None:
    from firstfault.report import write_report

    print(write_report(parsed.run_dir))


def show(parsed: argparse.Namespace) -> None:
    from firstfault.report.terminal import tree_picture
    from firstfault.tree import load_trees

    if parsed.first < 1:
        raise UserError(f"--first {parsed.first} is no number of trees; give 1 or more.")
    trees = list(load_trees(parsed.trees))
    if not trees:
        raise UserError(f"{parsed.trees} holds no trees; give a file from a run's trees folder.")
    if parsed.tree is not None and not 1 <= parsed.tree <= len(trees):
        raise UserError(f"{parsed.trees} has no tree {parsed.tree}; it has {len(trees)}, counted from 1.")
    for tree in trees[: parsed.first] if parsed.tree is None else [trees[parsed.tree - 1]]:
        Console().print(tree_picture(tree))


def compare(parsed: argparse.Namespace) -> None:
    from firstfault.evaluation.compare import Comparison
    from firstfault.evaluation.plan import read_plan
    from firstfault.report.compared import write_comparison
    from firstfault.report.terminal import comparison_table

    plan = read_plan(parsed.config, _given(parsed, "own"), _given(parsed, "run"))
    comparison = Comparison(plan, Console(stderr=True))
    out = comparison.plan.config.out
    try:
        comparison.run()
    except KeyboardInterrupt:
        with contextlib.suppress(UserError):  # nothing is finished yet
            write_comparison(comparison.results(), out)
        raise
    results = comparison.results()
    pages = write_comparison(results, out)
    Console().print(comparison_table(results))
    print(f"report: {pages}")
    refused = {
        (run["method"], run["family"]): f"{run['method']} overspent its budget on {run['family']} ({run['overspent']})"
        for run in results["runs"]
        if run["overspent"]
    }
    if refused:
        raise UserError(
            f"{'; '.join(refused.values())}: without a part in the conclusions of {pages}. Give a larger budget or, of "
            "tokens and calls, a smaller --batch."
        )
    if comparison.failures:
        raise UserError(f"{len(comparison.failures)} runs failed, which {pages} lists; the same command tries again.")


def claims(parsed: argparse.Namespace) -> None:
    from firstfault.evaluation.claims import MEASURED
    from firstfault.evaluation.claims.command import ClaimsConfig, command
    from firstfault.evaluation.plan import read_families

    config = validated(ClaimsConfig, _given(parsed, "own"), "settings")
    # without a name, and without families to measure on, comparisons are all that there is to check
    given = parsed.config or config.tasks or not config.comparison
    measured = any(name in MEASURED for name in parsed.claims) if parsed.claims else given
    families = read_families(parsed.config, config.tasks, _given(parsed, "run")) if measured else {}
    command(parsed.claims, families, config, Console())
    print(f"report: {config.out / 'claims.md'}")


def locate(parsed: argparse.Namespace) -> None:
    from firstfault.locate.command import LocateConfig, command

    config = validated(LocateConfig, _given(parsed, "own"), "settings")
    command(parsed.trace, config, yes=parsed.yes, as_json=parsed.json)


def view(parsed: argparse.Namespace) -> None:
    from firstfault.view import Recording, serve, write_page

    if parsed.credit:
        first, second = parsed.credit
        if first == second:
            raise UserError(f"--credit {first} {second} names one method twice; name two.")
    recording = Recording(parsed.path, parsed.tree, tuple(parsed.credit))
    if parsed.html:
        write_page(recording, parsed.html)
        print(parsed.html)
    else:
        serve(recording, parsed.port, parsed.browser)


def _list(title: str, entries: Mapping[str, Any]) -> None:
    papers = hasattr(next(iter(entries.values())), "paper")
    table = Table("name", *["paper"] * papers, "what it does", title=title)
    for name, cls in entries.items():
        table.add_row(name, *([cls.paper] if papers else []), (cls.__doc__ or "").strip().splitlines()[0])
    Console().print(table)


# Flags: every field of RunConfig is one, and so is every option of the chosen method and tasks; a verb may have
# settings of its own. In what was parsed, names of fields begin with whose they are: run/steps, own/records.


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, with the flag that was probably meant."""

    def error(self, message: str) -> NoReturn:
        unknown = next((word for word in message.split() if word.startswith("--")), "") if "unrecog" in message else ""
        known = [flag for action in self._actions for flag in action.option_strings]
        near = difflib.get_close_matches(unknown, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"{self.prog} --help shows what there is."
        raise UserError(f"{message}; {hint}")


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = _Parser(
        prog="firstfault",
        description="Trains tool-using agents with reinforcement learning, and finds the step where a run was lost.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def verb(function: Any, name: str, help: str, usage: str = "") -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=help, description=help, argument_default=argparse.SUPPRESS,
                                 allow_abbrev=False, usage=f"firstfault {name} {usage}" if usage else None)  # fmt: skip
        added.set_defaults(run=function, parser=added)
        return added

    settings = "[--config RECIPE.toml] [--SETTING X ...]"
    training = verb(train, "train", "train a policy; everything of the run goes to --run-dir", f"[--resume] {settings}")
    training.add_argument("--resume", action="store_true", default=False, help="go on from the newest checkpoint")
    evaluation = verb(
        evaluate,
        "eval",
        "measure an agent on held-out tasks: Pass@K, Major@K, greedy success, tool calls, by family and difficulty",
        f"[--samples N] [--k 1,4,16] [--records FILE] [--endpoint URL] [--json] {settings}",
    )
    evaluation.add_argument("--samples", dest="run/evaluation.samples", metavar="X",
                            help="sampled runs per task, besides a greedy one (default: 4)")  # fmt: skip
    evaluation.add_argument("--k", dest="run/evaluation.k", action="append", metavar="X",
                            help="K of Pass@K and Major@K, such as 1,4,16 (default: 1 and the samples)")  # fmt: skip
    evaluation.add_argument("--json", action="store_true", default=False, help="print the figures as JSON")
    if arguments[:1] == ["eval"]:
        from firstfault.evaluation.command import EvalConfig

        _add_fields(evaluation.add_argument_group("settings of the evaluation"), EvalConfig, "own")
    for added in (training, evaluation):
        added.add_argument("--config", type=Path, default=None, help="a TOML recipe; flags override it")
        added.add_argument("--sandbox", metavar="X", help="process: run code of the agent with less isolation, where "
                           "bubblewrap can't be had (default: $FIRSTFAULT_SANDBOX, else bubblewrap)")  # fmt: skip
        if arguments[:1] == [added.prog.split()[-1]]:
            _add_settings(added, arguments)
    comparing = verb(compare, "compare", "train methods on the same tasks, seeds and budget, and say which is better",
                     "--methods NAME,NAME --tasks FAMILY,FAMILY [--budget rollouts=16] [--seeds 5] "
                     "[--config RECIPE.toml] [--SETTING X ...]")  # fmt: skip
    comparing.add_argument("--config", type=Path, default=None, help="a TOML recipe (see docs/comparing.md); flags "
                           "override it")  # fmt: skip
    comparing.add_argument("--sandbox", metavar="X", help="process: run code of the agent with less isolation")
    comparing.add_argument("--resume", action="store_true", help="what it does anyway: finished runs are kept")
    comparing.add_argument("--keep-trees", dest="own/keep_trees", action="store_true",
                           help="keep trees and checkpoints of finished runs")  # fmt: skip
    if arguments[:1] == ["compare"]:
        from firstfault.evaluation.plan import OWN, CompareConfig

        _add_fields(comparing.add_argument_group("the comparison"), CompareConfig, "own", without=("keep_trees",))
        _add_fields(comparing.add_argument_group("settings of all runs"), RunConfig, "run", without=OWN)
    claiming = verb(claims, "claims", "check claims of the ELPO paper, and of others, at a laptop's size",
                    "[NAME ...] [--comparison DIR] [--tasks FAMILY,FAMILY] [--runs 30] [--config RECIPE.toml] "
                    "[--SETTING X ...]")  # fmt: skip
    claiming.add_argument("claims", nargs="*", default=[], metavar="NAME", help="which (see docs/claims.md); default: "
                          "the measured ones, and those that the comparisons can tell")  # fmt: skip
    claiming.add_argument("--config", type=Path, default=None,
                          help="a TOML recipe of a comparison; flags override it")  # fmt: skip
    claiming.add_argument("--sandbox", metavar="X", help="process: run code of the agent with less isolation")
    if arguments[:1] == ["claims"]:
        from firstfault.evaluation.claims.command import ClaimsConfig
        from firstfault.evaluation.plan import OWN

        _add_fields(claiming.add_argument_group("the measurement"), ClaimsConfig, "own")
        _add_fields(claiming.add_argument_group("settings of the policy"), RunConfig, "run", without=OWN)
    verb(methods, "methods", "list the methods, with their papers")
    verb(tasks, "tasks", "list the task families")
    reporting = verb(report, "report", "write report.html of a run again")
    reporting.add_argument("run_dir", type=Path)
    showing = verb(show, "show", "print rollout trees in the terminal", "TREES [--first N | --tree N]")
    showing.add_argument("trees", type=Path, help="a file such as runs/x/trees/step-0001.jsonl.gz")
    showing.add_argument("--first", type=int, default=4, metavar="N", help="how many trees (default: 4)")
    showing.add_argument("--tree", type=int, default=None, metavar="N", help="only the Nth")
    locating = verb(
        locate,
        "locate",
        "find the step where a run of any agent was lost, by asking its model again from each step",
        "TRACE --model NAME [--yes] [--json] [--SETTING X ...]",
    )
    locating.add_argument("trace", type=Path, help="a log of failed runs; docs/traces.md lists the formats")
    locating.add_argument("--yes", action="store_true", default=False, help="spend without asking")
    locating.add_argument("--json", action="store_true", default=False, help="print JSON, a trace a line")
    if arguments[:1] == ["locate"]:
        from firstfault.locate.command import LocateConfig

        _add_fields(locating.add_argument_group("settings"), LocateConfig, "own")
    viewing = verb(view, "view", "explore rollout trees in a browser: of a run, an iteration, or one tree",
                   "PATH [--tree N] [--credit METHOD METHOD] [--html FILE | --port N --no-browser]")  # fmt: skip
    viewing.add_argument(
        "path", type=Path, help="the folder of a run, or a file such as runs/x/trees/step-0001.jsonl.gz"
    )
    viewing.add_argument("--tree", type=int, default=None, metavar="N", help="only the Nth tree of the file")
    viewing.add_argument(
        "--credit", nargs=2, default=(), metavar="METHOD", help="the credit of two methods side by side"
    )
    viewing.add_argument("--html", type=Path, default=None, metavar="FILE", help="write one file that holds it all")
    viewing.add_argument(
        "--port", type=int, default=8017, help="of the server on this machine; 0 for any (default: 8017)"
    )
    viewing.add_argument("--no-browser", dest="browser", action="store_false", default=True, help="open none")
    return parser


def _add_settings(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    from firstfault.training.build import method_class, tasks_class

    _add_fields(parser.add_argument_group("settings of the run"), RunConfig, "run")

    known = _Parser(
        prog=parser.prog,
        usage=argparse.SUPPRESS,
        add_help=False,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    for name in ("config", "run-dir", *NAMED):
        known.add_argument(f"--{name}")
    known.add_argument("--resume", action="store_true")
    first, _ = known.parse_known_args([a for a in arguments if a not in ("-h", "--help")])
    recipe = _recipe(getattr(first, "config", None), getattr(first, "resume", False), getattr(first, "run_dir", None))
    for setting, find in (("method", method_class), ("tasks", tasks_class)):
        default = RunConfig.model_fields[setting].default
        chosen = getattr(first, setting, recipe.get(setting, default))
        chosen = chosen.get("name", default["name"]) if isinstance(chosen, dict) else chosen
        cls = find(str(chosen))
        _add_fields(parser.add_argument_group(f"options of {cls.__name__}"), cls, "run", f"{setting}.")


def _add_fields(group: Any, model: type[BaseModel], whose: str, prefix: str = "", without: Sequence[str] = ()) -> None:
    """A flag for each field of a settings class, its sections included, but for those `without`."""
    for name, field in model.model_fields.items():
        if name in without:
            continue
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            _add_fields(group, field.annotation, whose, f"{prefix}{name}.")
            continue
        if prefix and get_origin(field.annotation) is dict:
            continue  # of a mix: the options of its families stand in recipes
        repeats = get_origin(field.annotation) is list
        note = f"default: {_default(field)}" + ("; may be repeated" if repeats else "")
        description = field.description if field.is_required() else f"{field.description} ({note})"
        choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
        group.add_argument(f"--{prefix}{name}".replace("_", "-"), dest=f"{whose}/{prefix}{name}",
                           metavar=f"{{{','.join(choices)}}}" if choices else "X",
                           action="append" if repeats else "store", help=description.replace("%", "%%"))  # fmt: skip


def _default(field: Any) -> Any:
    default = field.get_default()
    return default["name"] if isinstance(default, dict) else default if default not in ("", [], None) else "none"


def _config(parsed: argparse.Namespace) -> RunConfig:
    """The recipe, if any, with the flags over it."""
    flags = _given(parsed, "run")
    resume = getattr(parsed, "resume", False)
    recipe = _recipe(parsed.config, resume, flags.get("run_dir"))
    if resume and not recipe and set(flags) <= {"run_dir"}:
        raise UserError("there is no run to go on with in that folder; check --run-dir, or say what to start there.")
    if "compare" in recipe:
        raise UserError(
            f"{parsed.config} is the recipe of a comparison; give that of a run, such as the config.toml in its folder."
        )
    for name in set(NAMED) - set(recipe):  # options of the default need not name it
        if name in flags:
            flags[name] = RunConfig.model_fields[name].default | flags[name]
    where = f"{parsed.config} and flags" if parsed.config else "settings"
    return validated(RunConfig, merge(recipe, flags), where)


def _given(parsed: argparse.Namespace, whose: str) -> dict[str, Any]:
    """The settings among the flags, as tables: those of a run, or the verb's own."""
    flags: dict[str, Any] = {}
    for flag, value in vars(parsed).items():
        of, _, dotted = flag.rpartition("/")
        if of != whose:
            continue
        *sections, name = dotted.split(".")
        table = flags
        for section in sections:
            table = table.setdefault(section, {})
        named = whose == "run" and name in NAMED and not sections
        table[name] = {**table.get(name, {}), "name": value} if named else value
    return flags


def _recipe(path: Path | None, resume: bool, run_dir: str | None) -> dict[str, Any]:
    """The recipe that was named; of a run that goes on, what it was started with."""
    if path is None and resume:
        started = Path(run_dir or RunConfig.model_fields["run_dir"].default) / "config.toml"
        path = started if started.exists() else None
    return read_recipe(Path(path)) if path else {}
