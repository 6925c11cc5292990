"""Every public name explains itself with an example that runs."""

import doctest
import inspect

import numpy as np
import pytest

import microgrid as mg

PUBLIC = [
    name
    for name in mg.__all__
    if (inspect.isfunction(getattr(mg, name)) or inspect.isclass(getattr(mg, name)))
    and name not in {"MicrogridError", "Primitive", "Input", "Parameter", "State", "Cycle", "Unrolled"}
]


@pytest.mark.parametrize("name", PUBLIC)
def test_docstring_example_runs(name):
    example = doctest.DocTestParser().get_doctest(
        inspect.getdoc(getattr(mg, name)) or "", {"mg": mg, "np": np}, name, None, None
    )
    assert example.examples, f"mg.{name} has no example"
    assert doctest.DocTestRunner().run(example).failed == 0
