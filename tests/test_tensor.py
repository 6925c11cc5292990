"""Tensor as NumPy and Python users meet it: operators, methods, dtypes, names, recording, gradients on leaves."""

import copy
import math
import operator
import pickle
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import microgrid as mg

X = np.array([[0.5, -1.5, 2.0], [3.0, 0.25, -0.75]])
Y = np.array([[1.5, 0.5, -2.0]])


# --- operators and methods -------------------------------------------------------------------------

BINARY = (
    *(operator.add, operator.sub, operator.mul, operator.truediv),
    *(operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne),
)


@pytest.mark.parametrize("op", BINARY, ids=lambda op: op.__name__)
@pytest.mark.parametrize("other", [Y, 2.0, 3, np.float64(1.5), [1.0, 2.0, 4.0]], ids=lambda other: type(other).__name__)
def test_operator_equals_numpys_with_the_tensor_on_either_side(op, other):
    plain = np.asarray(other)
    for found, expected in (
        (op(mg.tensor(X), other), op(X, plain)),
        (op(other, mg.tensor(X)), op(plain, X)),
        (op(mg.tensor(X), mg.tensor(other)), op(X, plain)),
    ):
        assert isinstance(found, mg.Tensor)
        np.testing.assert_array_equal(found.value, expected)
        assert found.dtype == expected.dtype


@pytest.mark.parametrize("exponent", [2, 3.0, -1, np.array([1.0, 2.0, 3.0]), np.int64(2)])
def test_power_operator_equals_numpys_on_either_side(exponent):
    base = np.abs(X)
    np.testing.assert_allclose((mg.tensor(base) ** exponent).value, base ** np.asarray(exponent, float))
    np.testing.assert_allclose((2.0 ** mg.tensor(X)).value, 2.0**X)
    np.testing.assert_allclose((np.array([1.0, 2.0, 3.0]) ** mg.tensor(X)).value, np.array([1.0, 2.0, 3.0]) ** X)


@pytest.mark.parametrize("op", [operator.neg, operator.pos, abs], ids=lambda op: op.__name__)
def test_unary_operator_equals_numpys(op):
    np.testing.assert_array_equal(op(mg.tensor(X)).value, op(X))


def test_matmul_operator_records_with_an_array_on_either_side():
    w = mg.tensor(X)
    (Y @ w.T).backward(np.array([[1.0, 10.0]]))
    np.testing.assert_allclose(w.grad, np.outer([1.0, 10.0], Y))
    w.zero_grad()
    (w @ Y.T).backward(np.array([[1.0], [10.0]]))
    np.testing.assert_allclose(w.grad, np.outer([1.0, 10.0], Y))


@pytest.mark.parametrize("op", [operator.and_, operator.or_], ids=lambda op: op.__name__)
def test_logic_operators_combine_comparisons(op):
    t = mg.tensor(X)
    np.testing.assert_array_equal(op(t > 0, t < 1).value, op(X > 0, X < 1))
    np.testing.assert_array_equal(op(X > 0, t < 1).value, op(X > 0, X < 1))
    np.testing.assert_array_equal((~(t > 0)).value, ~(X > 0))


@pytest.mark.parametrize("op", [operator.sub, operator.truediv, operator.pow], ids=lambda op: op.__name__)
def test_reflected_operator_differentiates_by_its_right_side(op):
    assert mg.check_gradients(lambda t: op(2.0, t), np.abs(X)) < 1e-6
    assert mg.check_gradients(lambda t: op(np.abs(Y), t), np.abs(X)) < 1e-6


