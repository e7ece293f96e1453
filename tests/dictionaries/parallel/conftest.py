"""Two processes, and four, that are started once for all tests that use them."""

from collections.abc import Iterator

import pytest

from tests.dictionaries.parallel.crew import Crew


@pytest.fixture(scope="session")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    crew = Crew(2, tmp_path_factory.mktemp("two"))
    yield crew
    crew.close()


@pytest.fixture(scope="session")
def four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    crew = Crew(4, tmp_path_factory.mktemp("four"))
    yield crew
    crew.close()
