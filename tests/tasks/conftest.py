"""The cache of the datasets library, apart from the user's."""

import datasets
import pytest


@pytest.fixture(autouse=True, scope="session")
def data_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
        yield