@pytest.mark.parametrize(
    ("call", "in_numpy"),
    [
        (lambda t: t.exp(), np.exp),
        (lambda t: t.square(), np.square),
        (lambda t: t.abs(), np.abs),
        (lambda t: t.abs().log(), lambda x: np.log(np.abs(x))),
        (lambda t: t.abs().sqrt(), lambda x: np.sqrt(np.abs(x))),
        (lambda t: t.tanh(), np.tanh),
        (lambda t: t.sigmoid(), lambda x: 1 / (1 + np.exp(-x))),
        (lambda t: t.relu(), lambda x: np.maximum(x, 0)),
        (lambda t: t.clip(-1, 1), lambda x: np.clip(x, -1, 1)),
        (lambda t: t.clip(max=1), lambda x: np.minimum(x, 1)),
        (lambda t: t.sum(), np.sum),
        (lambda t: t.sum(axis=0), lambda x: np.sum(x, axis=0)),
        (lambda t: t.sum(1, True), lambda x: np.sum(x, 1, keepdims=True)),
        (lambda t: t.mean(axis=1, keepdims=True), lambda x: np.mean(x, axis=1, keepdims=True)),
        (lambda t: t.max(axis=0), lambda x: np.max(x, axis=0)),
        (lambda t: t.min(axis=(0, 1)), lambda x: np.min(x, axis=(0, 1))),
        (lambda t: t.var(axis=1, ddof=1), lambda x: np.var(x, axis=1, ddof=1)),
        (lambda t: t.std(axis=0), lambda x: np.std(x, axis=0)),
        (lambda t: t.prod(axis=0), lambda x: np.prod(x, axis=0)),
        (lambda t: t.cumsum(axis=1), lambda x: np.cumsum(x, axis=1)),
        (lambda t: t.softmax(axis=0), lambda x: np.exp(x) / np.exp(x).sum(0)),
        (lambda t: t.log_softmax(), lambda x: x - np.log(np.exp(x).sum(-1, keepdims=True))),
        (lambda t: t.reshape(3, 2), lambda x: x.reshape(3, 2)),
        (lambda t: t.reshape((6,)), lambda x: x.reshape(6)),
        (lambda t: t.reshape(-1), lambda x: x.reshape(-1)),
        (lambda t: t.transpose(), lambda x: x.T),
        (lambda t: t.transpose(1, 0), lambda x: x.T),
        (lambda t: t.transpose((0, 1)), lambda x: x),
        (lambda t: t.permute(1, 0), lambda x: x.T),
        (lambda t: t.swapaxes(0, 1), lambda x: x.T),
        (lambda t: t[:, :1].squeeze(1), lambda x: x[:, 0]),
        (lambda t: t.flatten(), np.ravel),
        (lambda t: t.T, np.transpose),
    ],
)
def test_method_equals_numpy_and_records(call, in_numpy):
    t = mg.tensor(X)
    found = call(t)
    np.testing.assert_allclose(found.value, in_numpy(X), rtol=1e-14)
    assert found.shape == np.shape(in_numpy(X))
    assert mg.check_gradients(call, X) < 1e-6


def test_a_tensor_tells_what_an_array_tells():
    t = mg.tensor(X)
    assert (t.shape, t.ndim, t.size, t.dtype, len(t)) == ((2, 3), 2, 6, np.float64, 2)
    assert [row.value.tolist() for row in t] == X.tolist()
    s = mg.tensor(2.5)
    assert (s.shape, s.ndim, s.size, s.dtype, s.item(), float(s), int(s)) == ((), 0, 1, np.float64, 2.5, 2.5, 2)
    assert bool(mg.tensor(0.0)) is False
    copy = t.numpy()
    copy[:] = 0
    np.testing.assert_array_equal(t.value, X)


def test_iteration_records_so_that_each_element_gets_its_gradient():
    t = mg.tensor([1.0, 2.0, 3.0])
    a, b, c = t
    (a * b + c).backward()
    assert t.grad.tolist() == [2.0, 1.0, 1.0]


def test_truth_and_length_are_refused_where_arrays_refuse_them():
    with pytest.raises(TypeError, match=r"'x'.*6 elements"):
        bool(mg.tensor(X, name="x"))
    with pytest.raises(TypeError, match="scalar"):
        len(mg.tensor(1.0))
    with pytest.raises(TypeError, match="scalar"):
        list(mg.tensor(1.0))


