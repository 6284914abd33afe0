"""What the viewer makes of trees, the page it writes and the server it starts; all that needs no browser."""

import base64
import gzip
import http.client
import json
import re
import shutil
import socket
import threading
from hashlib import sha256

import pytest
from hostile import grow, hostile_run

from firstfault.cli import main
from firstfault.errors import UserError
from firstfault.intervals import wilson
from firstfault.methods import ELPO
from firstfault.report.metrics import METRICS
from firstfault.tree import Task, Term, Tree, independent_runs, save_trees
from firstfault.view import Recording, write_page
from firstfault.view.credit import as_written, credit_by, summed
from firstfault.view.data import Words, decoder, events, payload, pieces, plain, summary
from firstfault.view.server import Server


def blocks(html: str) -> dict[str, object]:
    """The data in a page, by name."""
    found = re.findall(r'<script type="application/gzip" id="data-([a-z0-9-]+)">([A-Za-z0-9+/=]+)</script>', html)
    return {name: json.loads(gzip.decompress(base64.b64decode(packed))) for name, packed in found}


@pytest.fixture
def run(tmp_path):
    return hostile_run(tmp_path / "run", words="")


# trees as data


def test_a_tree_says_what_happened_in_order():
    tree = grow()
    assert events(tree) == [
        {"rollout": 0, "leaf": 3},
        {"rollout": 1, "leaf": 5, "search": 0, "after": 1},
        {"rollout": 2, "leaf": 6, "search": 0, "after": 2},
        {"rollout": 3, "leaf": 7, "search": 0, "after": 2},
        {"verdict": 0},
        {"rollout": 4, "leaf": 9},
    ]


def test_a_summary_answers_the_filters():
    found = summary(grow())
    assert (found["runs"], found["won"], found["lost"], found["critical"], found["gradient"]) == (5, 2, 3, 1, True)
    assert not summary(independent_runs(1, 1))["gradient"]


def test_a_payload_is_json_without_what_json_lacks():
    tree = grow()
    tree.nodes[1].entropies = [float("nan"), 1.23456789]
    tree.nodes[2].reference_logprobs = [-0.25]
    found = payload(tree, [], None)
    json.dumps(found, allow_nan=False)
    first = found["nodes"][1]
    assert first["entropies"] == [None, 1.2346]
    assert found["nodes"][2]["reference"] == [-0.25]
    assert found["nodes"][3]["success"] is False  # false is not nothing
    assert "words" not in first and first["calls"][0]["arguments"] == {"expression": "6*7"}
    assert plain((1.0, float("inf"))) == [1.0, None]


def test_only_a_share_of_completions_has_an_interval():
    tree = grow()
    tree.nodes[3].value = 0.0  # after the end, by VinePPO
    root, first, *others = payload(tree, [], None)["nodes"]
    assert root["value"] == "0.294" and "interval" not in root
    assert first["value"] == "0.5 of 4 completions" and first["interval"] == [0.15004, 0.84996]
    assert not any("value" in node or "interval" in node for node in others)
    tree.nodes[3].reward = -1.0  # of a run through the first step: its value is no share
    assert "interval" not in payload(tree, [], None)["nodes"][1]


@pytest.mark.parametrize(
    ("share", "n", "low", "high"), [(0.0, 2, 0, 0.658), (1.0, 1, 0.207, 1), (0.5, 100, 0.404, 0.596)]
)
def test_wilson_intervals(share, n, low, high):
    assert wilson(share, n) == pytest.approx((low, high), abs=1e-3)


def test_tokens_get_the_text_that_they_add():
    def decode(tokens):  # a token is a byte; the end of a character that misses bytes is the replacement character
        return bytes(tokens).decode(errors="replace")

    assert pieces(list("né!".encode()), decode) == ["n", "", "é", "!"]
    assert pieces([0xC3], decode) == ["\ufffd"]
    assert "".join(pieces(list("日本語 x".encode()), decode)) == "日本語 x"
    words = Words(decode)
    assert words.of(list(b"aba")) == [0, 1, 0] and list(words.table) == ["a", "b"]


