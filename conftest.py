"""Doctests see the packages under the names that the README uses."""

import functools
import gc
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import microgrid as mg
from microgrid.execute.llvm import machine

gc.set_threshold(100_000, 50, 50)  # graphs are many small objects, of which few are garbage: looking costs a tenth


@pytest.fixture(scope="module", params=["numpy", "llvm"])
def both_executors(request: pytest.FixtureRequest) -> Iterator[None]:
    """Networks are compiled for one executor, then the tests run again for the other."""
    if request.param == "llvm" and not machine.available():
        pytest.skip("llvmlite is not installed")
    usual = mg.compile
    mg.compile = functools.partial(usual, executor=request.param)
    yield
    mg.compile = usual


@pytest.fixture(scope="module")
def _all_quickly_compiled() -> Iterator[None]:
    """For what is compiled and run once: the same code as LLVM IR, but little of LLVM's time."""
    machine.QUICKLY = True
    yield
    machine.QUICKLY = False


@pytest.fixture
def _quickly_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for one test."""
    monkeypatch.setattr(machine, "QUICKLY", True)


@pytest.fixture(autouse=True, scope="session")
def _code_of_tests_apart(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Machine code that tests compile goes into no user's cache."""
    os.environ["MICROGRID_CACHE_DIR"] = str(tmp_path_factory.mktemp("code"))


@pytest.fixture(autouse=True)
def _names_in_doctests(doctest_namespace: dict[str, Any]) -> None:
    doctest_namespace.update(mg=mg, np=np)
