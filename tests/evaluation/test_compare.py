"""Whole comparisons of a tiny policy: what they conclude, what they refuse, and that they go on where they stopped."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from firstfault.evaluation.compare import Comparison
from firstfault.evaluation.plan import own_code, slug
from firstfault.files import write_whole
from firstfault.training.budget import MOST

# methods of a user: one that has nothing to learn from, and two that take more than they have
METHODS = """
from firstfault.methods import GRPO


class Idle(GRPO):
    def credit(self, trees):
        for tree in trees:
            self.credit_runs(tree, [0.0 for _ in tree.leaves])


class Raised(GRPO):
    async def explore(self, tree, rollouts):
        rollouts.budget *= 2
        await super().explore(tree, rollouts)


class Hidden(GRPO):
    "Keeps the better half of twice as many trees, so that trees alone would not tell."

    async def explore_all(self, batch):
        batch.remaining *= 2
        trees = await batch.grow(batch.draw(2 * batch.size), self.explore, self.rollouts)
        return sorted(trees, key=lambda tree: sum(leaf.success for leaf in tree.leaves))[batch.size :]
"""
SMALL = ["--steps", "2", "--evaluation.problems", "4", "--evaluation.samples", "1",
         "--evaluation.every", "1", "--seeds", "2"]  # fmt: skip


@pytest.fixture
def own(tmp_path: Path) -> Path:
    file = tmp_path / "own.py"
    file.write_text(METHODS)
    return file


def test_two_names_of_one_method_are_not_different(compare, results, tmp_path):
    assert compare("grpo,twin=grpo", *SMALL, "--evaluation.k", "2", families="parity,again") == 0
    found = results()
    assert all(d["mean"] == 0 and d["p_holm"] == 1 and not d["told_apart"] for d in found["differences"] if
               d["measure"] != "seconds")  # fmt: skip
    assert "grpo and twin cannot be told apart on parity: no difference was seen in 2 seeds." in found["conclusions"]
    assert found["unlike_starts"] == []
    assert {d["family"] for d in found["differences"]} == {"parity", "again", "all families"}
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<script" not in page and page.count("<svg") == 16  # two families: four axes, and four measures of training
    assert "| parity | grpo | twin | 2 | +0.000 |" in (tmp_path / "out" / "results.md").read_text()
    cells = tmp_path / "out" / "cells" / "parity" / "twin" / "lr-1"
    left = {path.name for path in (cells / "seed-1").iterdir()}
    assert "cell.json" in left and not left & {"trees", "checkpoints"}
    kept = [json.loads((cells / f"seed-{seed}" / "cell.json").read_text()) for seed in (0, 1)]
    assert {run["code"] for run in kept} == {run["code"] for run in found["runs"]} == {own_code()}
    last = [run["evaluations"][-1] for run in kept]
    assert [record["samples"] for record in last] == [2, 2]
    for record in last:  # of two runs
        assert record["outcomes"]["pass@2"] == [float(rate > 0) for rate in record["outcomes"]["sampled"]]
    [level] = [level for level in found["levels"] if (level["family"], level["method"]) == ("parity", "twin")]
    assert level["pass@2"]["mean"] == pytest.approx(sum(record["pass@2"] for record in last) / 2)
    assert "Differences: Major@2" in page
    assert "How they learnt" in page and {row["method"] for row in found["learnt"]} == {"grpo", "twin"}
    [row] = [row for row in found["learnt"] if (row["family"], row["method"]) == ("parity", "twin")]
    assert (
        row["memory"] > 50
        and row["searches"] is None
        and row["unfinished"] is None
        and row["clipped_localized"] is None
    )


def test_a_planted_gain_is_found(compare, results, own):
    more = ["--steps", "6", "--seeds", "5", "--evaluation.problems", "24", "--optimizer.lr", "3e-3"]
    assert compare(f"grpo,idle={own}:Idle", *more, budget="rollouts=8") == 0
    found = results()
    final = next(d for d in found["differences"] if d["measure"] == "final")
    assert final["told_apart"] and final["mean"] > 0.1 and final["low"] > 0
    assert re.match(r"With 5 seeds, grpo is ahead of idle on parity by 0\.\d+ \[", found["conclusions"][0])
    spend = {run["method"]: run["spend"] for run in found["runs"]}
    assert spend["idle"]["updates"] == 0 < spend["idle"]["skipped_updates"] and spend["grpo"]["updates"] > 0


def test_no_run_starts_where_the_cold_start_fails(compare, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FIRSTFAULT_CACHE", "/proc/nowhere")
    assert compare("grpo,rloo", *SMALL, "--model", "tiny", "--cold-start.steps", "2") == 2
    assert "no finished run to report on; cold start of parity: exit code 2" in capsys.readouterr().err
    assert not (tmp_path / "out" / "cells").exists()


def test_a_comparison_keeps_what_its_runs_start_from(compare, results, tmp_path, monkeypatch):
    small = [*SMALL, "--model", "tiny", "--cold-start.steps", "2"]
    monkeypatch.setenv("FIRSTFAULT_CACHE", str(tmp_path / "here"))
    assert compare("grpo,rloo", *small, "--seeds", "1") == 0
    monkeypatch.setenv("FIRSTFAULT_CACHE", str(tmp_path / "elsewhere"))
    assert compare("grpo,rloo", *small) == 0 and len(results()["runs"]) == 4
    assert (tmp_path / "out" / "starts" / "parity" / "model.safetensors").exists()
    assert len([*(tmp_path / "here").glob("tiny-*")]) == 1 and not [*(tmp_path / "elsewhere").glob("tiny-*")]
    shutil.rmtree(tmp_path / "out" / "cells")  # without finished runs, it may be taught otherwise
    assert compare("grpo,rloo", *small, "--seeds", "1", "--cold-start.seed", "1") == 0
    assert len([*(tmp_path / "elsewhere").glob("tiny-*")]) == 1


@pytest.mark.parametrize("name", ["Raised", "Hidden"])
def test_who_overspends_is_refused(compare, results, own, name, capsys):
    assert compare(f"grpo,greedy={own}:{name},twin=grpo", *SMALL) == 2
    assert "greedy overspent its budget on parity (64 rollouts, 32 allowed)" in capsys.readouterr().err
    found = results()
    assert found["refused"] == [{"family": "parity", "method": "greedy"}]
    assert {(d["first"], d["second"]) for d in found["differences"]} == {("grpo", "twin")}
    assert {run["spend"]["rollouts"] for run in found["runs"] if run["method"] != "greedy"} == {32}


@pytest.mark.parametrize(("kind", "name"), [("tokens=400", "generated_tokens"), ("calls=16", "tool_calls")])
def test_budgets_of_tokens_and_calls(compare, results, kind, name, tmp_path):
    compare("grpo:rollouts=4,elpo:rollouts=8", *SMALL, "--steps", "6", "--batch", "2", budget=kind)
    allowed = 6 * int(kind.partition("=")[2])
    for run in results()["runs"]:
        file = (
            tmp_path / "out" / "cells" / "parity" / slug(run["method"]) / "lr-1" / f"seed-{run['seed']}" / "cell.json"
        )
        most = max(row["tasks"] for row in json.loads(file.read_text())["iterations"])
        # a policy that hardly calls is hard to plan with, and one that stops calling gets no tasks without end
        assert run["spend"][name] < 1.4 * allowed and (run["spend"][name] > 0.6 * allowed or most == MOST * 2)
        assert bool(run["overspent"]) == (run["spend"][name] > 1.1 * allowed)
        assert run["spend"]["updates"] + run["spend"]["skipped_updates"] <= 6


def test_learning_rates_are_tuned_apart_with_the_same_trials(compare, results, tmp_path):
    assert compare("grpo,rloo", *SMALL, "--seeds", "1", "--lr-grid", "0.001,3", "--optimizer.lr", "1e-2") == 0
    found = results()
    trials = [(t["method"], t["multiple"]) for t in found["trials"]]
    assert trials == [("grpo", 0.001), ("grpo", 3), ("rloo", 0.001), ("rloo", 3)]
    best = {m: max((t for t in found["trials"] if t["method"] == m), key=lambda t: (t["sampled"], -t["multiple"]))
            for m in ("grpo", "rloo")}  # fmt: skip
    assert {run["method"]: run["multiple"] for run in found["runs"]} == {m: t["multiple"] for m, t in best.items()}
    cell = json.loads(next(tmp_path.glob("out/cells/parity/grpo/lr-3/seed-1000/cell.json")).read_text())
    assert cell["config"]["evaluation"]["first"] == 4 and cell["config"]["optimizer"]["lr"] == pytest.approx(3e-2)


def test_an_interrupted_comparison_goes_on(compare, results, tmp_path, monkeypatch):
    from firstfault.evaluation import compare as module

    kept = []

    def stop_after_two(cell, *rest, keep=module.keep, **more):
        keep(cell, *rest, **more)
        kept.append(cell.folder)
        if len(kept) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "keep", stop_after_two)
    assert compare("grpo,rloo", *SMALL, "--seeds", "3", "--jobs", "1") == 130
    finished = {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/cells/**/cell.json")}
    assert len(finished) == 2 and len(results()["runs"]) == 2  # and there is a report of what there is
    assert {path.parent.name for path in finished} == {"seed-0"}  # seed by seed
    monkeypatch.undo()
    assert compare("grpo,rloo", *SMALL, "--seeds", "3") == 0
    assert len(results()["runs"]) == 6
    assert all(path.stat().st_mtime_ns == then for path, then in finished.items())


def test_who_ends_a_comparison_ends_its_runs(compare, monkeypatch):
    started = []

    def end(self, process, starting=Comparison._started):
        starting(self, process)
        started.append(process)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Comparison, "_started", end)
    assert compare("grpo,rloo", *SMALL, "--jobs", "1") == 130
    for process in started:
        process.join(20)
    assert {process.exitcode for process in started} <= {-signal.SIGTERM, 130} and started


def test_an_interrupt_while_runs_begin_is_one_sentence(tiny_policy, tmp_path):
    # who starts tests in the background may have interrupts ignored on arrival
    program = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)"
    program += "; from firstfault.cli import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "compare", "--methods", "grpo,rloo", "--tasks", "arithmetic", "--model",
         str(tiny_policy), *SMALL, "--out", str(tmp_path / "out")],
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    while not any(tmp_path.glob("out/cells/**/log.txt")):  # the server of processes is imported next
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130 and "Traceback" not in errors
    assert errors.splitlines()[-1].startswith("firstfault: interrupted")
    assert not any(tmp_path.glob("out/cells/**/failed.txt"))


def test_a_killed_run_goes_on_to_the_same_end(compare, results, tmp_path, monkeypatch):
    """A run whose process is killed on the way is reported, and the next command brings it to the same end, be the
    folder elsewhere by then."""
    small = [*SMALL, "--seeds", "1", "--steps", "6", "--checkpoint-every", "1", "--model", "tiny",
             "--cold-start.steps", "2"]  # fmt: skip
    assert compare("grpo,rloo", *small) == 0
    whole = {run["method"]: (run["after"], run["spend"]["generated_tokens"]) for run in results()["runs"]}
    cell = tmp_path / "out" / "cells" / "parity" / "rloo" / "lr-1" / "seed-0"
    shutil.rmtree(cell)

    def kill(self, process):
        while not (cell / "checkpoints" / "step-0002").exists():
            time.sleep(0.001)
        process.kill()

    monkeypatch.setattr(Comparison, "_started", kill)
    assert compare("grpo,rloo", *small) == 2
    assert results()["failures"].keys() == {"rloo on parity, seed 0"} and len(results()["runs"]) == 1
    assert results()["failures"]["rloo on parity, seed 0"].startswith("signal 9")
    monkeypatch.undo()
    (tmp_path / "out").rename(tmp_path / "moved")
    assert compare("grpo,rloo", *small, "--out", str(tmp_path / "moved")) == 0
    (tmp_path / "moved").rename(tmp_path / "out")
    assert {run["method"]: (run["after"], run["spend"]["generated_tokens"]) for run in results()["runs"]} == whole


def test_other_settings_are_refused(compare, own, tmp_path, capsys):
    small = [*SMALL, "--seeds", "1"]
    mine = f"grpo,mine={own}:Idle"
    assert compare(f"{mine},dapo", *small) == 0
    assert compare(f"{mine},dapo=dapo:group=2", *small) == 2  # what was not set is as good as anything else
    assert "methods.dapo.group = None, not 2" in capsys.readouterr().err
    assert compare(f"{mine},rloo", *small, "--seeds", "2") == 0  # more of it is welcome
    for more, said in [
        (["--batch", "2"], "families.parity.batch = 4, not 2"),
        (["--budget", "rollouts=8"], "budget = rollouts=4, not rollouts=8"),
        (["--lr-grid", "1,2"], "lr_grid = [1.0], not [1.0, 2.0]"),
    ]:
        assert compare(mine, *small, *more) == 2
        assert said in capsys.readouterr().err
    own.write_text(METHODS + "\n# changed\n")
    assert compare(mine, *small) == 2
    assert f"another {own}" in capsys.readouterr().err
    settings = tmp_path / "out" / "settings.json"
    for text, why in [("{", "invalid JSON"), ("[1]", "input should be an object")]:
        settings.write_text(text)
        assert compare(mine, *small) == 2
        assert f"settings.json can't be read ({why}" in capsys.readouterr().err
    settings.unlink()  # every run has its own, too
    assert compare(f"{mine}", *small, "--optimizer.lr", "5e-3") == 2
    assert "holds a comparison with optimizer.lr = " in capsys.readouterr().err


def test_what_a_method_leaves_open_is_told_from_what_it_sets(compare, tmp_path, capsys):
    small = [*SMALL, "--seeds", "1"]
    assert compare("grpo,dapo", *small) == 0
    (tmp_path / "out" / "settings.json").unlink()  # only the runs can tell
    assert compare("grpo,dapo=dapo:group=2", *small) == 2
    assert "holds a comparison with method.group = None, not 2" in capsys.readouterr().err


def test_what_other_settings_have_begun_is_dropped(compare, results, tmp_path):
    """Also of a method that is not asked for just now."""
    begun = tmp_path / "out" / "cells" / "parity"
    small = [*SMALL, "--seeds", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Comparison, "_cells", interrupt)
        assert compare("grpo,elpo", *small) == 130
    for method in ("grpo", "elpo"):
        (begun / method / "lr-1" / "seed-0").mkdir(parents=True)
    assert compare("grpo,rloo", *small, "--optimizer.lr", "5e-3") == 0
    assert not (begun / "elpo").exists() and {run["method"] for run in results()["runs"]} == {"grpo", "rloo"}


def interrupt(*arguments) -> None:
    raise KeyboardInterrupt


def test_runs_of_other_code_are_not_compared(compare, own, capsys):
    small, mine = [*SMALL, "--seeds", "1"], f"grpo,mine={own}:Idle"
    assert compare(mine, *small, families="parity") == 0
    own.write_text(METHODS + "\n# changed\n")
    for families in ("parity,again", "again"):  # one label is one method, on whatever family
        assert compare(mine, *small, families=families) == 2
        assert f"another {own}" in capsys.readouterr().err
    assert compare(f"grpo,other={own}:Idle", *small, families="again") == 0


def test_a_file_that_changes_while_a_comparison_runs_makes_no_result(compare, results, own, monkeypatch):
    started = Comparison._started

    def edit(self, process) -> None:
        started(self, process)
        write_whole(own, METHODS + "\n# changed\n")  # a run may be reading it

    monkeypatch.setattr(Comparison, "_started", edit)
    assert compare(f"grpo,mine={own}:Idle", *SMALL, "--seeds", "1") == 2
    assert results()["failures"] == {"mine on parity, seed 0": f"{own} was changed since the comparison began"}


def test_a_method_that_failed_can_be_mended(compare, results, own, tmp_path, capsys):
    small, both = [*SMALL, "--seeds", "1"], f"grpo,grpo.mine={own}:Idle"
    own.write_text(METHODS.replace("[0.0 for _ in tree.leaves]", "tree.nothing"))
    assert compare(both, *small) == 2
    assert "1 runs failed" in capsys.readouterr().err and len(results()["runs"]) == 1
    [why] = results()["failures"].values()
    assert "no attribute 'nothing'" in why and why.endswith("log.txt)")
    [left] = (tmp_path / "out").glob("cells/parity/grpo.mine/*/*/failed.txt")  # for commands that come later
    assert left.read_text() == why
    own.write_text(METHODS)
    assert compare(both, *small) == 0 and len(results()["runs"]) == 2
    assert not left.exists() and results()["failures"] == {}


def test_kept_trees_are_kept(compare, tmp_path):
    small = [*SMALL, "--seeds", "1"]
    assert compare("grpo,rloo", *small, "--keep-trees") == 0 and compare("grpo,dapo", *small) == 0
    kept = {path.parts[-5] for path in (tmp_path / "out").glob("cells/**/trees/*.gz")}
    assert kept == {"grpo", "rloo"}


@pytest.mark.parametrize(("methods", "more", "said"), [
    ("grpo", [], "needs two methods"),
    ("grpo,grpo", [], "named twice"),
    ("grpo,elpo:serch=bisect", [], "did you mean 'search'?"),
    ("grpo,elpo:rollouts=8", [], "rollouts are what the budget says"),
    ("grpo,eplo", [], "did you mean 'elpo'?"),
    ("grpo,elpo::", [], "give NAME, NAME:OPTION=VALUE"),
    ("grpo,elpo", ["--budget", "time=5"], "give rollouts=N, tokens=N or calls=N"),
    ("grpo,elpo", ["--lr-grid", "0,1"], "multiples above 0"),
    ("grpo,elpo", ["--against", "rloo"], "against = 'rloo' is not compared; choose of grpo, elpo"),
    ("grpo,elpo", ["--tasks", "lroe"], "did you mean 'lore'?"),
    ("grpo,elpo", ["--seed", "1"], "unrecognized"),
    ("a b=grpo,a_b=grpo", [], "would share the folder"),
])  # fmt: skip
def test_what_can_not_be_is_refused_before_anything_runs(compare, methods, more, said, capsys, tmp_path):
    assert compare(methods, *more) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
