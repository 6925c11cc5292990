"""Every primitive against NumPy, and its first and second derivatives against central differences in float64.

`CASES` holds, per public operation, strategies that draw a `Problem`: the operation on Tensors, the same on arrays, and
points away from kinks.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import microgrid as mg

FEW = settings(deadline=None, max_examples=5, suppress_health_check=[HealthCheck.too_slow])


@dataclass(frozen=True)
class Problem:
    """An operation, the same in NumPy, and where to differentiate it."""

    on_tensors: Callable[..., mg.Tensor]
    on_arrays: Callable[..., Any]
    points: tuple[np.ndarray, ...]


# --- drawing points and shapes -------------------------------------------------------------------


def generators():
    return st.integers(0, 2**32 - 1).map(np.random.default_rng)


def smooth(rng, shape):
    return np.asarray(rng.uniform(-1.5, 1.5, shape))


def positive(rng, shape):
    return np.asarray(rng.uniform(0.5, 2.5, shape))


def off_zero(rng, shape):
    return np.asarray(rng.choice([-1.0, 1.0], shape) * rng.uniform(0.4, 1.5, shape))


def above_minus_one(rng, shape):
    return np.asarray(rng.uniform(-0.5, 1.5, shape))


def on_grid(rng, shape):
    """Multiples of 0.5, at least 0.25 away from every point of `off_grid`."""
    return np.asarray(0.5 * rng.integers(-3, 4, shape))


def off_grid(rng, shape):
    return np.asarray(0.5 * rng.integers(-3, 4, shape) + 0.25)


def distinct(rng, shape):
    """Numbers no two of which are closer than 0.1."""
    size = math.prod(shape)
    return np.asarray(0.3 * (rng.permutation(size) - size / 2) + rng.uniform(0.0, 0.2, size)).reshape(shape)


def shapes(min_dims=0, max_dims=3, min_side=1):
    return hnp.array_shapes(min_dims=min_dims, max_dims=max_dims, min_side=min_side, max_side=3)


@st.composite
def axes_of(draw, ndim, several=True):
    """One axis, several, or None for all; counted from either end."""
    if ndim == 0:
        return None
    one = st.integers(-ndim, ndim - 1)
    if not several:
        return draw(one)
    some = st.lists(one, min_size=1, max_size=ndim, unique_by=lambda axis: axis % ndim).map(tuple)
    return draw(st.none() | one | some)


# --- drawing problems ----------------------------------------------------------------------------


def unary(on_tensors, on_arrays, values=smooth, min_dims=0):
    @st.composite
    def problem(draw):
        return Problem(on_tensors, on_arrays, (values(draw(generators()), draw(shapes(min_dims))),))

    return problem()


def binary(on_tensors, on_arrays, first=smooth, second=smooth):
    """Two operands whose shapes broadcast, in either direction."""

    @st.composite
    def problem(draw):
        drawn = draw(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, min_side=1, max_side=3))
        rng = draw(generators())
        return Problem(on_tensors, on_arrays, (first(rng, drawn.input_shapes[0]), second(rng, drawn.input_shapes[1])))

    return problem()


def reduction(on_tensors, on_arrays, values=smooth, min_side=1, keepdims=True, several=True):
    @st.composite
    def problem(draw):
        shape = draw(shapes(min_dims=1 if min_side > 1 else 0, min_side=min_side))
        setting = {"axis": draw(axes_of(len(shape), several))}
        if keepdims:
            setting["keepdims"] = draw(st.booleans())
        points = (values(draw(generators()), shape),)
        return Problem(lambda x: on_tensors(x, **setting), lambda x: on_arrays(x, **setting), points)

    return problem()


def spread_out(on_tensors, on_arrays, ddof):
    return reduction(
        lambda x, **setting: on_tensors(x, ddof=ddof, **setting),
        lambda x, **setting: on_arrays(x, ddof=ddof, **setting),
        values=distinct,
        min_side=2,
    )


@st.composite
def where_problem(draw):
    drawn = draw(hnp.mutually_broadcastable_shapes(num_shapes=3, max_dims=3, min_side=1, max_side=3))
    rng = draw(generators())
    condition = np.asarray(rng.random(drawn.input_shapes[0]) < 0.5)
    given_as = mg.tensor(condition) if draw(st.booleans()) else condition
    points = tuple(smooth(rng, shape) for shape in drawn.input_shapes[1:])
    return Problem(lambda x, y: mg.where(given_as, x, y), lambda x, y: np.where(condition, x, y), points)


@st.composite
def clip_problem(draw):
    rng, shape = draw(generators()), draw(shapes())
    low = draw(st.sampled_from([None, -0.75, np.full(shape, -0.25)]))
    high = draw(st.sampled_from([1.25, np.full(shape, 0.75)] if low is None else [None, 1.25, np.full(shape, 0.75)]))

    def bounds(x):
        return (bound.astype(x.dtype) if isinstance(bound, np.ndarray) else bound for bound in (low, high))

    points = (on_grid(rng, shape),)
    return Problem(lambda x: mg.clip(x, *bounds(x)), lambda x: np.clip(x, *bounds(x)), points)


def matmul_problem(ranks):
    """Every leading axis is 2 or 1 in each operand, so that batches broadcast both ways."""

    @st.composite
    def problem(draw):
        n, k, m = (draw(st.integers(1, 3)) for _ in range(3))
        rng = draw(generators())

        def operand(rank, row, column, vector):
            leading = tuple(draw(st.sampled_from([1, 2])) for _ in range(rank - 2))
            return smooth(rng, (vector,) if rank == 1 else (*leading, row, column))

        return Problem(mg.matmul, np.matmul, (operand(ranks[0], n, k, k), operand(ranks[1], k, m, k)))

    return problem()


def einsum_problem(subscripts):
    @st.composite
    def problem(draw):
        sizes = {letter: draw(st.integers(1, 3)) for letter in sorted(set(subscripts)) if letter.isalpha()}
        terms = subscripts.partition("->")[0].split(",")
        dots = draw(hnp.mutually_broadcastable_shapes(num_shapes=len(terms), max_dims=2, min_side=1, max_side=2))
        rng = draw(generators())
        points = []
        for term, leading in zip(terms, dots.input_shapes, strict=True):
            before, ellipsis, after = term.partition("...")
            shape = [sizes[letter] for letter in before]
            shape += [*leading, *(sizes[letter] for letter in after)] if ellipsis else []
            points.append(smooth(rng, tuple(shape)))
        return Problem(
            lambda *xs: mg.einsum(subscripts, *xs), lambda *xs: np.asarray(np.einsum(subscripts, *xs)), tuple(points)
        )

    return problem()


EINSUMS = (
    *("ij,jk->ik", "ij,jk", "i,i->", "i,j->ij", "ij,ij->", "bi,bj,bk->ijk"),  # products
    *("ij->ji", "ba", "ij->", "ij->i", "ijk->j"),  # one operand
    *("ii->", "ii", "ii->i", "iij->j", "iij->ij", "iii->i", "ii,ij->j"),  # repeated letters
    *("ij,k->i", "i,j->", "ij,kl->jk"),  # letters summed without a partner
    *("...ij,...jk->...ik", "...i->...", "...,...->...", "i...,i...->...", "...i,i", "...ii->...i"),  # ellipsis
    *(",i->i", ",->"),  # scalars
)


@st.composite
def transpose_problem(draw, on_tensors=mg.transpose):
    shape = draw(shapes())
    order = draw(st.permutations(range(len(shape))))
    order = tuple(axis - len(shape) if draw(st.booleans()) else axis for axis in order)
    if on_tensors is mg.transpose and draw(st.booleans()):
        order = None
    elif on_tensors is mg.permute:
        points = (smooth(draw(generators()), shape or (1,)),)
        order = order or (0,)
        return Problem(lambda x: mg.permute(x, *order), lambda x: np.transpose(x, order), points)
    points = (smooth(draw(generators()), shape),)
    return Problem(lambda x: on_tensors(x, order), lambda x: np.transpose(x, order), points)


@st.composite
def swapaxes_problem(draw):
    shape = draw(shapes(min_dims=1))
    a, b = draw(axes_of(len(shape), several=False)), draw(axes_of(len(shape), several=False))
    points = (smooth(draw(generators()), shape),)
    return Problem(lambda x: mg.swapaxes(x, a, b), lambda x: np.swapaxes(x, a, b), points)


@st.composite
def reshape_problem(draw):
    shape = draw(shapes())
    new = draw(st.permutations(shape)) + [1] * draw(st.integers(0, 2))
    new = draw(st.sampled_from([tuple(new), -1, (-1, shape[0] if shape else 1)]))
    points = (smooth(draw(generators()), shape),)
    return Problem(lambda x: mg.reshape(x, new), lambda x: np.reshape(x, new), points)


@st.composite
def broadcast_to_problem(draw):
    drawn = draw(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, min_side=1, max_side=3))
    points = (smooth(draw(generators()), drawn.input_shapes[0]),)
    shape = drawn.result_shape
    return Problem(lambda x: mg.broadcast_to(x, shape), lambda x: np.broadcast_to(x, shape), points)


@st.composite
def squeeze_problem(draw):
    shape = draw(shapes())
    ones = [axis for axis, size in enumerate(shape) if size == 1]
    axis = draw(st.sampled_from([None, tuple(ones), *ones, *(one - len(shape) for one in ones)]))
    points = (smooth(draw(generators()), shape),)
    return Problem(lambda x: mg.squeeze(x, axis), lambda x: np.squeeze(x, axis), points)


@st.composite
def expand_dims_problem(draw):
    shape = draw(shapes())
    axis = draw(st.integers(-len(shape) - 1, len(shape)) | st.just((0, -1)))
    points = (smooth(draw(generators()), shape),)
    return Problem(lambda x: mg.expand_dims(x, axis), lambda x: np.expand_dims(x, axis), points)


@st.composite
def concatenate_problem(draw):
    shape = draw(shapes(min_dims=1))
    axis = draw(axes_of(len(shape), several=False))
    rng = draw(generators())

    def with_length(length):
        resized = list(shape)
        resized[axis] = length
        return smooth(rng, tuple(resized))

    points = tuple(with_length(length) for length in draw(st.lists(st.integers(1, 3), min_size=1, max_size=3)))
    # the first operand is joined twice, so that it receives two gradients
    return Problem(
        lambda *xs: mg.concatenate([*xs, xs[0]], axis=axis), lambda *xs: np.concatenate([*xs, xs[0]], axis=axis), points
    )


@st.composite
def stack_problem(draw):
    shape = draw(shapes())
    axis = draw(st.integers(-len(shape) - 1, len(shape)))
    rng = draw(generators())
    points = tuple(smooth(rng, shape) for _ in range(draw(st.integers(1, 3))))
    return Problem(lambda *xs: mg.stack([*xs, xs[0]], axis=axis), lambda *xs: np.stack([*xs, xs[0]], axis), points)


@st.composite
def split_problem(draw):
    shape = draw(shapes(min_dims=1))
    axis = draw(axes_of(len(shape), several=False))
    cuts = draw(st.sampled_from([1, shape[axis], [1], [0, 1], [1, 2], [-1]]))

    def joined(x, split, concatenate):
        return concatenate([part * (i + 1) for i, part in enumerate(split(x, cuts, axis=axis))], axis=axis)

    points = (smooth(draw(generators()), shape),)
    return Problem(lambda x: joined(x, mg.split, mg.concatenate), lambda x: joined(x, np.split, np.concatenate), points)


@st.composite
def pad_problem(draw):
    shape = draw(shapes(min_dims=1))
    side = st.integers(0, 2)
    per_axis = st.lists(st.tuples(side, side), min_size=len(shape), max_size=len(shape)).map(tuple)
    width = draw(side | st.tuples(side, side) | per_axis)
    points = (smooth(draw(generators()), shape),)
    return Problem(
        lambda x: mg.pad(x, width, constant_values=0.5), lambda x: np.pad(x, width, constant_values=0.5), points
    )


@st.composite
def flip_problem(draw):
    shape = draw(shapes())
    axis = draw(axes_of(len(shape)))
    points = (smooth(draw(generators()), shape),)
    return Problem(lambda x: mg.flip(x, axis), lambda x: np.flip(x, axis), points)


def getitem_problem(indices):
    """`indices`: shape → strategy of indices into an array of that shape."""

    @st.composite
    def problem(draw):
        shape = draw(shapes(min_dims=1))
        index = draw(indices(shape))
        points = (smooth(draw(generators()), shape),)
        return Problem(lambda x: mg.getitem(x, index), lambda x: x[index], points)

    return problem()


def masks(shape):
    return generators().map(lambda rng: rng.random(shape) < 0.6)


def masks_of_first_axis(shape):
    return masks(shape[:1])


def repeated_with_slice(shape):
    return st.lists(st.integers(-shape[0], shape[0] - 1), min_size=1, max_size=4).map(lambda picks: (picks, ...))


def advanced(shape):
    return hnp.integer_array_indices(shape, result_shape=shapes(max_dims=2))


def basic(shape):
    return hnp.basic_indices(shape, allow_ellipsis=True, allow_newaxis=True)


@st.composite
def getitem_by_tensor_problem(draw):
    rng, shape = draw(generators()), draw(shapes(min_dims=1))
    rows = rng.integers(-shape[0], shape[0], draw(shapes(max_dims=2)))
    index, plain = mg.tensor(rows), rows
    if len(shape) > 1 and draw(st.booleans()):
        index, plain = (slice(None), mg.tensor(rows % shape[1])), (slice(None), rows % shape[1])
    return Problem(lambda x: x[index], lambda x: x[plain], (smooth(rng, shape),))


@st.composite
def lookup_problem(draw):
    rng = draw(generators())
    shape = draw(hnp.array_shapes(max_dims=3, max_side=4))
    index = rng.integers(0, shape[0], draw(hnp.array_shapes(min_dims=0, max_dims=2, max_side=4)))
    return Problem(lambda x: mg.lookup(x, index), lambda x: x[index], (smooth(rng, shape),))


@st.composite
def pick_problem(draw):
    rng = draw(generators())
    shape = draw(hnp.array_shapes(max_dims=3, max_side=4))
    index = rng.integers(0, shape[-1], shape[:-1])
    return Problem(
        lambda x: mg.pick(x, index),
        lambda x: np.take_along_axis(x, index[..., None], -1)[..., 0],
        (smooth(rng, shape),),
    )


@st.composite
def take_problem(draw):
    rng, shape = draw(generators()), draw(shapes(min_dims=1))
    axis = draw(st.none() | axes_of(len(shape), several=False))
    length = math.prod(shape) if axis is None else shape[axis]
    indices = rng.integers(-length, length, draw(shapes(max_dims=2)))
    return Problem(
        lambda x: mg.take(x, indices, axis=axis), lambda x: np.take(x, indices, axis=axis), (smooth(rng, shape),)
    )


@st.composite
def cumsum_problem(draw):
    shape = draw(shapes(min_dims=1))
    axis = draw(st.none() | axes_of(len(shape), several=False))
    points = (smooth(draw(generators()), shape),)
    return Problem(lambda x: mg.cumsum(x, axis), lambda x: np.cumsum(x, axis), points)


def softmax_in_numpy(x, axis):
    return np.exp(x) / np.sum(np.exp(x), axis=axis, keepdims=True)


def gelu_in_numpy(x):
    return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


CASES: dict[str, list[st.SearchStrategy[Problem]]] = {
    "absolute": [unary(mg.absolute, np.absolute, off_zero)],
    "add": [binary(mg.add, np.add)],
    "abs": [unary(mg.abs, np.abs)],
    "astype": [unary(lambda x: mg.astype(x, x.dtype), lambda x: x.astype(x.dtype))],
    "broadcast_to": [broadcast_to_problem()],
    "clip": [clip_problem()],
    "concatenate": [concatenate_problem()],
    "cos": [unary(mg.cos, np.cos)],
    "cumsum": [cumsum_problem()],
    "divide": [binary(mg.divide, np.divide, second=off_zero)],
    "einsum": [einsum_problem(subscripts) for subscripts in EINSUMS],
    "exp": [unary(mg.exp, np.exp)],
    "expand_dims": [expand_dims_problem()],
    "expm1": [unary(mg.expm1, np.expm1)],
    "flip": [flip_problem()],
    "gelu": [unary(mg.gelu, gelu_in_numpy)],
    "getitem": [
        *(getitem_problem(kind) for kind in (basic, advanced, masks, masks_of_first_axis, repeated_with_slice)),
        getitem_by_tensor_problem(),
    ],
    "log": [unary(mg.log, np.log, positive)],
    "log1p": [unary(mg.log1p, np.log1p, above_minus_one)],
    "log_softmax": [
        reduction(mg.log_softmax, lambda x, axis: np.log(softmax_in_numpy(x, axis)), keepdims=False),
    ],
    "lookup": [lookup_problem()],
    "logsumexp": [reduction(mg.logsumexp, lambda x, **setting: np.log(np.sum(np.exp(x), **setting)))],
    "matmul": [matmul_problem((left, right)) for left in range(1, 5) for right in range(1, 5)],
    "max": [reduction(mg.max, np.max, distinct)],
    "maximum": [binary(mg.maximum, np.maximum, on_grid, off_grid)],
    "mean": [reduction(mg.mean, np.mean)],
    "min": [reduction(mg.min, np.min, distinct)],
    "minimum": [binary(mg.minimum, np.minimum, on_grid, off_grid)],
    "multiply": [binary(mg.multiply, np.multiply)],
    "negative": [unary(mg.negative, np.negative)],
    "pad": [pad_problem()],
    "permute": [transpose_problem(mg.permute)],
    "pick": [pick_problem()],
    "positive": [unary(mg.positive, np.positive)],
    "power": [
        binary(mg.power, np.power, first=positive),
        *(unary(lambda x, n=n: x**n, lambda x, n=n: x**n, off_zero) for n in (-2, -1, 0, 1, 2, 3)),
    ],
    "prod": [reduction(mg.prod, np.prod, off_zero)],
    "relu": [unary(mg.relu, lambda x: np.maximum(x, 0), off_zero)],
    "reshape": [reshape_problem()],
    "sigmoid": [unary(mg.sigmoid, lambda x: 1 / (1 + np.exp(-x)))],
    "sin": [unary(mg.sin, np.sin)],
    "softmax": [reduction(mg.softmax, softmax_in_numpy, keepdims=False)],
    "softplus": [unary(mg.softplus, lambda x: np.log(1 + np.exp(x)))],
    "split": [split_problem()],
    "sqrt": [unary(mg.sqrt, np.sqrt, positive)],
    "square": [unary(mg.square, np.square)],
    "squeeze": [squeeze_problem()],
    "stack": [stack_problem()],
    "std": [spread_out(mg.std, np.std, ddof=0), spread_out(mg.std, np.std, ddof=1)],
    "subtract": [binary(mg.subtract, np.subtract)],
    "sum": [reduction(mg.sum, np.sum)],
    "swapaxes": [swapaxes_problem()],
    "take": [take_problem()],
    "tanh": [unary(mg.tanh, np.tanh)],
    "transpose": [transpose_problem()],
    "var": [spread_out(mg.var, np.var, ddof=0), spread_out(mg.var, np.var, ddof=1)],
    "where": [where_problem()],
}

WITHOUT_GRADIENT = {
    "equal": np.equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "logical_and": np.logical_and,
    "logical_not": np.logical_not,
    "logical_or": np.logical_or,
    "not_equal": np.not_equal,
    "sign": np.sign,
}

RECORDED_AS = {
    "abs": "absolute",
    "astype": "to_floats",
    "clip": "clip_between",
    "permute": "transpose",
    "split": "getitem",
}

each_case = pytest.mark.parametrize(
    "problems",
    [
        pytest.param(problems, id=f"{name}-{i}" if len(CASES[name]) > 1 else name)
        for name in CASES
        for i, problems in enumerate(CASES[name])
    ],
)


def weighted(problem, weights):
    """The operation followed by a fixed linear map to a scalar."""
    return lambda *xs: mg.sum(problem.on_tensors(*xs) * weights)


def bent(problem, weights):
    """The operation followed by a curved map to a scalar, so that even a linear operation's rule is differentiated."""
    return lambda *xs: mg.sum(mg.log1p(mg.square(problem.on_tensors(*xs))) * weights)