# --- NumPy functions on Tensors --------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        np.tanh,
        np.exp,
        np.square,
        np.sin,
        np.sign,
        np.abs,
        np.sum,
        np.prod,
        np.transpose,
        np.squeeze,
        np.flip,
        np.cumsum,
        lambda x: np.sqrt(np.absolute(x)),
        lambda x: np.add(x, Y),
        lambda x: np.subtract(Y, x),
        lambda x: np.multiply(2.0, x),
        lambda x: np.divide(x, Y),
        lambda x: np.power(np.abs(x), 1.5),
        lambda x: np.maximum(x, 0.1),
        lambda x: np.minimum(Y, x),
        lambda x: np.where(x > 0, x, 0.5 * x),
        lambda x: np.clip(x, -1.0, 1.0),
        lambda x: np.matmul(Y, np.transpose(x)),
        lambda x: np.einsum("ij,kj->ik", x, Y),
        lambda x: np.sum(x, axis=0, keepdims=True),
        lambda x: np.mean(x, axis=-1),
        lambda x: np.max(x, axis=0),
        lambda x: np.min(x, 1),
        lambda x: np.var(x, axis=1, ddof=1),
        lambda x: np.std(x, axis=1),
        lambda x: np.reshape(x, (3, 2)),
        lambda x: np.swapaxes(x, 0, 1),
        lambda x: np.expand_dims(x, 1),
        lambda x: np.broadcast_to(x, (2, 2, 3)),
        lambda x: np.concatenate([x, Y], axis=0),
        lambda x: np.concatenate((Y, x, x)),
        lambda x: np.stack([x, X], axis=1),
        lambda x: np.split(x, [1], axis=1)[1],
        lambda x: np.pad(x, ((0, 1), (2, 0))),
        lambda x: np.take(x, [0, 0, 2], axis=1),
        lambda x: Y @ x.T,
        lambda x: np.float64(2) * x,
        lambda x: x - np.float64(2),
        lambda x: Y / x,
        lambda x: np.greater(Y, x),
    ],
)
def test_numpy_function_on_a_tensor_records_and_agrees(call):
    expected = np.asarray(call(X))
    found = call(mg.tensor(X))
    assert isinstance(found, mg.Tensor)
    assert found.primitive is not None
    np.testing.assert_allclose(found.value, expected, rtol=1e-14)
    assert found.dtype == expected.dtype
    if found.requires_grad:
        assert mg.check_gradients(call, X) < 1e-6


@pytest.mark.parametrize("ask", [np.shape, np.ndim, np.size, np.argmax, np.zeros_like, np.isfinite])
def test_numpy_question_about_a_tensor_is_answered_for_its_value(ask):
    answer = ask(mg.tensor(X))
    np.testing.assert_array_equal(answer, ask(X))
    assert not isinstance(answer, mg.Tensor)


@pytest.mark.parametrize(
    ("call", "asked", "nearest"),
    [
        (lambda t: np.dot(t, t), "dot", "matmul"),
        (lambda t: np.vstack([t, t]), "vstack", "concatenate"),
        (np.ravel, "ravel", "reshape"),
        (np.amax, "amax", "max"),
        (np.add.reduce, "add.reduce", "sum"),
        (lambda t: np.tensordot(t, t), "tensordot", "einsum"),
        (np.log2, "log2", "log"),
        (np.nansum, "nansum", "sum"),
    ],
)
def test_unsupported_numpy_function_names_the_nearest_one(call, asked, nearest):
    with pytest.raises(TypeError, match=rf"np\.{asked} .*nearest is {nearest}\b") as caught:
        call(mg.tensor(X))
    assert isinstance(caught.value, mg.MicrogridError)


def test_unsupported_numpy_function_without_a_near_one_says_where_to_look():
    with pytest.raises(TypeError, match=r"np\.fft .*dir\(microgrid\)"):
        np.fft.fft(mg.tensor(X))


