"""Every primitive over a leading time axis equals itself timestep by timestep, whichever operands vary."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import microgrid as mg
from microgrid.ops.index import SCATTER_ADD
from microgrid.primitive import STOP_GRADIENT

STEPS = 3


def step_by_step(primitive, values, varies, params):
    """The reference: a plain loop over the timesteps."""
    made = []
    for t in range(STEPS):
        given_values = [value[t] if v else value for value, v in zip(values, varies, strict=True)]
        operands = (given_values,) if primitive.variadic else given_values
        made.append(np.asarray(primitive.forward(*operands, **params)))
    return np.stack(made)


def assert_over_time(primitive, values, varies, params, exactly=True):
    expected = step_by_step(primitive, values, varies, params)
    before = [np.array(value) for value in values]
    found = primitive.compute_all(values, varies, expected.shape[1:], params)
    assert np.shape(found) == expected.shape
    assert np.asarray(found).dtype == expected.dtype
    if exactly:
        np.testing.assert_array_equal(found, expected)
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-13)
    for value, old in zip(values, before, strict=True):
        np.testing.assert_array_equal(value, old)


def recorded(tensor):
    """(primitive, operands, params) of the operation that made a Tensor."""
    return tensor.primitive, tensor.operands, tensor.params


def some_vary(count):
    """All ways in which at least one of so many operands varies."""
    return [varies for varies in itertools.product([False, True], repeat=count) if any(varies)]


def check(record, *examples, sequences=None, exactly=True, may_vary=None):
    """An operation on Tensors, over time, with each combination of its operands varying.

    `sequences` are the operands' values at all timesteps; by default other ones for each timestep.
    Operands that the operation itself makes, such as constants, stay static.
    """
    leaves = [mg.tensor(example) for example in examples]
    primitive, operands, params = recorded(record(*leaves))
    if sequences is None:
        rng = np.random.default_rng(0)
        sequences = [varied(np.asarray(example), rng) for example in examples]
    place = {id(leaf): k for k, leaf in enumerate(leaves)}
    for chosen in may_vary or some_vary(len(examples)):
        varies = [id(node) in place and chosen[place[id(node)]] for node in operands]
        if any(varies):
            values = [sequences[place[id(node)]] if v else node.value for node, v in zip(operands, varies, strict=True)]
            assert_over_time(primitive, values, varies, params, exactly)


def varied(example, rng):
    """An array of the kind of the example for each timestep."""
    shape = (STEPS, *example.shape)
    if example.dtype.kind == "b":
        return rng.random(shape) < 0.5
    if example.dtype.kind in "iu":
        return rng.integers(np.min(example, initial=0), np.max(example, initial=0) + 1, shape).astype(example.dtype)
    return rng.uniform(0.3, 1.7, shape).astype(example.dtype)


def numbers(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).uniform(0.3, 1.7, shape)


# --- elementwise ----------------------------------------------------------------------------------------

SHAPES = [(), (1,), (3,), (1, 1), (2, 1), (1, 3), (2, 3), (1, 1, 1), (4, 1, 3), (1, 2, 1), (4, 2, 3)]
"""Ranks 0 to 3 with every pattern of size 1 that matters; all broadcast to (4, 2, 3)."""

UNARY = {
    name: getattr(mg, name)
    for name in (
        *("negative", "positive", "exp", "log", "log1p", "expm1", "sqrt", "square", "absolute", "sign", "sin", "cos"),
        *("tanh", "sigmoid", "relu", "softplus", "gelu"),
    )
} | {
    "to_floats": lambda x: mg.astype(x, np.float32),
    "to_others": lambda x: mg.astype(x, np.int32),
    "logical_not": lambda x: mg.logical_not(x),
    "stop_gradient": lambda x: stopped(x),
}
BINARY = {
    name: getattr(mg, name)
    for name in (
        *("add", "subtract", "multiply", "divide", "power", "maximum", "minimum", "equal", "not_equal", "less"),
        *("less_equal", "greater", "greater_equal", "logical_and", "logical_or"),
    )
}


def stopped(x):
    """`x.detach()` as it is recorded inside a network."""
    node = mg.input(x.value)
    result = node.detach()
    result.operands = [x]
    return result


@pytest.mark.parametrize("name", UNARY)
def test_operation_on_each_element(name):
    for shape in SHAPES:
        check(UNARY[name], numbers(*shape), exactly=False)


@pytest.mark.parametrize("name", BINARY)
def test_operation_on_two_arrays_of_every_pair_of_ranks(name):
    for one, other in itertools.product(SHAPES, repeat=2):
        check(BINARY[name], numbers(*one, seed=1), numbers(*other, seed=2), exactly=name != "power")


def every_primitive():
    """All operations that ops/ declares, but those that know of time."""
    found = {STOP_GRADIENT}
    for module in vars(mg.ops).values():
        for thing in vars(module).values() if hasattr(module, "__file__") else ():
            declared = getattr(thing, "primitive", thing)
            if isinstance(declared, mg.Primitive) and not declared.over_time and not declared.at_timestep:
                found.add(declared)
    return {primitive for primitive in found if primitive.name != "delay"}


def test_every_operation_on_elements_is_checked():
    by_element = {primitive.name for primitive in every_primitive() if primitive.elementwise}
    assert by_element == {*UNARY, *BINARY, "where", "clip_between"}


@pytest.mark.parametrize("name", ["where", "clip_between"])
def test_operation_on_three_arrays_of_every_triple_of_ranks(name):
    shapes = [(), (3,), (2, 1), (2, 3), (4, 1, 1)]
    for one, two, three in itertools.product(shapes, repeat=3):
        low, high = numbers(*two, seed=1), numbers(*three, seed=2)
        if name == "where":
            check(mg.where, numbers(*one) > 1, low, high)
        else:
            check(lambda x, a, b: mg.clip(x, a, b), numbers(*one), low - 0.5, high + 0.5)


@settings(deadline=None, max_examples=60)
@given(
    shapes=hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, min_side=0, max_side=3),
    name=st.sampled_from(["add", "maximum", "less"]),
)
def test_operation_on_two_drawn_shapes(shapes, name):
    one, other = shapes.input_shapes
    check(BINARY[name], numbers(*one, seed=1), numbers(*other, seed=2))


def test_size_of_the_time_axis_is_never_taken_for_one_of_the_arrays():
    """Shapes whose sizes are the number of timesteps: NumPy alone would align time with features."""
    for one, other in itertools.product([(), (3,), (3, 3), (3, 3, 3), (1, 3), (3, 1)], repeat=2):
        check(mg.subtract, numbers(*one, seed=1), numbers(*other, seed=2))


def test_dtypes_of_mixed_operands_are_those_of_one_timestep():
    for one, other in itertools.product([np.float32, np.float64, np.int32, np.bool_], repeat=2):
        check(mg.multiply, np.ones((2, 3), one), np.ones(3, other))
        check(mg.multiply, np.ones((2, 3), one), 2.0, may_vary=[(True, False)])


# --- products -------------------------------------------------------------------------------------------


def matmul_shapes():
    """Shapes of ranks 1 to 4 that NumPy multiplies, with leading axes equal, of size 1, or missing."""
    leading = [(), (2,), (1,), (2, 3), (1, 3), (2, 1), (3,)]
    lefts = [(4,), *((*lead, 5, 4) for lead in leading)]
    rights = [(4,), *((*lead, 4, 6) for lead in leading)]
    for left, right in itertools.product(lefts, rights):
        try:
            np.broadcast_shapes(left[:-2], right[:-2])
        except ValueError:
            continue
        yield left, right


def test_the_shapes_of_products_are_of_every_pair_of_ranks():
    pairs = {(len(left), len(right)) for left, right in matmul_shapes()}
    assert pairs == set(itertools.product(range(1, 5), repeat=2))


@pytest.mark.parametrize(("left", "right"), list(matmul_shapes()), ids=str)
def test_product_of_every_pair_of_ranks(left, right):
    check(mg.matmul, numbers(*left, seed=1), numbers(*right, seed=2), exactly=False)


def test_product_where_all_sizes_are_the_number_of_timesteps():
    shapes = [(3,), (3, 3), (3, 3, 3), (1, 3, 3), (3, 3, 3, 3)]
    for left, right in itertools.product(shapes, repeat=2):
        check(mg.matmul, numbers(*left, seed=1), numbers(*right, seed=2), exactly=False)


def test_product_of_arrays_that_are_not_contiguous():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 4, STEPS, 5)).transpose(2, 0, 3, 1), rng.normal(size=(6, 4)).T
    primitive = mg.matmul.primitive
    assert_over_time(primitive, [x, y], [True, False], {}, exactly=False)
    assert_over_time(primitive, [y.T, np.swapaxes(x, -1, -2)], [False, True], {}, exactly=False)


def test_product_of_integers_and_of_mixed_dtypes():
    check(mg.matmul, np.arange(6).reshape(2, 3), np.arange(3), exactly=True)
    check(mg.matmul, np.ones((2, 3), np.float32), np.ones((3, 2)), exactly=False)


def test_product_of_nothing():
    check(mg.matmul, np.zeros((0, 3)), np.zeros((3, 2)))
    check(mg.matmul, np.zeros((2, 0)), np.zeros((0, 2)))


@pytest.mark.parametrize(
    ("subscripts", "shapes"),
    [
        ("ij,jk->ik", [(2, 3), (3, 4)]),
        ("i,i->", [(3,), (3,)]),
        ("i,j->ij", [(3,), (3,)]),
        ("ii->i", [(3, 3)]),
        ("ii", [(3, 3)]),
        ("ij->ji", [(2, 3)]),
        ("ij->", [(2, 3)]),
        ("bi,ij,bj->b", [(2, 3), (3, 3), (2, 3)]),
        ("...i,i->...", [(2, 4, 3), (3,)]),
        ("...ij,...jk->...ik", [(2, 1, 3, 4), (5, 4, 2)]),
        ("aBc,cZ->aBZ", [(2, 3, 4), (4, 2)]),
        (",i->i", [(), (3,)]),
    ],
)
def test_einsum(subscripts, shapes):
    arrays = [numbers(*shape, seed=k) for k, shape in enumerate(shapes)]
    check(lambda *operands: mg.einsum(subscripts, *operands), *arrays, exactly=False)


# --- reductions -----------------------------------------------------------------------------------------


def axes_of(rank, several=True):
    """Every axis, counted from either end, None, and where allowed every tuple of axes."""
    yield None
    if not rank:
        return
    yield from range(-rank, rank)
    for count in range(rank + 1 if several else 0):
        for axes in itertools.combinations(range(rank), count):
            yield axes
            yield tuple(axis - rank for axis in axes)


RANKS = [(), (3,), (3, 2), (3, 3, 2)]


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("name", ["sum", "mean", "max", "min", "var", "std", "prod", "logsumexp"])
def test_reduction_over_every_axis(name, keepdims):
    for shape in RANKS:
        for axis in axes_of(len(shape)):
            if axis != ():
                check(lambda x: getattr(mg, name)(x, axis=axis, keepdims=keepdims), numbers(*shape), exactly=False)  # noqa: B023


@pytest.mark.parametrize("name", ["sum", "mean", "max", "min", "prod", "var"])
@pytest.mark.parametrize("keepdims", [False, True])
def test_reduction_over_no_axis_at_all(name, keepdims):
    for shape in RANKS:
        check(lambda x: getattr(mg, name)(x, axis=(), keepdims=keepdims), numbers(*shape), exactly=False)


@pytest.mark.parametrize("name", ["sum", "mean", "max", "logsumexp", "softmax", "log_softmax", "cumsum", "flip"])
def test_scalars_that_vary_have_the_axes_0_and_minus_1_of_numpy(name):
    for axis in (0, -1):
        operation = getattr(mg, name)
        try:
            operation(mg.tensor(np.array(0.5)), axis=axis)
        except mg.MicrogridError:
            continue
        check(lambda x: operation(x, axis=axis), np.array(0.5), exactly=False)  # noqa: B023


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "flip"])
def test_operation_along_every_axis(name):
    for shape in RANKS:
        for axis in axes_of(len(shape)):
            if axis != ():
                check(lambda x: getattr(mg, name)(x, axis=axis), numbers(*shape), exactly=False)  # noqa: B023


def test_softmax_along_its_default_axis():
    for shape in RANKS[1:]:
        check(mg.softmax, numbers(*shape), exactly=False)
        check(mg.log_softmax, numbers(*shape), exactly=False)


def test_running_sum_along_every_axis():
    for shape in RANKS:
        for axis in axes_of(len(shape), several=False):
            check(lambda x: mg.cumsum(x, axis=axis), numbers(*shape), exactly=False)  # noqa: B023


def test_sums_of_integers_and_booleans():
    for axis in (None, 0, (0, 1)):
        check(lambda x: mg.sum(x, axis=axis), np.arange(6).reshape(2, 3))  # noqa: B023
        check(lambda x: mg.sum(x, axis=axis), np.ones((2, 3), bool))  # noqa: B023
        check(lambda x: mg.mean(x, axis=axis), np.ones((2, 3), np.float32), exactly=False)  # noqa: B023


@pytest.mark.parametrize("ddof", [0, 1])
def test_variance_with_its_divisor(ddof):
    for axis in (None, 0, -1, (0, 1)):
        check(lambda x: mg.var(x, axis=axis, ddof=ddof), numbers(3, 4), exactly=False)  # noqa: B023
        check(lambda x: mg.std(x, axis=axis, ddof=ddof), numbers(3, 4), exactly=False)  # noqa: B023


# --- shapes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "to"),
    [
        *(((2, 3), -1), ((2, 3), (3, 2)), ((2, 3), (-1, 1)), ((2, 3), 6), ((2, 3), (1, 2, 3)), ((), (1, 1)), ((), -1)),
        *(((1,), ()), ((3, 3), (9,)), ((4, 2, 3), (2, -1)), ((0, 3), (3, 0))),
    ],
)
def test_reshape(shape, to):
    check(lambda x: mg.reshape(x, to), numbers(*shape))


def test_reshape_of_what_is_not_contiguous():
    primitive = mg.reshape.primitive
    x = numbers(2, STEPS, 4).transpose(1, 2, 0)
    assert_over_time(primitive, [x], [True], {"shape": (8,)})


@pytest.mark.parametrize("shape", [(1,), (3, 1), (1, 3, 1), (1, 1)])
def test_squeeze(shape):
    ones = [i for i, n in enumerate(shape) if n == 1]
    for axis in (None, *ones, *(i - len(shape) for i in ones), tuple(ones), ()):
        check(lambda x: mg.squeeze(x, axis=axis), numbers(*shape))  # noqa: B023


@pytest.mark.parametrize("shape", [(), (3,), (3, 2)])
def test_expand_dims(shape):
    for axis in (*range(-len(shape) - 1, len(shape) + 1), (0, 1), (0, -1)):
        check(lambda x: mg.expand_dims(x, axis), numbers(*shape))  # noqa: B023


@pytest.mark.parametrize("shape", [(), (3,), (3, 2), (3, 4, 2)])
def test_transpose_into_every_order(shape):
    check(mg.transpose, numbers(*shape))
    rank = len(shape)
    for order in itertools.permutations(range(rank)):
        check(lambda x: mg.transpose(x, order), numbers(*shape))  # noqa: B023
        check(lambda x: mg.transpose(x, tuple(axis - rank for axis in order)), numbers(*shape))  # noqa: B023


def test_swapaxes_of_every_pair():
    for shape in ((3,), (3, 2), (3, 4, 2)):
        axes = range(-len(shape), len(shape))
        for one, other in itertools.product(axes, repeat=2):
            check(lambda x: mg.swapaxes(x, one, other), numbers(*shape))  # noqa: B023


def test_broadcast_to_every_rank():
    for shape in SHAPES:
        for to in ((4, 2, 3), (5, 4, 2, 3), shape):
            check(lambda x: mg.broadcast_to(x, to), numbers(*shape))  # noqa: B023


@pytest.mark.parametrize("width", [1, (1, 2), ((1, 2), (0, 3)), [(0, 1), (2, 0)], np.array([[1, 0], [0, 1]])], ids=str)
def test_pad(width):
    check(lambda x: mg.pad(x, width), numbers(2, 3))
    check(lambda x: mg.pad(x, width, constant_values=-1.5), numbers(2, 3))


def test_pad_of_other_ranks():
    check(lambda x: mg.pad(x, 1), numbers(3))
    check(lambda x: mg.pad(x, (0, 2)), numbers(3))
    check(lambda x: mg.pad(x, 1), numbers(2, 3, 4))
    check(lambda x: mg.pad(x, 0), np.array(1.0))


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 3, 4)])
def test_concatenate_along_every_axis_with_every_combination_varying(shape):
    for axis in range(-len(shape), len(shape)):
        other = [5 if i == axis % len(shape) else n for i, n in enumerate(shape)]
        arrays = numbers(*shape, seed=1), numbers(*other, seed=2), numbers(*shape, seed=3)
        check(lambda *xs: mg.concatenate(xs, axis=axis), *arrays)  # noqa: B023


def test_concatenate_flattened():
    check(lambda *xs: mg.concatenate(xs, axis=None), numbers(3), numbers(2, 3), numbers(1))
    check(lambda *xs: mg.concatenate(xs, axis=None), numbers(3, 3), np.array(1.0))


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_stack_along_every_axis_with_every_combination_varying(shape):
    for axis in range(-len(shape) - 1, len(shape) + 1):
        arrays = [numbers(*shape, seed=k) for k in range(3)]
        check(lambda *xs: mg.stack(xs, axis=axis), *arrays)  # noqa: B023


def test_joining_arrays_of_other_dtypes():
    check(lambda *xs: mg.concatenate(xs), np.ones(2, np.float32), np.ones(3), np.arange(2))
    check(lambda *xs: mg.stack(xs), np.ones(2, np.float32), np.arange(2))


# --- reading and writing parts --------------------------------------------------------------------------

MASK = np.array([[True, False, True, True], [False, False, True, False], [True, True, False, True]])
BASIC = {
    "integer": 1,
    "last": -1,
    "NumPy integer": np.int64(1),
    "slice": slice(1, None),
    "slice with a step": slice(None, None, 2),
    "slice backwards": slice(None, None, -1),
    "empty slice": slice(2, 2),
    "ellipsis": ...,
    "new axis": None,
    "nothing": (),
    "two integers": (1, -1),
    "integer and slice": (0, slice(1, 3)),
    "slice and integer": (slice(1, 3), 0),
    "ellipsis and integer": (..., 1),
    "new axis between": (slice(None), None, slice(1, None)),
    "new axes and ellipsis": (None, ..., None),
    "integers, slice, new axis": (1, None, slice(None, None, -1), None),
}
STATIC_ARRAYS = {
    "array": np.array([0, 2, 2]),
    "list": [1, 1, 0],
    "negative array": np.array([-1, 0]),
    "array of two axes": np.array([[0, 1], [2, 2]]),
    "empty array": np.array([], int),
    "array and slice": (np.array([0, 2, 2]), slice(1, None)),
    "slice and array": (slice(1, None), np.array([3, 3, 0])),
    "ellipsis and array": (..., np.array([3, 0])),
    "two arrays": (np.array([0, 2, 2]), np.array([1, 1, 3])),
    "two arrays that broadcast": (np.array([[0], [2]]), np.array([1, 3, 3])),
    "array and integer": (np.array([0, 2, 2]), 1),
    "integer and array": (1, np.array([0, 2, 2])),
    "array and new axis": (np.array([0, 2]), None),
    "new axis and array": (None, np.array([0, 2])),
    "mask": MASK,
    "mask of rows": np.array([True, False, True]),
    "mask of columns": (slice(None), np.array([True, False, True, True])),
    "mask and array": (np.array([True, False, True]), np.array([1, 3])),
    "mask and integer": (np.array([True, False, True]), 1),
    "mask of nothing": np.zeros(3, bool),
}


@pytest.mark.parametrize("name", [*BASIC, *STATIC_ARRAYS])
def test_getitem(name):
    index = {**BASIC, **STATIC_ARRAYS}[name]
    check(lambda x: x[index], numbers(3, 4))


@pytest.mark.parametrize("name", [*BASIC, *STATIC_ARRAYS])
def test_scatter_add(name):
    index = {**BASIC, **STATIC_ARRAYS}[name]
    _, operands, params = recorded(mg.tensor(numbers(3, 4))[index])
    part = np.asarray(numbers(3, 4)[index])
    scattered = {"shape": (3, 4), "template": params["template"]}
    sequence = varied(part, np.random.default_rng(0)) if part.size else np.zeros((STEPS, *part.shape))
    assert len(operands) == 1
    assert_over_time(SCATTER_ADD, [sequence], [True], scattered, exactly=False)


@pytest.mark.parametrize(
    "index",
    [
        *((slice(None), 1, ...), (..., 1, None), (0, slice(None), np.array([0, 1])), (np.array([0, 1]), ..., 0)),
        *((np.array([0, 1]), slice(None), np.array([1, 2])), (slice(None), np.array([1, 1]), np.array([0, 3]))),
        *((slice(None), np.array([[1], [0]]), np.array([0, 3])), (0, np.array([1, 1])), (np.array([1, 0]), None, 1)),
        *((None, np.array([0, 1]), np.array([1, 2]), slice(None)), (np.array([1]), np.array([2]), np.array([3]))),
        *(np.arange(24).reshape(2, 3, 4) % 5 == 0, (slice(None), MASK), (0, MASK), (..., np.array([True, False] * 2))),
    ],
    ids=str,
)
def test_reading_and_writing_three_axes(index):
    check(lambda x: x[index], numbers(2, 3, 4))
    _, _, params = recorded(mg.tensor(numbers(2, 3, 4))[index])
    part = np.asarray(numbers(2, 3, 4)[index])
    scattered = {"shape": (2, 3, 4), "template": params["template"]}
    assert_over_time(SCATTER_ADD, [varied(part, np.random.default_rng(0))], [True], scattered, exactly=False)


VARYING = {  # (of the array, a function of the array and integer operands, examples of those)
    "rows": (lambda x, i: x[i], [np.array([2, 0])]),
    "one row": (lambda x, i: x[i], [np.array(2)]),
    "many rows": (lambda x, i: x[i], [np.array([[2, 0], [1, 1]])]),
    "columns": (lambda x, i: x[:, i], [np.array([3, 0, 3])]),
    "last axis": (lambda x, i: x[..., i], [np.array([3, 0])]),
    "one column": (lambda x, i: x[:, i], [np.array(3)]),
    "rows and slice": (lambda x, i: x[i, 1:], [np.array([2, 0])]),
    "rows and new axis": (lambda x, i: x[i, None], [np.array([2, 0])]),
    "pairs": (lambda x, i, j: x[i, j], [np.array([2, 0]), np.array([3, 1])]),
    "pairs that broadcast": (lambda x, i, j: x[i, j], [np.array([[2], [0]]), np.array([3, 1, 0])]),
    "pairs of other ranks": (lambda x, i, j: x[i, j], [np.array(2), np.array([3, 1, 0])]),
    "pairs of which one is fixed": (lambda x, j: x[np.arange(3), j], [np.array([3, 1, 0])]),
    "row by integer": (lambda x, j: x[1, j], [np.array([3, 1, 0])]),
    "integer and one of them": (lambda x, i: x[i, 2], [np.array([2, 0])]),
}


@pytest.mark.parametrize("name", VARYING)
def test_getitem_with_indices_that_vary(name):
    read, indices = VARYING[name]
    check(read, numbers(3, 4), *indices)


@pytest.mark.parametrize("name", VARYING)
def test_scatter_add_with_indices_that_vary(name):
    read, indices = VARYING[name]
    _, operands, params = recorded(read(mg.tensor(numbers(3, 4)), *map(mg.tensor, indices)))
    rng = np.random.default_rng(0)
    part = read(mg.tensor(numbers(3, 4)), *map(mg.tensor, indices)).value
    scattered = {"shape": (3, 4), "template": params["template"]}
    sequences = [varied(part, rng), *(varied(np.asarray(node.value), rng) for node in operands[1:])]
    for varies in some_vary(len(operands)):
        values = [s if v else s[0] for s, v in zip(sequences, varies, strict=True)]
        assert_over_time(SCATTER_ADD, values, varies, scattered, exactly=False)


@pytest.mark.parametrize("varies", some_vary(2), ids=str)
def test_mask_that_varies_but_takes_as_many_at_every_timestep(varies):
    masks = np.array([[True, False, True], [True, True, False], [False, True, True]])
    primitive, _, params = recorded(mg.tensor(numbers(3, 4))[mg.tensor(masks[0])])
    x, values = varied(numbers(3, 4), np.random.default_rng(0)), []
    values = [x if varies[0] else x[0], masks if varies[1] else masks[0]]
    assert_over_time(primitive, values, varies, params)
    parts = varied(numbers(2, 4), np.random.default_rng(0))
    values = [parts if varies[0] else parts[0], masks if varies[1] else masks[0]]
    assert_over_time(SCATTER_ADD, values, varies, {"shape": (3, 4), "template": params["template"]})


def test_what_is_written_twice_is_added_twice():
    index = mg.tensor(np.array([1, 1, 1]))
    _, _, params = recorded(mg.tensor(numbers(3))[index])
    indices = np.array([[1, 1, 1], [0, 2, 0], [2, 2, 0]])
    found = SCATTER_ADD.compute_all(
        [np.ones((STEPS, 3)), indices], [True, True], (3,), {"shape": (3,), "template": params["template"]}
    )
    assert found.tolist() == [[0, 3, 0], [2, 0, 1], [1, 0, 2]]


@pytest.mark.parametrize("axis", [None, 0, 1, -1, -2])
@pytest.mark.parametrize("indices", [np.array(1), np.array([2, 0]), np.array([[0, 1], [2, 2]])], ids=str)
def test_take(axis, indices):
    check(lambda x, i: mg.take(x, i, axis=axis), numbers(3, 4), indices)
    check(lambda x, i: mg.take(x, i, axis=axis if axis in (None, 0, -1) else 0), numbers(5), indices)
    check(lambda x, i: mg.take(x, i, axis=axis), numbers(3, 4, 3), indices)


# --- primitives of users -----------------------------------------------------------------------------------


@mg.primitive(vjp=(None, None))
def own_norm(x, y, scale=1.0):
    """A user's primitive without a rule over time."""
    return scale * np.sqrt(np.sum(x * x)) + np.max(y)


@mg.primitive(vjp_of=lambda index: lambda g, out, xs: g)
def own_total(xs):
    return sum(np.sum(x) for x in xs)


def test_primitive_of_a_user_without_a_rule_over_time():
    check(lambda x, y: own_norm(x, y, scale=2.0), numbers(2, 3), numbers(3))
    check(lambda *xs: own_total(xs), numbers(2, 3), numbers(3), np.array(1.0))
    assert own_norm.primitive.batched is None


@mg.primitive(elementwise=True, vjp=(None, None))
def own_distance(x, y):
    return np.abs(x - y)


def test_elementwise_primitive_of_a_user():
    for one, other in itertools.product([(), (3,), (2, 3)], repeat=2):
        check(own_distance, numbers(*one), numbers(*other, seed=1))


def test_unstack_over_time_is_the_array_itself():
    x = mg.tensor(numbers(3, 2))
    primitive, _, params = recorded(mg.time_unstack(x))
    np.testing.assert_array_equal(primitive.compute_all([x.value], [False], (2,), params), x.value)