def every(points):
    return tuple(range(len(points)))


def assert_agree(found, expected, rtol=1e-6):
    """Relative to the largest entry: an entry that cancels to 0 has no relative accuracy of its own."""
    assert np.shape(found) == np.shape(expected)
    scale = max(1.0, float(np.max(np.abs(expected), initial=0.0)))
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=0.1 * rtol * scale)


# --- completeness ----------------------------------------------------------------------------------


def test_every_declared_primitive_is_in_the_table():
    declared = {name for name in mg.__all__ if hasattr(getattr(mg, name), "primitive")} - {"Tensor"}
    declared = {name for name in declared if isinstance(getattr(mg, name).primitive, mg.Primitive)}
    assert {"tanh", "max", "where", "take", "stack"} <= declared
    missing = declared - CASES.keys() - WITHOUT_GRADIENT.keys()
    assert not missing, f"add a case for {sorted(missing)}"


def test_differentiable_primitives_are_not_excused_from_the_gradient_checks():
    assert [name for name in WITHOUT_GRADIENT if getattr(mg, name).primitive.differentiable] == []


@pytest.mark.parametrize("name", CASES)
def test_a_case_records_the_primitive_it_stands_for(name):
    @settings(FEW, max_examples=1)
    @given(st.data())
    def check(data):
        for problems in CASES[name]:
            problem = data.draw(problems)
            stack, seen = [problem.on_tensors(*map(mg.tensor, problem.points))], set()
            while stack:
                node = stack.pop()
                stack.extend(node.operands)
                seen.add(node.primitive.name if node.primitive else None)
            assert RECORDED_AS.get(name, name) in seen

    check()


