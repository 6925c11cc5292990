"""Doctests see the packages under the names that the README uses."""

from typing import Any

import numpy as np
import pytest

import microgrid as mg


@pytest.fixture(autouse=True)
def _names_in_doctests(doctest_namespace: dict[str, Any]) -> None:
    doctest_namespace.update(mg=mg, np=np)