def test_making_an_array_of_a_tensor_is_refused_and_says_what_to_use():
    t = mg.tensor(X, name="x")
    for make in (np.asarray, np.array, lambda u: np.asarray([u, u]), lambda u: mg.tensor([u[0], u[1]])):
        with pytest.raises(TypeError, match=r"\.value|mg\.stack"):
            make(t)


# --- nothing recorded ever changes -----------------------------------------------------------------


@pytest.mark.parametrize("op", [operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.ipow])
def test_in_place_operator_makes_a_new_tensor_and_leaves_the_old_one_alone(op):
    first = mg.tensor(np.abs(X))
    y = op(first, 2.0)
    assert y is not first
    np.testing.assert_array_equal(first.value, np.abs(X))
    assert first.primitive is None
    assert y.operands[0] is first


def test_in_place_loop_differentiates_like_the_written_out_expression():
    x = mg.tensor(3.0)
    y = x
    for _ in range(3):
        y *= x
    y += 1
    y.backward()
    assert y.value == 82.0
    assert x.grad == 4 * 27.0


def test_in_place_into_an_array_is_refused_and_leaves_the_array_alone():
    array = X.copy()
    with pytest.raises(TypeError, match="array = array"):
        array += mg.tensor(Y)
    with pytest.raises(TypeError):
        np.add(X, mg.tensor(Y), out=array)
    np.testing.assert_array_equal(array, X)


def test_writing_into_a_tensor_is_refused():
    with pytest.raises(TypeError):
        mg.tensor(X)[0] = 1.0


def test_a_leaf_owns_a_copy_of_what_it_was_given():
    array = X.copy()
    leaves = [mg.tensor(array), mg.parameter(array), mg.input(array), mg.tensor(mg.tensor(array))]
    array[:] = 0
    for leaf in leaves:
        np.testing.assert_array_equal(leaf.value, X)


def test_backward_leaves_every_value_and_the_seed_alone():
    x, seed = mg.tensor(X), np.ones_like(X)
    nodes = [x, x * x, mg.tanh(x), x + x]
    before = [node.value.copy() for node in nodes]
    for node in nodes:
        node.backward(seed)
    for node, value in zip(nodes, before, strict=True):
        np.testing.assert_array_equal(node.value, value)
    np.testing.assert_array_equal(seed, 1.0)


# --- dtypes ----------------------------------------------------------------------------------------

WEAK = st.sampled_from([2, 2.0, True])
STRONG = st.sampled_from(
    [np.float32(2), np.float64(2), np.int64(2), np.ones(3), np.ones(3, np.float32), np.arange(1, 4)]
)


@settings(deadline=None, max_examples=60)
@given(
    dtype=st.sampled_from([np.float16, np.float32, np.float64, np.int32]),
    other=WEAK | STRONG,
    op=st.sampled_from([operator.add, operator.sub, operator.mul, operator.truediv, np.maximum]),
)
def test_dtypes_promote_as_in_numpy(dtype, other, op):
    x = np.arange(1, 4).astype(dtype)
    assert op(mg.tensor(x), other).dtype == op(x, other).dtype
    assert op(other, mg.tensor(x)).dtype == op(other, x).dtype
    assert op(mg.tensor(x), mg.tensor(other)).dtype == op(x, other).dtype


def test_float32_times_a_python_number_stays_float32_and_so_does_its_gradient():
    x = mg.parameter(np.ones((2, 3), np.float32))
    for y in (x * 2.0, 2 * x, x**2, x**0.5, 1 / x, x - 1, mg.maximum(x, 0.5), x * mg.tensor(2.0), mg.mean(x, axis=0)):
        x.zero_grad()
        assert y.dtype == np.float32
        mg.sum(y).backward()
        assert x.grad.dtype == np.float32
        assert y.grad.dtype == np.float32