# --- values and gradients --------------------------------------------------------------------------


@each_case
@FEW
@given(data=st.data())
def test_value_has_the_numbers_shape_and_dtype_of_numpy(problems, data):
    problem = data.draw(problems)
    for dtype in (np.float64, np.float32):
        points = [point.astype(dtype) for point in problem.points]
        expected = problem.on_arrays(*points)
        found = problem.on_tensors(*map(mg.tensor, points))
        assert found.shape == np.shape(expected)
        assert found.dtype == expected.dtype == dtype
        np.testing.assert_allclose(found.value, expected, rtol=16 * np.finfo(dtype).eps, atol=8 * np.finfo(dtype).eps)


@each_case
@FEW
@given(data=st.data())
def test_gradient_agrees_with_check_gradients(problems, data):
    problem = data.draw(problems)
    assert mg.check_gradients(problem.on_tensors, *problem.points) < 1e-6


@each_case
@FEW
@given(data=st.data(), rng=generators())
def test_backward_agrees_with_central_differences_of_the_numpy_function(problems, data, rng):
    """Independent of check_gradients: the NumPy function is differenced, and a random cotangent seeds backward."""
    problem = data.draw(problems)
    seed = rng.normal(size=np.shape(problem.on_arrays(*problem.points)))
    leaves = [mg.tensor(point) for point in problem.points]
    problem.on_tensors(*leaves).backward(seed)
    for number, leaf in enumerate(leaves):
        expected = np.zeros_like(problem.points[number])
        for entry in np.ndindex(expected.shape):
            sides = []
            for h in (6e-6, -6e-6):
                moved = [point.copy() for point in problem.points]
                moved[number][entry] += h
                sides.append(np.sum(seed * problem.on_arrays(*moved)))
            expected[entry] = (sides[0] - sides[1]) / 12e-6
        found = np.zeros_like(expected) if leaf.grad is None else leaf.grad
        assert_agree(found, expected)