@pytest.mark.parametrize("family", ["qwen", "llama3"])
def test_texts_of_tokens_join_to_the_text(make_tokenizer, family):
    tokenizer = make_tokenizer(family, None)
    text = "naïve café 😀 the answer is 42,\n\n  日本語 indented 👩‍🚀"
    tokens = tokenizer.encode(text, add_special_tokens=False)
    found = pieces(tokens, decoder(tokenizer))
    assert len(found) == len(tokens) and "".join(found) == text


# credit


def test_terms_are_summed_up():
    tree = Tree(Task("q", "a"), prompt=[1])
    node = tree.add(tree.root, rollout=0, terms=[Term(1.0, 1.0, 0.2, 0.3), Term(-0.5, 1.0, 0.3, 0.3)])
    assert summed(node) == {
        "advantage": 0.25, "terms": 2, "least": -0.5, "most": 1.0, "weight": 2.0, "clip": [0.7, 1.3], "gradient": True,
    }  # fmt: skip
    node.terms = [Term([0.5, -0.5], 1.0, 1.0, 1e9)]
    assert summed(node)["clip"] is None and summed(node)["tokens"] == [0.5, -0.5]
    node.terms = [Term(0.5, 1.0, 0.0, 0.0)]  # of a loss that has no clip
    assert summed(node)["clip"] is None
    assert summed(tree.root) is None


def test_elpo_shows_both_advantages_and_their_sum():
    written = {"name": "elpo", "lambda_tree": 0.3}
    tree = grow()
    for credit in (credit_by("elpo", [tree], written), as_written([tree], written)):
        assert credit.method == ELPO(lambda_tree=0.3)
    found = credit_by("elpo", [tree], written).payload(0)
    assert found["critical"] == [2] and found["lambda"] == 0.3
    for node, (branch, trajectory) in list(zip(found["nodes"], found["parts"], strict=True))[1:]:
        assert node["advantage"] == pytest.approx(0.3 * branch + 0.7 * trajectory, abs=1e-4)


def test_another_methods_credit_leaves_the_tree_alone():
    tree = grow()
    before = tree.to_json()
    found = credit_by("grpo", [tree], {"name": "elpo"}).payload(0)
    assert tree.to_json() == before
    assert "parts" not in found and found["critical"] == []
    assert found["nodes"][1]["terms"] == 4  # one for each run through the step


@pytest.mark.parametrize(("name", "words"), [
    ("ppo", "needs a critic's values"), ("vineppo", "only trees that it grew itself"), ("epo", "there is no method"),
])  # fmt: skip
def test_a_method_that_cannot_credit_a_tree_is_refused(name, words):
    with pytest.raises(UserError, match=words):
        credit_by(name, [grow()], {})


def test_a_trees_own_credit_is_shown_whatever_its_settings_are():
    credit = as_written([grow()], {"name": "elpo", "gone": 1})
    assert credit.method is None and credit.payload(0)["nodes"][1]["advantage"] == 0.5


# the page


def test_a_page_holds_a_run_and_nothing_that_could_run(tmp_path):
    path = tmp_path / "page.html"
    write_page(Recording(hostile_run(tmp_path / "run")), path)
    html = path.read_text(encoding="utf-8")
    assert "alert(" not in html and "onerror" not in html
    found = blocks(html)
    assert found["index"]["iterations"] == [1, 3]
    assert {"iteration-1", "iteration-3", "tree-1-0", "tree-3-1"} <= set(found)
    assert "alert(1)" in found["tree-1-0"]["task"]["question"]
    text = repr(found)
    assert "\\x1b" not in text and "\\u202e" not in text and "\\x00" not in text
    assert len(re.findall(r"<script", html)) == len(found) + 1
    assert not re.findall(r"(?:src|href)=|https?://(?!www\.w3\.org/2000/svg)", html)


