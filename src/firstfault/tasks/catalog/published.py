"""What the published data sets have in common."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from firstfault.tasks.datasets import DataTasks
from firstfault.tasks.judged import Judging
from firstfault.tasks.rows import Rows, has_one_split, load_rows


class Published(DataTasks):
    """A data set of the hub.

    Attributes:
        hub: its name there.
        configs: its configurations, which are joined.
        files: the file of a split, where the library can't load the repository by itself.
        train_split, test_split: their names; without `train_split`, the set is for evaluation only.
        judged_by: how answers are judged.
    """

    hub: ClassVar[str]
    configs: ClassVar[tuple[str, ...]] = ()
    files: ClassVar[dict[str, str]] = {}
    train_split: ClassVar[str | None] = None
    test_split: ClassVar[str | None] = "test"
    judged_by: ClassVar[Judging] = "math"

    @property
    def judging(self) -> Judging:
        return self.judged_by

    @property
    def evaluation_only(self) -> bool:
        return self.train_split is None

    def rows(self, training: bool) -> Rows | None:
        split = self.train_split if training else self.test_split
        path: Path | None = self.path
        if not training and self.held_out_path is not None:
            path, split = self.held_out_path, split or "train"
        elif not training and self.train_split is not None and path is not None and has_one_split(path):
            return None  # which is what is trained on
        if split is None:
            return None
        return load_rows(str(path or self.hub), split, self.configs, self.files.get(split))
