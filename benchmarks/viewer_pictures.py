"""The pictures of the viewer in the docs, taken from a run in a headless browser.

python benchmarks/viewer_pictures.py RUN ITERATION TREE NODE    # writes docs/images/viewer*.png; needs Pillow
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from browser import Browser
from PIL import Image

from firstfault.view import Recording, write_page

IMAGES = Path(__file__).parent.parent / "docs" / "images"
SIZE = (1440, 780)


def main(run: Path, iteration: int, tree: int, node: int) -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        pages = {name: Path(folder) / f"{name}.html" for name in ("one", "two")}
        write_page(Recording(run), pages["one"])
        trees = run / "trees" / f"step-{iteration:04d}.jsonl.gz"
        write_page(Recording(trees, credits=("elpo", "grpo")), pages["two"])
        here = f"#iteration={iteration}&tree={tree}&node={node}"
        with Browser(Path(folder) / "profile", SIZE) as browser:
            for name, page, address, dark in (
                ("viewer", "one", here, False),
                ("viewer-replay", "one", f"{here}&at=10", True),
                ("viewer-credit", "two", f"{here}&colour=credit", False),
            ):
                browser.scheme(dark)
                browser.open(pages[page].as_uri() + address)
                file = IMAGES / f"{name}.png"
                browser.screenshot(file)
                Image.open(file).quantize(256).save(file, optimize=True)  # a third of the size


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