def test_gradient_of_a_float32_leaf_in_a_float64_program_is_float32():
    x, w = mg.tensor(np.ones(3, np.float32)), mg.tensor(np.ones(3))
    (x * w).backward(np.ones(3))
    assert (x.grad.dtype, w.grad.dtype) == (np.float32, np.float64)


def test_zero_dimensional_gradient_keeps_shape_and_dtype():
    x = mg.tensor(np.array(3.0, np.float32))
    mg.sum(x * np.ones((2, 2), np.float32)).backward()
    assert (x.grad.shape, x.grad.dtype, float(x.grad)) == ((), np.float32, 4.0)


# --- Python scalars --------------------------------------------------------------------------------


def test_python_numbers_stay_python_floats():
    a, b = mg.tensor(2.0), mg.tensor(-3.0)
    c = mg.tanh(a * b + 1) / (mg.exp(-a) + b**2) - abs(b)
    c.backward()
    assert [type(v) for v in (a.value, c.value, a.grad, b.grad, c.grad, c.item())] == [float] * 6


@pytest.mark.parametrize(
    ("compute", "expected"),
    [
        (lambda: mg.tensor(1.0) / 0.0, math.inf),
        (lambda: mg.tensor(-1.0) / mg.tensor(0.0), -math.inf),
        (lambda: mg.tensor(1) / 0, math.inf),
        (lambda: mg.tensor(0.0) / 0.0, math.nan),
        (lambda: mg.tensor(0.0) ** -1, math.inf),
        (lambda: mg.tensor(1e300) ** 2, math.inf),
        (lambda: mg.tensor(-8.0) ** 0.5, math.nan),
        (lambda: mg.exp(mg.tensor(1000.0)), math.inf),
        (lambda: mg.expm1(mg.tensor(1000.0)), math.inf),
        (lambda: mg.log(mg.tensor(0.0)), -math.inf),
        (lambda: mg.log(mg.tensor(-1.0)), math.nan),
        (lambda: mg.log1p(mg.tensor(-1.0)), -math.inf),
        (lambda: mg.sqrt(mg.tensor(-1.0)), math.nan),
        (lambda: mg.sin(mg.tensor(math.inf)), math.nan),
    ],
)
def test_python_number_out_of_range_gives_inf_or_nan_as_in_numpy(compute, expected):
    with pytest.warns(RuntimeWarning):
        found = compute().value
    assert type(found) is float
    assert found == expected or (math.isnan(found) and math.isnan(expected))


@pytest.mark.parametrize(
    ("f", "at", "expected"),
    [
        (lambda x: 1 / x, 0.0, -math.inf),
        (mg.log, 0.0, math.inf),
        (mg.sqrt, 0.0, math.inf),
        (mg.exp, 1000.0, math.inf),
        (lambda x: x**0.5, 0.0, math.inf),
        (lambda x: x**3, 1e200, math.inf),
        (lambda x: x**0.5, -8.0, math.nan),
    ],
)
def test_gradient_of_a_python_number_out_of_range_is_inf_or_nan_and_no_exception(f, at, expected):
    x = mg.tensor(at)
    with pytest.warns(RuntimeWarning):
        f(x).backward()
    assert type(x.grad) is float
    assert x.grad == expected or (math.isnan(x.grad) and math.isnan(expected))


def test_larger_of_a_float_and_an_integer_zero_can_be_differentiated():
    x = mg.tensor(-1.0)
    y = mg.maximum(x, 0)
    y.backward()
    assert (y.value, type(y.value), x.grad) == (0.0, float, 0.0)


@pytest.mark.parametrize("index", [..., None, ()], ids=["ellipsis", "newaxis", "empty"])
def test_python_number_is_indexed_like_a_scalar_array(index):
    x = mg.tensor(2.0)
    y = x[index]
    mg.sum(y * 3.0).backward()
    assert np.array_equal(y.value, np.float64(2.0)[index])
    assert x.grad == 3.0