def test_the_policy_allows_this_script_and_this_style_only(run, tmp_path):
    write_page(Recording(run), tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    rules = re.search(r'Content-Security-Policy" content="([^"]+)"', html)[1]
    for tag in ("script", "style"):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", html, flags=re.DOTALL)
        assert f"{tag}-src 'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'" in rules
    assert "default-src 'none'" in rules and "connect-src 'none'" in rules and "unsafe" not in rules


def test_a_page_of_one_tree(run, tmp_path):
    write_page(Recording(run / "trees" / "step-0003.jsonl.gz", tree=2), tmp_path / "page.html")
    found = blocks((tmp_path / "page.html").read_text())
    assert list(found) == ["index", "iteration-3", "tree-3-0"]
    (success, entropy, _) = found["index"]["curves"]  # of the file's own run
    assert success == {
        "name": "success",
        "help": METRICS["success"],
        "iterations": [1, 2, 3],
        "values": [0.2, 0.4, 0.6],
    }
    assert entropy["values"] == [0.3, None, 0.3]


def test_evaluations_are_curves_with_intervals(run):
    records = [
        {"iteration": i, "greedy": g, "greedy_low": g - 0.1, "greedy_high": g + 0.1} for i, g in ((0, 0.2), (3, 0.5))
    ]
    (run / "evaluation.json").write_text(json.dumps(records))
    first = Recording(run).index()["curves"][0]
    assert (first["name"], first["iterations"], first["values"]) == ("greedy, evaluated", [0, 3], [0.2, 0.5])
    assert (first["low"], first["high"]) == ([0.1, 0.4], [0.3, 0.6])


def test_a_plain_file_of_trees(tmp_path):
    (tmp_path / "mine.jsonl").write_text(grow().to_json() + "\n")
    recording = Recording(tmp_path / "mine.jsonl")
    assert recording.summaries(1, ())[0]["runs"] == 5
    assert recording.tree(1, 0, ())["credits"][0]["name"] == "method, as written"


def test_a_file_outside_of_a_runs_trees_is_viewed_alone(run):
    (run / "config.toml").write_text("not = = TOML")
    (run / "metrics.jsonl").write_text("[]\n")
    (run / "mine").mkdir()
    (run / "mine" / "trees.jsonl").write_text(grow().to_json() + "\n")
    recording = Recording(run / "mine" / "trees.jsonl")
    assert recording.index()["title"] == "Rollout trees" and recording.index()["curves"] == []
    assert recording.tree(1, 0, ())["credits"][0]["name"] == "method, as written"


def test_trees_are_shown_without_a_tokenizer_that_can_t_be_read(run, tiny_policy):
    shutil.copytree(tiny_policy, run / "checkpoints" / "step-0000")
    odd = {"version": "1.0", "added_tokens": [], "model": {"type": "odd"}}
    (run / "checkpoints" / "step-0000" / "tokenizer.json").write_text(json.dumps(odd))
    assert "words" not in Recording(run).tree(1, 0, ())["nodes"][1]


def test_tokens_are_shown_by_the_tokenizer_of_a_checkpoint(run, tiny_policy):
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "step-0000").symlink_to(tiny_policy)
    tree = Tree(Task("q", "a"), prompt=[5, 6])
    tree.add(tree.root, rollout=0, action_tokens=[7, 8], end="answer", success=True, reward=1.0)
    save_trees([tree], run / "trees" / "step-0001.jsonl.gz")
    found = Recording(run).tree(1, 0, ())
    assert len(found["nodes"][0]["prompt"]) == 2 and len(found["nodes"][1]["words"]) == 2
    assert all(isinstance(word, str) for word in found["words"])


# the command