@each_case
@FEW
@given(data=st.data(), rng=generators())
def test_gradient_has_the_shape_and_dtype_of_the_value(problems, data, rng):
    problem = data.draw(problems)
    seed = np.asarray(rng.normal(size=np.shape(problem.on_arrays(*problem.points))))
    precise = [mg.tensor(point) for point in problem.points]
    problem.on_tensors(*precise).backward(seed)
    coarse = [mg.tensor(point.astype(np.float32)) for point in problem.points]
    problem.on_tensors(*coarse).backward(seed.astype(np.float32))
    for leaf, reference in zip(coarse, precise, strict=True):
        if reference.grad is None:
            assert leaf.grad is None
            continue
        for node in (leaf, reference):
            assert node.grad.dtype == node.value.dtype
            assert node.grad.shape == node.value.shape
        assert_agree(leaf.grad, reference.grad, rtol=2e-3)


@each_case
@FEW
@given(data=st.data(), rng=generators())
def test_second_derivative_agrees_with_differences_of_the_gradient(problems, data, rng):
    """The Hessian times a random direction, recorded, against the gradient differenced along that direction."""
    problem = data.draw(problems)
    points, argnums = problem.points, every(problem.points)
    scalar = bent(problem, rng.uniform(0.5, 1.5, np.shape(problem.on_arrays(*points))))
    direction = [np.asarray(rng.uniform(-1, 1, point.shape)) for point in points]
    gradient = mg.grad(scalar, argnums)

    def slope(*xs):
        return sum(mg.sum(g * d) for g, d in zip(gradient(*xs), direction, strict=True))

    def moved(h):
        return gradient(*(np.asarray(point + h * d) for point, d in zip(points, direction, strict=True)))

    found = mg.grad(slope, argnums)(*points)
    h = 3e-4
    for one, *sides in zip(found, moved(h), moved(-h), moved(2 * h), moved(-2 * h), strict=True):
        near_right, near_left, far_right, far_left = sides
        assert_agree(one, (8 * (near_right - near_left) - (far_right - far_left)) / (12 * h))