# --- what makes a leaf -----------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["text", None, 1j, np.array([1j]), [[1.0], [1.0, 2.0]], object()])
def test_what_is_no_array_of_real_numbers_is_refused(value):
    with pytest.raises(mg.MicrogridError) as caught:
        mg.tensor(value)
    assert isinstance(caught.value, TypeError)


def test_only_floats_need_gradients():
    assert mg.tensor(1.0).requires_grad
    assert mg.tensor(np.ones(2, np.float16)).requires_grad
    for value in (1, True, np.arange(3), np.array([True])):
        assert not mg.tensor(value).requires_grad
        with pytest.raises(mg.errors.GradientError, match="no gradient"):
            mg.tensor(value, requires_grad=True)
    with pytest.raises(mg.errors.GradientError, match=r"'w'.*int64"):
        mg.parameter(np.arange(3), name="w")


# --- names and looks -------------------------------------------------------------------------------


def test_name_is_kept_changed_and_removed():
    x = mg.tensor(1.0, name="x")
    y = (x + 1).named("y")
    assert (x.name, y.name, (x + 1).name) == ("x", "y", None)
    y.name = "z"
    assert y.name == "z"
    y.name = None
    assert y.name is None
    assert y.place is None
    with pytest.raises(TypeError, match="string"):
        y.name = 3
    with pytest.raises(TypeError, match="string"):
        mg.tensor(1.0, name=3)


def test_a_name_remembers_the_line_that_gave_it():
    line = test_a_name_remembers_the_line_that_gave_it.__code__.co_firstlineno
    nodes = [
        mg.tensor(1.0, name="a"),
        mg.parameter(1.0, name="b"),
        mg.input(1.0, name="c"),
        mg.state(1.0, name="d"),
        (mg.tensor(1.0) + 1).named("e"),
    ]
    for offset, node in enumerate(nodes):
        assert node.place == f"{__file__}:{line + 3 + offset}"


@pytest.mark.parametrize(
    ("make", "shown"),
    [
        (lambda: mg.tensor(2.0), "Tensor(2.0)"),
        (lambda: mg.tensor(3), "Tensor(3)"),
        (lambda: mg.tensor(2.0, name="a") * 3, "Tensor(6.0, op=multiply)"),
        (lambda: mg.parameter(2.0, name="w"), "Parameter(2.0, name='w')"),
        (lambda: mg.tensor([1.0, 2.0], name="v"), "Tensor([1., 2.], shape=(2,), name='v')"),
        (lambda: mg.tensor(np.float32([1, 2])), "Tensor([1., 2.], shape=(2,), dtype=float32)"),
        (lambda: mg.tensor([1.0, 2.0]) > 1, "Tensor([False,  True], shape=(2,), op=greater)"),
    ],
)
def test_repr_shows_value_shape_unusual_dtype_name_and_operation(make, shown):
    assert repr(make()) == shown


def test_repr_of_a_large_tensor_stays_short():
    assert len(repr(mg.tensor(np.zeros((1000, 1000))))) < 400


# --- recording -------------------------------------------------------------------------------------


def test_no_grad_computes_without_recording_and_ends_with_its_block():
    x = mg.tensor(X)
    with mg.no_grad():
        with mg.no_grad():
            pass
        assert not mg.is_recording()
        silent = [x * 2, mg.tanh(x), mg.sum(x, axis=0), mg.concatenate([x, x]), x[0], mg.einsum("ij->i", x)]
    assert mg.is_recording()
    for node in silent:
        assert (node.requires_grad, node.primitive, node.operands) == (False, None, ())
    np.testing.assert_array_equal(silent[0].value, 2 * X)
    assert (x * 2).requires_grad


def test_no_grad_ends_when_its_block_raises():
    with pytest.raises(KeyError), mg.no_grad():
        raise KeyError
    assert mg.is_recording()


def test_no_grad_decorates_a_function():
    @mg.no_grad()
    def doubled(x):
        return x * 2

    x = mg.tensor(1.0)
    for _ in range(2):
        assert not doubled(x).requires_grad
    assert (x * 2).requires_grad


