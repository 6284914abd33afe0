"""The page: one HTML file with its style, its script and, where nobody serves them, its trees."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterable, Iterator
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from firstfault.errors import UserError
from firstfault.files import write_whole
from firstfault.view.recording import Recording

SCRIPTS = ("store", "model", "marks", "ink", "panel", "curves", "detail", "sidebar", "player", "app")


def csp(*sources: str, connect: str) -> str:
    """The content security policy: this style and this script, whatever the texts of a tree hold; nothing else."""
    style, script = (f"'sha256-{base64.b64encode(sha256(s.encode()).digest()).decode()}'" for s in sources)
    return (
        f"default-src 'none'; style-src {style}; script-src {script}; connect-src {connect};"
        " base-uri 'none'; form-action 'none'"
    )


def page(data: Iterable[str] = (), connect: str = "'none'") -> tuple[str, str]:
    """The page and its content security policy. `data` are blocks for it; without any it asks its server."""
    static = files("firstfault.view") / "static"
    style = (static / "viewer.css").read_text(encoding="utf-8")
    parts = [(static / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS]
    script = '"use strict";\n' + "\n".join(parts)
    rules = csp(style, script, connect=connect)
    template = Template((static / "viewer.html").read_text(encoding="utf-8"))
    return template.substitute(csp=rules, style=style, script=script, data="\n".join(data)), rules


def write_page(recording: Recording, path: Path) -> None:
    """Write a page that holds all it shows. The file appears whole or not at all."""
    text, _ = page(_blocks(recording))
    try:
        write_whole(path, text)
    except OSError as error:
        raise UserError(f"{path} can't be written ({error}); give a file in a folder that can be.") from error


def _blocks(recording: Recording) -> Iterator[str]:
    yield _block("index", recording.index())
    for iteration in recording.files:
        yield _block(f"iteration-{iteration}", recording.summaries(iteration, recording.credits))
        for number in range(len(recording.trees(iteration))):
            yield _block(f"tree-{iteration}-{number}", recording.tree(iteration, number, recording.credits))


def _block(name: str, value: Any) -> str:
    """Data that no parser of HTML can mistake for anything else: compressed, in letters, digits, +, / and =."""
    packed = gzip.compress(json.dumps(value, separators=(",", ":")).encode(), mtime=0)
    return f'<script type="application/gzip" id="data-{name}">{base64.b64encode(packed).decode()}</script>'
