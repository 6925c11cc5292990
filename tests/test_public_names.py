"""Every public name explains itself with an example that runs."""

import doctest
import inspect

import numpy as np
import pytest

import microgrid as mg

PLACES = {"mg": mg, "mg.nn": mg.nn, "mg.nn.init": mg.nn.init, "mg.optim": mg.optim, "mg.data": mg.data}
WITHOUT = {"MicrogridError", "Primitive", "Input", "Parameter", "State", "Cycle", "Unrolled"}
PUBLIC = [
    (place, name)
    for place, module in PLACES.items()
    for name in getattr(module, "__all__", [each for each in vars(module) if not each.startswith("_")])
    if (inspect.isfunction(getattr(module, name)) or inspect.isclass(getattr(module, name))) and name not in WITHOUT
    if place == "mg" or getattr(module, name).__module__.startswith(module.__name__)
]


@pytest.mark.parametrize(("place", "name"), PUBLIC)
def test_docstring_example_runs(place, name):
    example = doctest.DocTestParser().get_doctest(
        inspect.getdoc(getattr(PLACES[place], name)) or "", {"mg": mg, "np": np}, name, None, None
    )
    assert example.examples, f"{place}.{name} has no example"
    assert doctest.DocTestRunner().run(example).failed == 0