def test_no_grad_holds_in_its_own_thread_only():
    x = mg.tensor(2.0)
    inside, done = threading.Event(), threading.Event()
    elsewhere = []

    def silent():
        with mg.no_grad():
            inside.set()
            done.wait(10)
            elsewhere.append((x * x).requires_grad)

    thread = threading.Thread(target=silent)
    thread.start()
    assert inside.wait(10)
    here = [x * x, mg.tanh(x), mg.sum(x)]
    done.set()
    thread.join()
    assert elsewhere == [False]
    assert all(node.requires_grad for node in here)
    with mg.no_grad():
        other = []
        thread = threading.Thread(target=lambda: other.append(x * x))
        thread.start()
        thread.join()
    assert other[0].requires_grad


def test_detach_stops_the_gradient_and_keeps_the_value():
    x = mg.tensor(X)
    mg.sum(x * x.detach()).backward()
    np.testing.assert_array_equal(x.grad, X)
    cut = (x * 2).detach()
    assert not cut.requires_grad
    assert cut.operands == ()
    np.testing.assert_array_equal(cut.value, 2 * X)


def test_a_leaf_that_needs_no_gradient_gets_none_and_costs_none():
    x, frozen = mg.tensor(2.0), mg.tensor(3.0, requires_grad=False)
    constant = frozen * frozen
    (x * constant).backward()
    assert not constant.requires_grad
    assert (x.grad, frozen.grad, constant.grad) == (9.0, None, None)


# --- gradients held by leaves ----------------------------------------------------------------------


def test_leaf_gradients_accumulate_until_zero_grad():
    x, y = mg.tensor(X), mg.tensor(2.0)
    for times in (1, 2, 3):
        mg.sum(x * y).backward()
        np.testing.assert_allclose(x.grad, times * 2.0)
        assert y.grad == pytest.approx(times * X.sum())
    x.zero_grad()
    assert x.grad is None
    mg.sum(x * 3.0).backward()
    np.testing.assert_allclose(x.grad, 3.0)


@pytest.mark.parametrize(
    "f",
    [
        lambda x, y: x + y,
        lambda x, y: x - (-y),
        lambda x, y: mg.broadcast_to(x, (4, 2, 3)).sum(0) + y.T.T,
        lambda x, y: mg.stack([x, y]),
        lambda x, y: mg.concatenate([x, y])[::-1],
        lambda x, y: x.reshape(3, 2).flatten() + y.flatten(),
        lambda x, y: mg.sum(x, axis=0) + mg.mean(y, axis=0),
    ],
)
def test_leaf_gradients_share_memory_with_nothing_and_can_be_written_to(f):
    x, y = mg.tensor(X), mg.tensor(X)
    out = f(x, y)
    seed = np.ones(out.shape)
    out.backward(seed)
    expected = y.grad.copy()
    assert not np.shares_memory(x.grad, y.grad)
    for leaf in (x, y):
        assert not any(np.shares_memory(leaf.grad, other) for other in (seed, leaf.value, out.value))
    x.grad *= 100.0
    np.testing.assert_array_equal(y.grad, expected)
    np.testing.assert_array_equal(seed, 1.0)


def test_a_gradient_taken_before_the_next_backward_does_not_change_with_it():
    x = mg.tensor(X)
    mg.sum(x * 2.0).backward()
    taken = x.grad
    mg.sum(x * 2.0).backward()
    np.testing.assert_array_equal(taken, 2.0)
    np.testing.assert_array_equal(x.grad, 4.0)


# --- identity --------------------------------------------------------------------------------------


def test_sets_and_dictionaries_tell_tensors_apart_by_identity():
    a, b = mg.tensor([1.0, 2.0]), mg.tensor([1.0, 2.0])
    assert len({a, b, a}) == 2
    held = {a: "a", b: "b"}
    assert (held[a], held[b]) == ("a", "b")
    assert a in held
    assert mg.tensor([1.0, 2.0]) not in held
    assert hash(a) == hash(a)


