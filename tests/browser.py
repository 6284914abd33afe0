"""A headless Chromium, driven through a pipe by its DevTools protocol; no package is needed for that."""

from __future__ import annotations

import base64
import fcntl
import itertools
import json
import os
import select
import shutil
import signal
import time
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
KEYS = {"ArrowRight": 39, "ArrowLeft": 37, "ArrowUp": 38, "ArrowDown": 40, "Enter": 13, "Escape": 27, "Home": 36}


def _moved(fd: int) -> int:
    """The same under a number of 10 or more."""
    high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(fd)
    return high


class Browser:
    """One page of one browser, which ends with the `with` block. `console` keeps what pages complain about."""

    def __init__(self, profile: Path, size: tuple[int, int] = (1600, 950), dark: bool = False):
        (self.reads, ours), (theirs, self.writes) = os.pipe(), os.pipe()
        # the browser reads descriptor 3 and writes descriptor 4; from high numbers neither overwrites the other
        theirs, ours = (_moved(fd) for fd in (theirs, ours))
        command = [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run",
            "--disable-dev-shm-usage", f"--user-data-dir={profile}", "--window-size={},{}".format(*size), "about:blank",
        ]  # fmt: skip
        silent = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_WRONLY, 0) for fd in (1, 2)]
        pipes = [(os.POSIX_SPAWN_DUP2, theirs, 3), (os.POSIX_SPAWN_DUP2, ours, 4)]
        self.process = os.posix_spawn(CHROMIUM, command, os.environ, file_actions=[*silent, *pipes])
        os.close(theirs)
        os.close(ours)
        self.numbers, self.buffer = itertools.count(1), b""
        self.session: str | None = None
        self.console: list[str] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.send(
            "Emulation.setDeviceMetricsOverride", width=size[0], height=size[1], deviceScaleFactor=1, mobile=False
        )
        self.scheme(dark)

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: Any) -> None:
        os.kill(self.process, signal.SIGTERM)
        os.waitpid(self.process, 0)
        os.close(self.reads)
        os.close(self.writes)

    def scheme(self, dark: bool, media: str = "") -> None:
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.send("Emulation.setEmulatedMedia", media=media, features=features)

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Ask, and wait for the answer."""
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.writes, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == number:
                assert "error" not in answer, answer["error"]
                return answer["result"]

    def _receive(self, timeout: float = 60) -> dict[str, Any]:
        while b"\0" not in self.buffer:
            assert select.select([self.reads], [], [], timeout)[0], "the browser doesn't answer"
            chunk = os.read(self.reads, 1 << 20)
            assert chunk, "the browser has ended"
            self.buffer += chunk
        line, _, self.buffer = self.buffer.partition(b"\0")
        message = json.loads(line)
        params = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.console.append(details.get("exception", {}).get("description", details["text"]))
        elif message.get("method") == "Log.entryAdded":
            self.console.append(params["entry"]["text"])
        elif message.get("method") == "Page.javascriptDialogOpening":
            self.console.append(f"dialog: {params['message']}")
        elif message.get("method") == "Network.requestWillBeSent":
            self.console += [f"request: {url}"] if not (url := params["request"]["url"]).startswith("data:") else []
        return message

    def open(self, url: str) -> None:
        """Open a page and wait until its script has drawn a tree, or says why not."""
        self.console.clear()
        self.send("Page.navigate", url="about:blank")
        self.send("Page.navigate", url=url)
        self.wait("document.querySelector('.tree path') || !(document.getElementById('message')?.hidden ?? true)")

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        answer = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, script: str, seconds: float = 30) -> Any:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not (value := self.run(f"Boolean({script})")):
            assert time.monotonic() < end, f"never true: {script}; {self.console}"
            time.sleep(0.03)
        return value

    def text(self, selector: str) -> str:
        return " ".join(self.run(f"document.querySelector({json.dumps(selector)}).textContent").split())

    def click(self, selector: str) -> None:
        """A real click into the middle of the first element."""
        found = f"document.querySelector({json.dumps(selector)})"
        box = f"(r => [r.x + r.width / 2, r.y + r.height / 2])({found}.getBoundingClientRect())"
        self.click_at(*self.run(f"({found}.scrollIntoView({{block: 'nearest'}}), {box})"))

    def click_at(self, x: float, y: float) -> None:
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str) -> None:
        typed = {"text": key} if len(key) == 1 else {}
        code = KEYS.get(key, ord(key[0]))
        for kind in ("keyDown", "keyUp"):
            more = typed if kind == "keyDown" else {}
            self.send("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **more)

    def choose(self, selector: str, value: Any) -> None:
        """Give a field a value, as its user would."""
        found, value = f"document.querySelector({json.dumps(selector)})", json.dumps(str(value))
        self.run(f"{found}.value = {value}; for (const n of ['input', 'change']) {found}.dispatchEvent(new Event(n))")

    def type(self, text: str) -> None:
        self.send("Input.insertText", text=text)

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))

    def pdf(self) -> bytes:
        return base64.b64decode(self.send("Page.printToPDF", landscape=True, printBackground=True)["data"])
