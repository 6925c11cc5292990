"""Recording without computing: every value has the shape and dtype that it would have."""

import numpy as np
import pytest
from networks import NETWORKS
from random_networks import RandomNetwork

import microgrid as mg
from microgrid import outline, recording
from microgrid.errors import OperandError
from microgrid.outline import SMALL
from microgrid.rebuild import recorded_on

OPERATIONS = {
    "product of matrices": (lambda x, y: x @ y, (20, 30), (30, 40)),
    "product with a vector": (lambda x, y: x @ y, (100, 30), (30,)),
    "product of a vector": (lambda x, y: x @ y, (30,), (30, 100)),
    "products of a batch": (lambda x, y: x @ y, (5, 1, 20, 30), (7, 30, 40)),
    "inner product": (lambda x, y: x @ y, (100,), (100,)),
    "sum that broadcasts": (lambda x, y: x + y, (20, 1), (1, 30)),
    "comparison": (lambda x, y: x < y, (20, 30), (30,)),
    "choice": (lambda x, y: mg.where(x > 0, x, y), (20, 30), (20, 1)),
    "number": (lambda x, y: 2 * x - y / 3, (20, 30), (20, 30)),
    "reduction": (lambda x, y: mg.sum(x, axis=0) * mg.mean(y), (20, 300), (20, 30)),
    "concatenation": (lambda x, y: mg.concatenate([x, y], axis=1), (20, 30), (20, 40)),
    "index": (lambda x, y: x[3:, ::2] + y[0], (20, 300), (20, 150)),
    "reshape": (lambda x, y: mg.reshape(x, (-1, 10)).T + y, (20, 30), (10, 60)),
    "scatter": (lambda x, y: mg.grad(lambda x: mg.sum(x[5:] * y[5:] * x[5:]))(x), (20, 30), (20, 30)),
    "nothing": (lambda x, y: mg.tanh(x) * y, (0, 30), (1, 30)),
}


@pytest.mark.parametrize("dtypes", [(np.float64, np.float64), (np.float32, np.float64), (np.float32, np.float32)])
@pytest.mark.parametrize("name", OPERATIONS)
def test_outline_has_the_shape_and_dtype_of_the_value(name, dtypes):
    operation, *shapes = OPERATIONS[name]
    x, y = (mg.tensor(np.ones(shape, dtype)) for shape, dtype in zip(shapes, dtypes, strict=True))
    value = operation(x, y)
    with recording.outlines():
        found = operation(x, y)
    assert (found.shape, found.dtype) == (value.shape, value.dtype)
    assert found.size <= SMALL or not any(found.value.strides)  # it takes no memory


def test_outlines_of_whole_networks(monkeypatch):
    monkeypatch.setattr(outline, "SMALL", 1)
    graphs = [make() for make in NETWORKS.values()] + [
        RandomNetwork(seed, seed % 2 == 0, steps=3).tensors(False)[0] for seed in range(20)
    ]
    for graph in graphs:
        plain = recorded_on(graph, {}, {}, 3)
        with recording.outlines():
            outlined = recorded_on(graph, {}, {}, 3)
        for one, two in zip(plain.nodes, outlined.nodes, strict=True):
            assert (one.shape, one.dtype, one.requires_grad) == (two.shape, two.dtype, two.requires_grad)


def test_small_values_are_computed():
    with recording.outlines():
        assert (mg.tensor(2.0) * 3.0).item() == 6.0
        assert (mg.tensor([1.0, 2.0]) * 3.0).value.tolist() == [3.0, 6.0]


def test_operands_that_do_not_fit_are_refused_as_ever():
    x, y = mg.tensor(np.ones((20, 30)), name="x"), mg.tensor(np.ones((40, 50)), name="y")
    for operation in (lambda: x @ y, lambda: x + y, lambda: mg.concatenate([x, y])):
        with pytest.raises(OperandError) as expected:
            operation()
        with recording.outlines(), pytest.raises(OperandError) as found:
            operation()
        assert str(found.value).split(":")[0] == str(expected.value).split(":")[0]


def test_outlines_end_with_their_block_also_where_it_fails():
    with pytest.raises(ZeroDivisionError), recording.outlines():
        raise ZeroDivisionError
    assert (mg.tensor(np.ones(2 * SMALL)) * 3.0).value[0] == 3.0
    assert recording.special_anywhere == 0


def test_outlines_keep_no_grad():
    with recording.outlines(), mg.no_grad():
        assert not (mg.tensor(np.ones(2 * SMALL)) * 3.0).requires_grad
