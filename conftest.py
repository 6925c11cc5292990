"""Doctests see the packages under the names that the README uses."""

import gc
from typing import Any

import numpy as np
import pytest

import microgrid as mg

gc.set_threshold(100_000, 50, 50)  # graphs are many small objects, of which few are garbage: looking costs a tenth


@pytest.fixture(autouse=True)
def _names_in_doctests(doctest_namespace: dict[str, Any]) -> None:
    doctest_namespace.update(mg=mg, np=np)