@each_case
@settings(FEW, max_examples=2)
@given(data=st.data())
def test_recorded_gradient_equals_the_computed_one_and_keeps_its_dtype(problems, data):
    problem = data.draw(problems)
    for dtype in (np.float64, np.float32):
        points = [point.astype(dtype) for point in problem.points]
        scalar = weighted(problem, np.float32(0.5))
        recorded = mg.grad(scalar, every(points))(*map(mg.tensor, points))
        computed = mg.grad(scalar, every(points))(*points)
        for one, other, point in zip(recorded, computed, points, strict=True):
            assert isinstance(one, mg.Tensor)
            assert one.shape == np.shape(other) == point.shape
            np.testing.assert_allclose(one.value, other, rtol=32 * np.finfo(dtype).eps, atol=4 * np.finfo(dtype).eps)
            assert one.dtype == np.asarray(other).dtype == dtype


@pytest.mark.parametrize("name", ["tanh", "multiply", "power", "matmul", "prod", "softmax", "getitem"])
def test_check_gradients_reaches_the_second_derivative(name):
    @settings(FEW, max_examples=2)
    @given(st.data())
    def check(data):
        problem = data.draw(CASES[name][0])
        shape = np.shape(problem.on_arrays(*problem.points))
        scalar = bent(problem, np.linspace(0.5, 1.5, math.prod(shape)).reshape(shape))
        for argnum in every(problem.points):
            assert mg.check_gradients(mg.grad(scalar, argnum), *problem.points) < 1e-6

    check()