def test_equality_compares_elements():
    equal = mg.tensor([1.0, 2.0]) == mg.tensor([1.0, 3.0])
    assert isinstance(equal, mg.Tensor)
    assert equal.value.tolist() == [True, False]


# --- what newcomers tried -----------------------------------------------------------------------------


def test_operands_may_be_given_by_keyword():
    a, b = mg.tensor([1.0, 2.0]), mg.tensor([3.0, 4.0])
    mg.sum(mg.where(np.array([True, False]), x=a, y=b)).backward()
    assert (a.grad.tolist(), b.grad.tolist()) == ([1.0, 0.0], [0.0, 1.0])
    with pytest.raises(TypeError):
        mg.sum(a, 0, axis=0)


def test_pytorch_s_dim_is_answered_with_axis():
    with pytest.raises(TypeError, match=r"mean.*dim.*axis"):
        mg.tensor([1.0]).mean(dim=0)


def test_no_grad_inside_a_network_holds_in_every_timestep():
    W, V, x = mg.parameter(2.0, name="W"), mg.parameter(3.0, name="V"), mg.input(1.0, name="x")
    with mg.no_grad():
        y = x * W
    dag = mg.Graph(mg.time_sum(y * V)).unroll(x=[1.0, 2.0])
    dag.backward()
    assert W.grad is None
    assert V.grad == 6.0


def test_detached_parameter_is_read_anew_by_every_unroll():
    W, x = mg.parameter(2.0, name="W"), mg.input(1.0, name="x")
    net = mg.Graph(mg.time_sum(x * W.detach()))
    W.value = 100.0
    assert net.unroll(x=[1.0, 1.0]).output.value == 200.0


def test_bitwise_operators_are_for_booleans():
    assert (mg.tensor([True, True]) & np.array([True, False])).value.tolist() == [True, False]
    with pytest.raises(TypeError, match=r"& is for booleans.*logical_and"):
        mg.tensor([6, 5]) & 3


def test_nothing_flows_through_integers():
    x = mg.tensor([2.6])
    y = x.astype(int)
    assert not y.requires_grad
    assert y.value.tolist() == [2]


def test_infinite_slopes_are_masked_not_multiplied():
    x = mg.tensor([0.0, 1.0])
    with pytest.warns(RuntimeWarning):
        mg.sum(mg.sqrt(mg.relu(x))).backward()
    assert x.grad.tolist() == [0.0, 0.5]


def test_a_leaf_can_be_copied_and_pickled():
    W = mg.parameter(np.ones(3), name="W")
    for twin in (copy.deepcopy(W), pickle.loads(pickle.dumps(W))):
        assert (twin.name, twin.value.tolist()) == ("W", [1.0, 1.0, 1.0])
        twin.value[0] = 5.0
    assert W.value[0] == 1.0


def test_scalars_format_as_numbers():
    assert f"{mg.tensor(1.23456):.2f}" == "1.23"


def test_none_is_equal_to_no_tensor():
    assert (mg.tensor(1.0) == None) is False  # noqa: E711
    assert mg.tensor(1.0) != None  # noqa: E711


def test_numpy_s_names_of_clip_s_bounds():
    assert np.clip(mg.tensor([-1.0, 2.0]), a_min=0, a_max=1).value.tolist() == [0.0, 1.0]


def test_iterating_gives_rows_that_pass_their_gradients_back():
    x = mg.tensor(np.arange(6.0).reshape(3, 2))
    first, _, last = x
    mg.sum(first * 2 + last).backward()
    assert x.grad.tolist() == [[2.0, 2.0], [0.0, 0.0], [1.0, 1.0]]


def test_asking_whether_a_long_history_depends_on_time_is_asked_once():
    h = mg.tensor(1.0)
    for _ in range(30_000):
        h = h * 1.0
        h.detach()
    assert not h.depends_on_time()
