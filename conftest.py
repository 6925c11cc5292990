"""Doctests see the packages under the names that the README uses."""

import gc
import os
from typing import Any

import numpy as np
import pytest

import microgrid as mg

gc.set_threshold(100_000, 50, 50)  # graphs are many small objects, of which few are garbage: looking costs a tenth


@pytest.fixture(autouse=True, scope="session")
def _code_of_tests_apart(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Machine code that tests compile goes into no user's cache."""
    os.environ["MICROGRID_CACHE_DIR"] = str(tmp_path_factory.mktemp("code"))


@pytest.fixture(autouse=True)
def _names_in_doctests(doctest_namespace: dict[str, Any]) -> None:
    doctest_namespace.update(mg=mg, np=np)