@pytest.mark.parametrize("name", ["tanh", "square", "logsumexp", "std", "matmul"])
def test_hessian_by_jacobian_over_grad_is_symmetric_and_differences_the_gradient(name):
    functions = {
        "tanh": lambda x: mg.sum(mg.tanh(x) * np.array([1.0, 2.0, 3.0])),
        "square": lambda x: mg.sum(mg.square(x)) ** 2,
        "logsumexp": mg.logsumexp,
        "std": mg.std,
        "matmul": lambda x: (x @ np.arange(9.0).reshape(3, 3) @ x) ** 2,
    }
    gradient = mg.grad(functions[name])
    x = np.array([0.3, -0.7, 1.1])
    hessian = mg.jacobian(gradient)(x)
    columns = [(gradient(x + step) - gradient(x - step)) / 2e-5 for step in 1e-5 * np.eye(3)]
    np.testing.assert_allclose(hessian, np.stack(columns, axis=1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(hessian, hessian.T, rtol=1e-12, atol=1e-12)


def test_third_derivatives_follow_closed_forms():
    def third(f):
        return mg.grad(mg.grad(mg.grad(f)))

    assert third(mg.exp)(0.7) == pytest.approx(math.exp(0.7))
    assert third(mg.sin)(0.7) == pytest.approx(-math.cos(0.7))
    assert third(mg.log)(0.7) == pytest.approx(2 / 0.7**3)
    assert third(lambda x: x**5)(0.7) == pytest.approx(60 * 0.7**2)
    t = math.tanh(0.7)
    assert third(mg.tanh)(0.7) == pytest.approx((6 * t * t - 2) * (1 - t * t))


# --- operations without gradient -------------------------------------------------------------------


@pytest.mark.parametrize("name", WITHOUT_GRADIENT)
@given(data=st.data(), rng=generators())
@FEW
def test_operations_without_gradient_agree_with_numpy_and_need_none(name, data, rng):
    on_arrays = WITHOUT_GRADIENT[name]
    drawn = data.draw(hnp.mutually_broadcastable_shapes(num_shapes=on_arrays.nin, max_dims=3, min_side=1, max_side=3))
    points = [np.asarray(rng.integers(-1, 2, shape).astype(float)) for shape in drawn.input_shapes]
    found = getattr(mg, name)(*map(mg.tensor, points))
    np.testing.assert_array_equal(found.value, on_arrays(*points))
    assert found.dtype == on_arrays(*points).dtype
    assert found.shape == drawn.result_shape
    assert not found.requires_grad


def test_comparison_blocks_the_gradient_but_not_its_neighbour():
    x = mg.tensor([-1.0, 2.0, 3.0])
    mg.sum((x > 0) * x * mg.sign(x)).backward()
    assert x.grad.tolist() == [0.0, 1.0, 1.0]


# --- Python numbers --------------------------------------------------------------------------------

ON_ONE_NUMBER = (
    *("absolute", "cos", "exp", "expm1", "gelu", "log", "log1p", "negative", "positive", "relu", "sigmoid"),
    *("sign", "sin", "softplus", "sqrt", "square", "tanh"),
)
ON_TWO_NUMBERS = ("add", "divide", "maximum", "minimum", "multiply", "power", "subtract")


def value_and_gradients(f, numbers, leaf):
    """The value, and the gradient by each number; 0 where nothing flows."""
    leaves = [leaf(number) for number in numbers]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)
        out = f(*leaves)
        if out.requires_grad:
            out.backward()
    return [out.value, *(0.0 if one.grad is None else one.grad for one in leaves)]


def of_array(number):
    return mg.tensor(np.array(number))


@pytest.mark.parametrize("name", ON_ONE_NUMBER)
@pytest.mark.parametrize("number", [0.6, 2.0, 0.0, -0.0, -0.9, -3.0, 800.0, -800.0, math.inf, -math.inf, math.nan])
def test_function_of_a_python_float_equals_that_of_an_array(name, number):
    f = getattr(mg, name)
    on_number = value_and_gradients(f, [number], mg.tensor)
    np.testing.assert_allclose(on_number, value_and_gradients(f, [number], of_array), rtol=1e-14)


@pytest.mark.parametrize("name", ON_TWO_NUMBERS)
@pytest.mark.parametrize(
    "numbers",
    [
        *((0.6, 1.7), (2.0, 2.0), (-0.9, 3.0), (0.0, 2.0), (3.0, 0.0), (0.0, 0.0)),
        *((math.nan, 1.0), (1.0, math.nan), (math.inf, 2.0), (2.0, -math.inf), (-8.0, 0.5), (1e200, 3.0)),
        *((5, 2.0), (-1.0, 0), (2.0, 3)),
    ],
    ids=str,
)
def test_function_of_two_python_numbers_equals_that_of_arrays(name, numbers):
    f = getattr(mg, name)
    on_numbers = value_and_gradients(f, numbers, mg.tensor)
    np.testing.assert_allclose(on_numbers, value_and_gradients(f, numbers, of_array), rtol=1e-14)


@pytest.mark.parametrize("name", [*ON_ONE_NUMBER, *ON_TWO_NUMBERS])
def test_a_python_float_stays_one_through_values_and_gradients(name):
    numbers = [0.6] if name in ON_ONE_NUMBER else [0.6, 1.7]
    found = value_and_gradients(getattr(mg, name), numbers, mg.tensor)
    assert [type(one) for one in found] == [float] * len(found)


@pytest.mark.parametrize(
    "f", [lambda x: mg.clip(x, 0.0, 2.0), lambda x: mg.where(x > 0, x, 0.0)], ids=["clip", "where"]
)
def test_choice_among_python_floats_stays_a_python_float(f):
    assert [type(one) for one in value_and_gradients(f, [0.6], mg.tensor)] == [float, float]


# --- conventions where no derivative exists --------------------------------------------------------


@pytest.mark.parametrize("leaf", [mg.tensor, of_array], ids=["number", "array"])
def test_subgradients_at_kinks_follow_the_docstrings(leaf):
    def gradients(f, *numbers):
        return [float(one) for one in value_and_gradients(f, numbers, leaf)[1:]]

    assert gradients(mg.relu, 0.0) == [0.0]
    assert gradients(mg.absolute, 0.0) == [0.0]
    assert gradients(mg.maximum, 2.0, 2.0) == [0.5, 0.5]
    assert gradients(mg.minimum, 2.0, 2.0) == [0.5, 0.5]
    assert gradients(lambda x: mg.clip(x, -1.0, 1.0), 1.0) == [1.0]
    assert gradients(lambda x: mg.clip(x, -1.0, 1.0), -1.0) == [1.0]
    assert gradients(lambda x: mg.clip(x, -1.0, 1.0), 1.5) == [0.0]
    assert gradients(mg.power, -2.0, 3.0) == [12.0, 0.0]
    assert gradients(mg.sqrt, 0.0) == [math.inf]


def test_docstrings_state_the_conventions_at_kinks():
    stated = {
        mg.relu: "subgradient at 0 is taken as 0",
        mg.absolute: "subgradient at 0 is taken as 0",
        mg.maximum: "each gets half of the gradient",
        mg.minimum: "each gets half of the gradient",
        mg.max: "elements that tie share the gradient equally",
        mg.min: "elements that tie share the gradient equally",
        mg.clip: "inside the bounds or on them",
        mg.power: "taken as 0",
    }
    for function, words in stated.items():
        assert words in " ".join((function.__doc__ or "").split()), function.__name__


def test_power_gives_its_exponent_no_gradient_where_the_base_is_not_positive():
    base, exponent = mg.tensor([0.0, 0.0, -2.0]), mg.tensor([2.0, -1.0, 3.0])
    with pytest.warns(RuntimeWarning):  # 0 ** -1
        mg.sum(base**exponent).backward()
    assert exponent.grad.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("extreme", [mg.max, mg.min])
def test_tied_extremes_share_the_gradient_equally(extreme):
    x = mg.tensor([[2.0, 2.0, 2.0, 2.0], [1.0, 1.0, 1.0, 1.0]])
    extreme(x, axis=1).backward(np.array([1.0, 4.0]))
    assert x.grad.tolist() == [[0.25] * 4, [1.0] * 4]


def test_clip_between_tensors_gives_the_bounds_no_gradient():
    x, low = mg.tensor([-2.0, 0.5]), mg.tensor(0.0)
    mg.sum(mg.clip(x, low, None)).backward()
    assert x.grad.tolist() == [0.0, 1.0]
    assert low.grad is None


def test_clip_without_bounds_is_refused():
    with pytest.raises(mg.MicrogridError):
        mg.clip(mg.tensor(1.0))


@pytest.mark.parametrize("n", [0, 1, 2])
def test_power_at_base_zero_has_finite_first_and_second_derivatives(n):
    def f(x):
        return mg.sum(x**n)

    x = np.array([0.0, 1.5])
    np.testing.assert_allclose(mg.grad(f)(x), n * x ** max(n - 1, 0))
    np.testing.assert_allclose(mg.jacobian(mg.grad(f))(x), np.diag([n * (n - 1.0)] * 2))


def test_mixed_second_derivative_of_power_at_exponent_zero():
    """∂²(x^y)/∂x∂y = x^(y−1) (1 + y log x), which is 1/x at y = 0."""

    def by_base(y):
        return mg.grad(mg.power)(mg.tensor(3.0), y)

    assert mg.grad(by_base)(0.0) == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    "x", [[2.0, 3.0, 4.0], [0.0, 3.0, 4.0], [2.0, 0.0, 4.0], [0.0, 0.0, 4.0]], ids=["none", "first", "second", "two"]
)
def test_prod_has_an_exact_gradient_with_zeros(x):
    x = np.array(x)
    expected = [x[1] * x[2], x[0] * x[2], x[0] * x[1]]
    np.testing.assert_allclose(mg.grad(mg.prod)(x), expected)