@pytest.mark.parametrize(("arguments", "words"), [
    ("{run} --tree 1", "needs a file of trees"),
    ("{run}/trees/step-0001.jsonl.gz --tree 0", "holds no tree 0"),
    ("{run}/trees/step-0001.jsonl.gz --tree 9", "holds no tree 9"),
    ("{run}/none", "holds no trees"),
    ("{run}/empty.jsonl", "holds no trees"),
    ("{run}/odd.jsonl --html {run}/x.html", "(line 1: task.question = 5: input should be"),
    ("{run}/lost.jsonl --html {run}/x.html", "(line 1: a search asked after a step that node 3"),
    ("{run}/config.toml", "holds no trees"),
    ("{run} --credit elpo epo", "there is no method 'epo'"),
    ("{run} --credit elpo elpo", "one method twice"),
    ("{run} --credit elpo ppo --html {run}/x.html", "needs a critic's values"),
    ("{run} --credit elpo", "expected 2 arguments"),
    ("{run} --html {run}/config.toml/x.html", "can't be written"),
    ("{run} --port 99999 --no-browser", "can't be had"),
    ("{run} --port many", "invalid int value"),
])  # fmt: skip
def test_bad_input_is_one_sentence(run, capsys, arguments, words):
    (run / "empty.jsonl").touch()
    odd = Tree(Task("q", "a"), prompt=[1])
    odd.task.question = 5
    (run / "odd.jsonl").write_text(odd.to_json())
    lost = grow()
    lost.verdicts[0].probes[0].step = 99
    (run / "lost.jsonl").write_text(lost.to_json())
    assert main(["view", *arguments.format(run=run).split()]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("firstfault: ") and words in lines[0]


def test_a_page_is_written_by_the_command(run, capsys):
    assert main(["view", str(run), "--credit", "elpo", "grpo", "--html", str(run / "x.html")]) == 0
    tree = blocks((run / "x.html").read_text())["tree-1-0"]
    assert [credit["name"] for credit in tree["credits"]] == ["elpo", "grpo"]
    assert not list(run.glob("*.part"))


@pytest.mark.parametrize(("credits", "critical"), [("elpo grpo", 1), ("grpo elpo", 0)])
def test_trees_are_listed_by_the_first_credit(run, credits, critical):
    assert main(["view", str(run), "--credit", *credits.split(), "--html", str(run / "x.html")]) == 0
    found = blocks((run / "x.html").read_text())
    assert [tree["critical"] for tree in found["iteration-1"]] == [critical, critical, 0]
    assert len(found["tree-1-0"]["credits"][0]["critical"]) == critical


# the server


@pytest.fixture
def ask(run):
    """`ask(path, method, host)`: the status, headers and body of an answer of the server."""
    server = Server(Recording(run), port=0)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def request(path: str, method: str = "GET", host: str | None = None):
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
        connection.request(method, path, headers={"Host": host or f"127.0.0.1:{server.server_port}"})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode()

    request.port = server.server_port
    yield request
    server.shutdown()
    server.server_close()


def test_the_server_sends_the_page_and_its_data(ask):
    status, headers, html = ask("/")
    assert status == 200 and blocks(html) == {}
    assert "connect-src 'self'" in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert json.loads(ask("/data/index")[2])["iterations"] == [1, 3]
    trees = [json.loads(ask(f"/data/iteration-3{credit}")[2]) for credit in ("", "?credit=grpo&credit=elpo")]
    assert [[tree["critical"] for tree in of] for of in trees] == [[1, 1, 0], [0, 0, 0]]
    tree = json.loads(ask("/data/tree-3-0?credit=&credit=grpo")[2])
    assert [credit["name"] for credit in tree["credits"]] == ["elpo, as written", "grpo"]


@pytest.mark.parametrize("path", [
    "/data/iteration-7", "/data/tree-1-9", "/data/tree-1--1", "/data/iteration-%D9%A1", "/data/", "/config.toml",
    "/../config.toml", "/%2e%2e/config.toml", "http://[/",
])  # fmt: skip
def test_the_server_has_nothing_else(ask, path):
    status, _, body = ask(path)
    assert status == 404 and "seed" not in body


@pytest.mark.parametrize(("path", "words"), [
    ("/data/tree-1-0?credit=ppo", "needs a critic"), ("/data/tree-1-0?credit=os:system", "there is no method"),
    ("/data/tree-1-0?credit=grpo&credit=rloo&credit=elpo", "choose two"),
])  # fmt: skip
def test_the_server_refuses_in_a_sentence(ask, path, words):
    status, _, body = ask(path)
    assert status == 422 and words in json.loads(body)["error"]


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "127.0.0.1:{port}.evil"]
)
def test_the_server_answers_to_its_own_name_only(ask, host):
    status, _, body = ask("/data/index", host=host.format(port=ask.port))
    assert status == 403 and "iterations" not in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "HEAD"])
def test_the_server_only_gives(ask, method):
    assert ask("/data/index", method=method)[0] == 501


def test_the_server_listens_on_the_loopback_interface_only(run):
    server = Server(Recording(run), port=0)
    assert server.server_address[0] == "127.0.0.1"
    server.server_close()


def test_a_port_in_use_is_refused(run, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["view", str(run), "--no-browser", "--port", str(taken.getsockname()[1])]) == 2
    assert "can't be had" in capsys.readouterr().err
