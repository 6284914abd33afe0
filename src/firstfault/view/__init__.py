"""Rollout trees in a browser: a page that explores a tree, an iteration or a run, served or as one file."""

from firstfault.view.page import write_page
from firstfault.view.recording import Recording
from firstfault.view.server import serve

__all__ = ["Recording", "serve", "write_page"]