@pytest.mark.parametrize("x", [[2.0, 3.0, 4.0], [0.0, 3.0, 4.0], [2.0, 0.0, 4.0]], ids=["none", "first", "second"])
def test_prod_has_an_exact_hessian_with_at_most_one_zero(x):
    a, b, c = x
    np.testing.assert_allclose(mg.jacobian(mg.grad(mg.prod))(np.array(x)), [[0, c, b], [c, 0, a], [b, a, 0]])


# --- numbers far out -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_saturating_functions_neither_overflow_nor_lose_their_limits(dtype):
    x = np.array([-1e4, -200.0, 0.0, 200.0, 1e4], dtype)
    np.testing.assert_allclose(mg.sigmoid(x).value, [0, 0, 0.5, 1, 1], atol=1e-38)
    np.testing.assert_allclose(mg.softplus(x).value, [0, 0, math.log(2), 200, 1e4], rtol=1e-6, atol=1e-38)
    np.testing.assert_allclose(mg.grad(lambda z: mg.sum(mg.softplus(z)))(x), [0, 0, 0.5, 1, 1], atol=1e-38)
    np.testing.assert_allclose(mg.softmax(x).value, [0, 0, 0, 0, 1])
    np.testing.assert_allclose(mg.log_softmax(x).value, x - x[-1])
    assert float(mg.logsumexp(x)) == 1e4


