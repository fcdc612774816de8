"""What tests that really train share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dreamsr.data.sources import DataSource
from tests.training.tiny_runs import draw_pictures, one_thread


@pytest.fixture
def single_threaded() -> Iterator[None]:
    """Sums in one order, so that equal runs are equal bit for bit."""
    with one_thread():
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSource:
    """A folder of drawn pictures."""
    return draw_pictures(tmp_path_factory.mktemp("data"))
