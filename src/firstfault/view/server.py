"""The page for this machine only: a server on the loopback interface that answers GET and nothing else."""

from __future__ import annotations

import json
import re
import threading
import webbrowser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from firstfault.errors import UserError
from firstfault.view.page import page
from firstfault.view.recording import Recording

HOST = "127.0.0.1"
MOST_CREDITS = 2


class Server(ThreadingHTTPServer):
    """Serves one recording. Port 0 is any that is free."""

    daemon_threads = True

    def __init__(self, recording: Recording, port: int):
        self.recording = recording
        self.lock = threading.Lock()  # trees are read and credited by one request at a time
        self.page, self.csp = page(connect="'self'")
        try:
            super().__init__((HOST, port), Handler)
        except (OSError, OverflowError) as error:
            raise UserError(f"port {port} can't be had ({error}); give another with --port, or 0 for any.") from error

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.server_port}/"

    def answer(self, target: str) -> tuple[int, str, str]:
        """Status, type and text of the answer to a GET."""
        if target == "/":
            return 200, "text/html", self.page
        try:
            url = urlsplit(target)
            with self.lock:
                value = self._value(url.path, parse_qs(url.query, keep_blank_values=True).get("credit", []))
        except UserError as error:
            return 422, "application/json", json.dumps({"error": str(error)})
        except (LookupError, ValueError):
            return 404, "application/json", json.dumps({"error": "there is nothing at this address."})
        return 200, "application/json", json.dumps(value)

    def _value(self, path: str, credits: list[str]) -> Any:
        recording = self.recording
        if path == "/data/index":
            return recording.index()
        match = re.fullmatch(r"/data/(iteration-([0-9]{1,9})|tree-([0-9]{1,9})-([0-9]{1,9}))", path)
        if not match:
            raise LookupError(path)
        if len(credits) > MOST_CREDITS:
            raise UserError(f"credit of {len(credits)} methods can't be shown side by side; choose two.")
        chosen = tuple(credits) or recording.credits
        if match[2]:
            return recording.summaries(int(match[2]), chosen)
        return recording.tree(int(match[3]), int(match[4]), chosen)


class Handler(BaseHTTPRequestHandler):
    server: Server
    server_version, sys_version = "firstfault", ""
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self) -> None:
        # a page of another origin whose name now points here (DNS rebinding) still sends its own name
        known = {f"{name}:{self.server.server_port}" for name in (HOST, "localhost")}
        if self.headers.get("Host", "") not in known:
            answer = 403, "text/plain", "This server answers to 127.0.0.1 and localhost only."
        else:
            answer = self.server.answer(self.path)
        self._send(*answer)

    def _send(self, status: int, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        for name, value in {
            "Content-Type": f"{kind}; charset=utf-8",
            "Content-Length": str(len(body)),
            "Content-Security-Policy": f"{self.server.csp}; frame-ancestors 'none'",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        """Nothing: the terminal shows the address only."""


def serve(recording: Recording, port: int, browser: bool) -> None:
    """Serve until the user interrupts; open the page in a browser if `browser`."""
    server = Server(recording, port)
    _ = recording.decode  # takes seconds to load: before the first page, not in it
    print(f"{server.address}  (Ctrl+C ends it)", flush=True)
    if browser:
        webbrowser.open(server.address)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print()
    finally:
        server.server_close()
