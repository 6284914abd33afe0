"""Rows of data sets: from the hub, or from a copy on this machine, by the `datasets` library."""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from firstfault.errors import UserError
from firstfault.progress import quiet_datasets

# the builder of the library for each kind of file
BUILDERS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv"}

Rows = Sequence[dict[str, Any]]


@functools.lru_cache(maxsize=64)
def load_rows(source: str, split: str, configs: tuple[str, ...] = (), file: str | None = None) -> Rows:
    """The rows of a split. They stay on disk until they are asked for.

    `source` is a folder that `save_to_disk` wrote, a folder with or without a data set's card, one file (which has a
    single split, whatever it is called), or else a data set's name on the hub. Of `configs`, all are joined; a copy
    need not tell them apart. `file` names the file of the split, in a repository that the library can't load by itself.

    Raises:
        UserError: if it can't be had.
    """
    datasets = quiet_datasets(f"the data set {source}")
    path = Path(source)
    try:
        if not path.exists() and (path.is_absolute() or path.suffix in BUILDERS):
            raise FileNotFoundError("there is no such file")
        if path.is_file():
            rows = _load_file(str(path), path.suffix)
        elif (path / "state.json").exists() or (path / "dataset_dict.json").exists():
            saved = datasets.load_from_disk(source)
            rows = saved[split] if isinstance(saved, datasets.DatasetDict) else saved
        elif file is not None and (path / file).is_file():
            rows = _load_file(str(path / file), Path(file).suffix)
        elif path.is_dir() and not set(configs) & set(datasets.get_dataset_config_names(source)):
            rows = datasets.load_dataset(source, split=split)
        elif file is not None and not path.is_dir():
            rows = _load_file(f"hf://datasets/{source}/{file}", Path(file).suffix)
        else:
            parts = [datasets.load_dataset(source, config, split=split) for config in configs or (None,)]
            rows = datasets.concatenate_datasets(parts)
    except Exception as error:  # of many kinds: the network, the hub, files, the library
        reason = " ".join(str(error).split()).rstrip(".")[:300] or type(error).__name__
        raise UserError(
            f"the split {split!r} of {source} can't be loaded ({reason}); check the name and the connection, "
            "or give the path of a copy on this machine."
        ) from error
    if not len(rows):
        raise UserError(f"the split {split!r} of {source} has no rows; give one that has.")
    return rows


def _load_file(path: str, suffix: str) -> Rows:
    import datasets

    if suffix not in BUILDERS:
        raise ValueError(f"a file has to end in one of {', '.join(BUILDERS)}")
    options = {"sep": "\t"} if suffix == ".tsv" else {}
    return datasets.load_dataset(BUILDERS[suffix], data_files=path, split="train", **options)


def has_one_split(path: Path) -> bool:
    """Whether a copy is all the same split, whatever it is called: a file, or a single set that was saved."""
    return path.is_file() or (path / "state.json").exists()


@functools.lru_cache(maxsize=8)
def shuffled(name: str, n: int) -> list[int]:
    """The numbers from 0 to n - 1 in an order that is drawn from `name`."""
    order = list(range(n))
    random.Random(name).shuffle(order)
    return order


def endless(seed: int, first: int, n: int, total: int) -> list[int]:
    """Numbers `first` to `first + n - 1` of a sequence that passes over `total` items again and again, each time in
    another order.

    >>> endless(seed=0, first=0, n=3, total=2)
    [0, 1, 1]
    """
    return [shuffled(f"{seed}-{i // total}", total)[i % total] for i in range(first, first + n)]