def test_masked_entries_of_minus_infinity_get_no_weight_and_no_gradient():
    x = np.array([0.0, -np.inf, 1.0])
    e = math.e
    np.testing.assert_allclose(mg.softmax(x).value, [1 / (1 + e), 0, e / (1 + e)])
    assert float(mg.logsumexp(x)) == pytest.approx(math.log(1 + e))
    np.testing.assert_allclose(mg.grad(mg.logsumexp)(x), [1 / (1 + e), 0, e / (1 + e)])


# --- shapes at the edge ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "right"), [((2, 0), (0, 3)), ((2, 3, 0), (0, 4)), ((2, 3, 4), (4, 0)), ((0, 3, 4), (4, 2)), ((0,), (0,))]
)
def test_matmul_over_empty_axes_has_zero_gradients(left, right):
    x, y = mg.tensor(np.ones(left)), mg.tensor(np.ones(right))
    out = x @ y
    out.backward(np.ones(out.shape))
    assert np.array_equal(out.value, np.ones(left) @ np.ones(right))
    assert np.array_equal(x.grad, np.zeros(left))
    assert np.array_equal(y.grad, np.zeros(right))


def test_sums_over_empty_arrays_have_empty_gradients():
    x = mg.tensor(np.zeros((0, 3)))
    mg.sum(mg.exp(x) * mg.tensor(np.ones(3))).backward()
    assert x.grad.shape == (0, 3)


def test_einsum_takes_a_python_number_that_needs_a_gradient():
    scale, x = mg.tensor(2.0), mg.tensor([1.0, 3.0])
    mg.sum(mg.einsum(",i->i", scale, x)).backward()
    assert scale.grad == 4.0
    assert x.grad.tolist() == [2.0, 2.0]


def test_einsum_stretches_axes_of_size_one_as_numpy_does():
    x, y = np.array([[1.0], [2.0]]), np.arange(6.0).reshape(3, 2)
    np.testing.assert_allclose(mg.einsum("ij,jk->ik", x, y).value, np.einsum("ij,jk->ik", x, y))
    assert mg.check_gradients(lambda a, b: mg.einsum("ij,jk->ik", a, b), x, y) < 1e-6


def test_concatenate_with_axis_none_flattens_and_gives_gradients_back():
    x, y = np.arange(4.0).reshape(2, 2), np.arange(3.0)

    def joined(a, b):
        return mg.concatenate([a, b], axis=None) * np.arange(7.0)

    np.testing.assert_allclose(joined(x, y).value, np.concatenate([x, y], axis=None) * np.arange(7.0))
    assert mg.check_gradients(joined, x, y) < 1e-6


def test_an_element_read_several_times_gets_every_gradient():
    x = mg.tensor([1.0, 2.0, 3.0])
    x[np.array([[0, 0], [2, 0]])].backward(np.array([[1.0, 10.0], [100.0, 1000.0]]))
    assert x.grad.tolist() == [1011.0, 0.0, 100.0]


# --- what a primitive refuses ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda: mg.tensor(np.ones((2, 3))) + np.ones((2, 4)), ValueError),
        (lambda: mg.tensor(np.ones((2, 3))) @ np.ones((2, 3)), ValueError),
        (lambda: mg.matmul(mg.tensor(np.array(2.0)), np.ones(3)), ValueError),
        (lambda: mg.matmul(mg.tensor(2.0), 3.0), ValueError),
        (lambda: mg.reshape(mg.tensor(np.ones(3)), (2, 2)), ValueError),
        (lambda: mg.reshape(mg.tensor(2.0), (3,)), ValueError),
        (lambda: mg.sum(mg.tensor(np.ones(3)), axis=3), IndexError),
        (lambda: mg.sum(mg.tensor(2.0), axis=3), IndexError),
        (lambda: mg.concatenate([mg.tensor(1.0), 2.0]), ValueError),
        (lambda: mg.stack([mg.tensor(1.0), 2.0], axis=5), IndexError),
        (lambda: mg.concatenate([np.ones(2), np.ones((2, 2))]), ValueError),
        (lambda: mg.split(mg.tensor(np.ones(3)), 2), ValueError),
        (lambda: mg.tensor(np.ones(3))[5], IndexError),
        (lambda: mg.take(mg.tensor(np.ones(3)), 7), IndexError),
        (lambda: mg.einsum("ij,jk->ik", np.ones((2, 3)), np.ones((2, 3))), ValueError),
        (lambda: mg.einsum("ij->i", np.ones(3)), ValueError),
        (lambda: mg.pad(mg.tensor(np.ones(3)), 1, mode="edge"), ValueError),
        (lambda: mg.tensor(np.ones(3)) + "one", TypeError),
        (lambda: mg.tensor(np.ones(3)) * 1j, TypeError),
    ],
)
def test_what_cannot_be_computed_is_refused_with_an_error_of_the_house(call, kind):
    with pytest.raises(mg.MicrogridError) as caught:
        call()
    assert isinstance(caught.value, kind)


def test_shape_errors_name_the_operation_the_operand_and_both_shapes():
    weights = mg.parameter(np.ones((2, 3)), name="weights")
    with pytest.raises(mg.MicrogridError, match=r"matmul\('weights' \(2, 3\).*\(2, 5\)"):
        weights @ np.ones((2, 5))


def test_astype_brings_the_gradient_back_in_the_dtype_of_its_operand():
    x = mg.tensor(np.ones(3, np.float32))
    y = mg.astype(x, np.float64)
    assert y.dtype == np.float64
    mg.sum(y * np.arange(3.0)).backward()
    assert x.grad.dtype == np.float32
    np.testing.assert_array_equal(x.grad, [0, 1, 2])
