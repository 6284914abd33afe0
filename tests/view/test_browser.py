"""The page in a real browser: opened, clicked, replayed, filtered; and hostile trees that execute nothing."""

import json
import random
import re
import threading

import pytest
from browser import CHROMIUM, Browser
from hostile import hostile_run

from firstfault.tree import Task, Term, Tree, load_trees, save_trees
from firstfault.view import Recording, write_page
from firstfault.view.server import Server

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium or Chrome is installed to open pages with")

RING = "[...document.querySelectorAll('.tree .ring')].length"
STATE = "JSON.stringify(app.state)"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Addresses of pages: a plain run, a hostile one, and one with the credit of two methods."""
    folder = tmp_path_factory.mktemp("pages")
    for name, words, credits in (("plain", "", ()), ("hostile", None, ()), ("two", "", ("elpo", "grpo"))):
        run = hostile_run(folder / name, **({} if words is None else {"words": words}))
        write_page(Recording(run, credits=credits), folder / f"{name}.html")
    return {path.stem: path.as_uri() for path in folder.glob("*.html")}


@pytest.fixture
def state(browser):
    return lambda: json.loads(browser.run(STATE))


def click_step(browser: Browser, index: int, panel: int = 0) -> None:
    """A click on the mark of a step."""
    place = (
        "(p => [p.svg.getBoundingClientRect(), p.x(app.model.nodes[{0}]), p.y(app.model.nodes[{0}])])(app.panels[{1}])"
    )
    browser.click_at(*browser.run(f"(([box, x, y]) => [box.x + x, box.y + y])({place.format(index, panel)})"))
    browser.wait(f"app.state.node === {index}")


def steps(kind: str) -> str:
    """The numbers of the steps that are drawn so: dim or later."""
    return f"app.model.nodes.filter(n => app.panels[0].faint(n) === ' {kind}').map(n => n.index)"


def test_a_page_opens_and_asks_for_nothing_else(browser, pages):
    browser.open(pages["plain"])
    assert browser.console == [f"request: {pages['plain']}"]
    assert browser.text("#title").startswith("elpo on t")
    assert browser.text("#facts") == "expected 40 · t1 · 2 of 5 runs succeed"
    assert browser.run("document.querySelectorAll('#trees button').length") == 3
    assert browser.run("document.querySelectorAll('.tree .end.won, .tree .end.lost').length") == 2  # one path each
    words = browser.run("[...document.querySelectorAll('.tree text')].map(t => t.textContent)")
    assert {"6*7", "42+2", "= 44", "2/5", "1/4"} <= set(words)
    assert browser.run("document.querySelectorAll('.curve polyline').length") >= 2
    assert browser.run(RING) == 1


def test_a_click_on_a_step_shows_it(browser, pages, state):
    browser.open(pages["plain"])
    click_step(browser, 2)
    detail = browser.text("#detail")
    for words in ("Step 2 of run 0", "first fault", "0 of 3 runs through it succeeded", "I compute 42+2", "calc(42+2)",
                  "branch advantage", "trajectory advantage", "λ = 0.5", "0.8 to 1.3", "0.55 nats",
                  "log-probability ratio", "0 (0 to 0.562)", "1 of 1 succeed"):  # fmt: skip
        assert words in detail, words
    assert not browser.run("document.querySelector('#detail details.call').open")
    browser.click("#detail details.call summary")
    assert browser.run("document.querySelector('#detail details.call').open")
    assert browser.run("document.querySelector('#detail details.call pre').textContent") == "42+2"
    click_step(browser, 1)
    assert "value0.5 of 4 completions95 % interval: 0.15 to 0.85" in browser.text("#detail")
    click_step(browser, 0)
    assert "value0.294as the method wrote it" in browser.text("#detail")


def test_the_address_leads_back(browser, pages, state):
    browser.open(f"{pages['plain']}#iteration=3&tree=2&node=5&at=3&filter=critical&colour=credit")
    here = state()
    assert (here["iteration"], here["tree"], here["node"], here["at"]) == (3, 1, 5, 3)
    assert (here["filter"], here["colour"]) == ("critical", "credit")
    assert "Step 3 of probe 1" in browser.text("#detail")
    browser.run("location.hash = '#iteration=1&tree=1&node=9'")
    browser.wait("app.state.node === 9 && app.state.iteration === 1")
    browser.wait("document.querySelector('#detail').textContent.includes('Step 2 of run 4')")
    browser.press("ArrowLeft")
    browser.wait("location.hash.includes('node=8')")


@pytest.mark.parametrize(
    "address", ["#iteration=99&tree=77&node=9999", "#node=-1&at=x&filter=__proto__&colour=constructor", "#%%%"]
)
def test_an_address_that_leads_nowhere_shows_a_tree(browser, pages, state, address):
    browser.open(pages["plain"] + address)
    assert state()["iteration"] == 1 and browser.console[1:] == []


def test_it_opens_on_a_tree_that_tells_something(browser, pages, state, tmp_path):
    searched, _, plain = load_trees(hostile_run(tmp_path / "run", "") / "trees/step-0001.jsonl.gz")
    taught = Tree(Task("taught", "1"), prompt=[1])
    taught.add(taught.root, rollout=0, text="one", end="answer", reward=1.0, terms=[Term(1.0, 1.0, 0.2, 0.2)])
    for trees, opened in (([plain, taught, searched], 2), ([plain, taught], 1), ([plain], 0)):
        save_trees(trees, tmp_path / "trees.jsonl.gz")
        write_page(Recording(tmp_path / "trees.jsonl.gz"), tmp_path / "trees.html")
        browser.open((tmp_path / "trees.html").as_uri())
        assert state()["tree"] == opened
        browser.open((tmp_path / "trees.html").as_uri() + "#tree=1")
        assert state()["tree"] == 0


def test_the_search_is_replayed_in_its_order(browser, pages):
    browser.open(f"{pages['plain']}#at=1")
    later = steps("later")
    assert browser.run(later) == [4, 5, 6, 7, 8, 9]
    assert "run 0 failed" in browser.text("#event") and browser.run(RING) == 0
    seen = [browser.text("#event")]
    for _ in range(5):
        browser.press(".")
        browser.wait(f"document.getElementById('event').textContent.replace(/\\s+/g, ' ') !== {json.dumps(seen[-1])}")
        seen.append(browser.text("#event"))
    assert "search 1, after step 1: probe 1 succeeded" in seen[1] and "after step 2: probe 2 failed" in seen[2]
    assert "search 1 ends: the first fault is step 2" in seen[4] and browser.run(later) == []
    browser.press(",")
    browser.press(",")
    browser.wait("app.state.at === 4")
    assert browser.run(RING) == 0  # not known before the verdict
    browser.press(" ")
    browser.wait("app.state.at === null && !app.player.timer")
    assert browser.run(RING) == 1
    browser.choose("#time", 2)
    browser.wait("app.state.at === 2")


def test_filters_list_trees_and_dim_steps(browser, pages):
    browser.open(pages["plain"])
    listed = "[...document.querySelectorAll('#trees button')].map(b => Number(b.dataset.tree))"
    dim = steps("dim")
    browser.press("f")
    browser.wait("app.state.filter === 'failed' && document.querySelector('.dim')")
    assert browser.run(listed) == [0, 1] and browser.run(dim) == [4, 5, 8, 9]
    browser.press("f")
    browser.wait("app.state.filter === 'critical'")
    assert browser.run(dim) == [0, 1, 4, 5, 8, 9]
    browser.click("#filters button:nth-child(4)")
    browser.wait("app.state.filter === 'nothing'")
    assert browser.run(listed) == [2]
    browser.click("#trees button")
    browser.wait("document.getElementById('question').textContent === 'no gradient 1'")


def test_texts_are_searched(browser, pages):
    browser.open(pages["plain"])
    browser.press("/")
    browser.type("42+2")
    browser.wait("app.state.q === '42+2' && document.querySelector('.dim')")
    assert browser.text("#found") == "1 step matches"
    browser.press("Enter")
    browser.wait("app.state.node === 2")
    browser.click("#search-all")
    browser.wait("document.getElementById('found').textContent.includes('in 2 trees')")
    assert browser.run("document.querySelectorAll('#trees button').length") == 2


def test_keys_walk_the_tree(browser, pages, state):
    browser.open(pages["plain"])
    for key, expected in (
        ("ArrowRight", 8),
        ("ArrowRight", 9),
        ("ArrowLeft", 8),
        ("ArrowDown", 1),
        ("c", 2),
        ("Home", 0),
    ):
        browser.press(key)
        browser.wait(f"app.state.node === {expected}")
    assert browser.run("document.querySelector('.scroll').getAttribute('aria-activedescendant')") == "a-0"
    browser.press("]")
    browser.wait("app.state.tree === 1")
    browser.press("}")
    browser.wait("app.state.iteration === 3")
    browser.press("?")
    browser.wait("document.getElementById('help').open")
    browser.press("Escape")
    browser.wait("!document.getElementById('help').open")


def test_the_credit_of_two_methods_stands_side_by_side(browser, pages):
    browser.open(f"{pages['two']}#node=2")
    assert browser.run("[...document.querySelectorAll('.panel:not([hidden]) h2')].map(h => h.textContent)") == [
        "elpo",
        "grpo",
    ]
    head = "[...document.querySelectorAll('#detail .credit thead th')].map(h => h.textContent)"
    assert browser.run(head) == ["", "elpo", "grpo"]
    row = browser.run("[...document.querySelectorAll('#detail .credit .sum td')].map(td => td.textContent)")
    assert len(row) == 2 and row[0] != row[1]
    click_step(browser, 8, panel=1)
    assert browser.run("document.querySelectorAll('.chosen').length") == 2


def test_entropies_shade_the_tokens(browser, pages, tmp_path, tiny_policy):
    run = hostile_run(tmp_path / "run", words="")
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "step-0000").symlink_to(tiny_policy)
    write_page(Recording(run), tmp_path / "page.html")
    browser.open(f"{(tmp_path / 'page.html').as_uri()}#node=1")
    shades = "[...document.querySelectorAll('#detail .token')].map(t => Number(t.style.getPropertyValue('--strength')))"
    assert browser.run(shades) == pytest.approx([0.2**0.5, 0.9**0.5], abs=1e-3)
    browser.choose(".shade", "ratio")
    assert browser.run(shades) == pytest.approx([0.2**0.5, 0.1**0.5], abs=1e-3)
    assert browser.run("[...document.querySelectorAll('#detail .token')].map(t => t.className)") == [
        "token up",
        "token down",
    ]


def test_a_hostile_tree_executes_nothing(browser, pages):
    for address in ("", "#iteration=3&node=2", "#node=3&q=<script>alert(9)</script>", "#node=5&colour=credit&at=3"):
        browser.open(pages["hostile"] + address)
        browser.run("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        browser.press("f")
        browser.wait("app.state.filter === 'failed'")
        browser.run("new Promise(done => setTimeout(done, 150))")
        assert browser.console == [f"request: {pages['hostile']}"]  # no alert, no request, no violation of the policy
        assert browser.run("document.querySelectorAll('img, iframe, script[src], [onload], [onerror]').length") == 0
        assert "<script>" in browser.run("document.getElementById('question').textContent")
    assert "alert(1)" in browser.text("#detail")


def test_the_policy_stops_what_would_run(browser, pages):
    """Were markup ever made of a text, it still could not run."""
    browser.open(pages["plain"])
    browser.run("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.ran = 1\">')")
    browser.run("var made = document.createElement('script')")
    browser.run("made.textContent = 'window.ran = 2'; document.body.append(made)")
    browser.run("new Promise(done => setTimeout(done, 150))")
    assert browser.run("window.ran === undefined")
    assert any("Content Security Policy" in line for line in browser.console)


def test_a_tree_of_512_leaves_opens_and_scrolls(browser, tmp_path):
    tree, draw = Tree(Task("wide", "a"), prompt=[1]), random.Random(0)
    for rollout in range(512):
        at = tree.root
        for depth in range(12):
            won = draw.random() < 0.5
            more = {"end": "answer", "success": won, "reward": float(won)} if depth == 11 else {}
            at = tree.add(at, rollout=rollout, text=f"step {depth}", terms=[Term(0.5, 1.0, 0.2, 0.2)], **more)
    save_trees([tree], tmp_path / "wide.jsonl.gz")
    write_page(Recording(tmp_path / "wide.jsonl.gz"), tmp_path / "wide.html")
    browser.open((tmp_path / "wide.html").as_uri())
    spot = "(p => [p.drawn.low, p.drawn.high, p.height, document.querySelectorAll('.tree path').length])(app.panels[0])"
    low, high, height, paths = browser.run(spot)
    assert high - low < height and paths < 200  # only what is in sight, and that in few elements
    last = browser.run("app.model.ends[511].index")
    browser.run("app.panels[0].scroll.scrollTop = 1e9")
    browser.wait("app.panels[0].drawn.high >= app.panels[0].height")
    click_step(browser, last)
    assert browser.run("document.querySelector('g[role=treeitem]').id") == f"a-{last}"
    browser.press("Home")
    browser.wait("app.state.node === 0")
    browser.wait(
        "(p => p.drawn.low < p.y(app.model.nodes[0]) && p.drawn.high > p.y(app.model.nodes[0]))(app.panels[0])"
    )


def test_a_printed_page_shows_the_whole_tree(browser, pages):
    browser.open(f"{pages['plain']}#node=2")
    assert browser.pdf().startswith(b"%PDF")
    assert not browser.run("document.querySelector('#detail details').open")
    browser.scheme(dark=True, media="print")
    assert browser.run("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert browser.run("getComputedStyle(document.documentElement).getPropertyValue('--paper').trim()") == "#fff"
    browser.scheme(dark=False)


@pytest.mark.parametrize("dark", [False, True])
def test_the_page_is_light_or_dark(browser, pages, dark):
    browser.scheme(dark)
    browser.open(pages["plain"])
    red, *_ = map(
        int, re.findall(r"\d+", browser.run("getComputedStyle(document.querySelector('nav')).backgroundColor"))
    )
    assert (red < 60) == dark
    browser.scheme(False)


def test_a_served_run_loads_what_is_asked_for(browser, tmp_path):
    server = Server(Recording(hostile_run(tmp_path / "run")), port=0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        browser.open(server.address)
        browser.choose("#credit-b", "grpo")
        browser.wait(
            "app.model.data.credits.length === 2 && document.querySelectorAll('.panel:not([hidden])').length === 2"
        )
        assert browser.text("#filters button:nth-child(3)") == "critical 2"
        browser.choose("#credit-b", "")
        browser.choose("#credit-a", "grpo")
        browser.wait("document.querySelector('#filters button:nth-child(3)').textContent === 'critical 0'")
        browser.choose("#credit-b", "elpo")
        browser.wait("app.model.data.credits.length === 2")
        assert browser.text("#filters button:nth-child(3)") == "critical 0"
        browser.choose("#credit-b", "ppo")
        browser.wait("!document.getElementById('message').hidden")
        assert "needs a critic's values" in browser.text("#message")
        assert browser.run("document.getElementById('credit-b').value") == "elpo"
        asked = [
            line.removeprefix(f"request: {server.address}") for line in browser.console if line.startswith("request")
        ]
        assert asked[:4] == ["", "data/index", "data/iteration-1", "data/tree-1-0"]
        assert all(not path.startswith("request") for path in asked)  # all of this server
        assert [line for line in browser.console if "request:" not in line and "422" not in line] == []
    finally:
        server.shutdown()
        server.server_close()
