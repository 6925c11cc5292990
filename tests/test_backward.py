"""Reverse mode on a DAG, gradients of functions and check_gradients."""

import gc
import math
import re
import tracemalloc
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import microgrid as mg
from microgrid.errors import GradientCheckError, GradientError
from microgrid.tensor import NUMPY_FUNCTIONS

# --- graphs in which nodes are shared --------------------------------------------------------------


@pytest.mark.parametrize("leaf", [lambda: mg.tensor(3.0), lambda: mg.tensor(np.array([3.0]))], ids=["number", "array"])
@pytest.mark.parametrize(
    ("f", "slope"),
    [
        (lambda x: x * x, 6.0),
        (lambda x: x + x, 2.0),
        (lambda x: x - x, 0.0),
        (lambda x: x / x, 0.0),
        (lambda x: x**x, 27.0 * (1 + math.log(3.0))),
        (lambda x: mg.maximum(x, x), 1.0),
        (lambda x: mg.sum(mg.stack([x, x, x])), 3.0),
    ],
)
def test_operand_used_twice_by_one_operation_gets_both_gradients(leaf, f, slope):
    x = leaf()
    mg.sum(f(x)).backward()
    assert float(np.sum(x.grad)) == pytest.approx(slope)


def test_diamond_sums_over_its_paths():
    x = mg.tensor(0.7)
    a = mg.sin(x)
    left, right = a * a, mg.exp(a)
    (left * right + a).backward()
    s, c = math.sin(0.7), math.cos(0.7)
    by_a = 2 * s * math.exp(s) + s * s * math.exp(s) + 1
    assert x.grad == pytest.approx(by_a * c)
    assert a.grad == pytest.approx(by_a)
    assert left.grad == pytest.approx(math.exp(s))
    assert right.grad == pytest.approx(s * s)


def test_stacked_diamonds_take_one_visit_per_node_not_one_per_path():
    x = mg.tensor(1.0)
    y = x
    for _ in range(200):  # 2 ** 200 paths
        y = 0.5 * y + 0.5 * y
    y.backward()
    assert x.grad == 1.0


def test_node_read_early_and_late_waits_for_all_its_readers():
    x = mg.tensor(2.0)
    early = x * 3.0
    late = early
    for _ in range(10):
        late = late + 1.0
    (late * early).backward()  # (3x + 10) 3x
    assert x.grad == pytest.approx(18 * 2.0 + 30)


@st.composite
def programs(draw):
    """A random DAG: each step applies an operation to earlier nodes; the result reads several of them."""
    steps = draw(
        st.lists(st.tuples(st.integers(0, 5), st.integers(0, 100), st.integers(0, 100)), min_size=1, max_size=12)
    )

    def run(a, b):
        nodes = [a, b]
        for kind, i, j in steps:
            x, y = nodes[i % len(nodes)], nodes[j % len(nodes)]
            nodes.append(
                [
                    lambda x, y: x + y,
                    lambda x, y: x * mg.tanh(y),
                    lambda x, y: mg.sin(x) - y,
                    lambda x, y: mg.sigmoid(x * y),
                    lambda x, y: mg.tanh(x) @ mg.swapaxes(mg.tanh(y), -1, -2) @ x,
                    lambda x, y: mg.concatenate([x, y])[1 : 1 + x.shape[0]],
                ][kind](x, y)
            )
        return mg.tanh(nodes[-1]) + mg.tanh(nodes[len(nodes) // 2])

    return run


@settings(deadline=None, max_examples=25)
@given(program=programs(), seed=st.integers(0, 2**32 - 1))
def test_random_graphs_differentiate_rightly_and_alike_by_backward_and_grad(program, seed):
    a, b = np.random.default_rng(seed).uniform(-1, 1, (2, 2, 2))
    mg.check_gradients(program, a, b, rtol=1e-5, atol=1e-7)
    leaves = mg.tensor(a), mg.tensor(b)
    mg.sum(program(*leaves)).backward()
    for leaf, gradient in zip(leaves, mg.grad(lambda *xs: mg.sum(program(*xs)), (0, 1))(a, b), strict=True):
        np.testing.assert_allclose(np.zeros((2, 2)) if leaf.grad is None else leaf.grad, gradient, rtol=1e-12)


# --- calling backward ------------------------------------------------------------------------------


def test_repeated_backward_adds_on_leaves_and_starts_afresh_elsewhere():
    x = mg.tensor([1.0, 2.0])
    y = x * x
    z = mg.sum(y)
    for times in (1, 2, 3):
        z.backward()
        np.testing.assert_allclose(x.grad, times * 2 * x.value)
        np.testing.assert_allclose(y.grad, [1.0, 1.0])
        assert z.grad == 1.0


def test_two_results_over_a_shared_node_add_up_on_the_leaf():
    x = mg.tensor(3.0)
    shared = x * x
    (2 * shared).backward()
    (5 * shared).backward()
    assert x.grad == 7 * 6.0


def test_backward_on_a_leaf_gives_its_own_seed():
    x = mg.tensor(2.0)
    x.backward()
    x.backward(3.0)
    assert x.grad == 4.0


@pytest.mark.parametrize("seed", [np.array([1.0, 10.0]), [1.0, 10.0], mg.tensor([1.0, 10.0]), np.float32([1, 10])])
def test_seed_gradient_is_the_cotangent_of_the_result(seed):
    x = mg.tensor([3.0, 4.0])
    (x * x).backward(seed)
    assert x.grad.tolist() == [6.0, 80.0]


@pytest.mark.parametrize("seed", [3.0, np.array(3.0), mg.tensor(3.0), 3])
def test_scalar_result_takes_a_scalar_seed(seed):
    x = mg.tensor(2.0)
    (x * x).backward(seed)
    assert x.grad == 12.0


def test_non_scalar_without_a_seed_is_refused_by_its_name_or_variable():
    x = mg.tensor([1.0, 2.0])
    outputs = x * 2
    with pytest.raises(GradientError, match=r"'outputs' has shape \(2,\).*mg\.sum"):
        outputs.backward()
    outputs.name = "scores"
    with pytest.raises(GradientError, match="'scores'"):
        outputs.backward()
    assert x.grad is None


@pytest.mark.parametrize("seed", [1.0, np.ones(3), np.ones((1, 2)), np.ones((2, 1))])
def test_seed_of_another_shape_is_refused_with_both_shapes(seed):
    x = mg.tensor([1.0, 2.0])
    y = x * 2
    with pytest.raises(GradientError, match=r"\(2,\)"):
        y.backward(seed)
    assert x.grad is None
    with pytest.raises(GradientError, match=r"\(1,\)"):
        mg.sum(y).backward(np.ones(1))


def test_backward_where_nothing_needs_a_gradient_is_refused():
    for result in (
        mg.tensor(1.0, requires_grad=False) * 2,
        mg.tensor(2) + 1,
        mg.tensor(1.0).detach(),
        mg.sign(mg.tensor(1.0)),
        mg.tensor(1.0) > 0,
    ):
        with pytest.raises(GradientError, match="nothing that needs a gradient"):
            result.backward()
    with mg.no_grad():
        silent = mg.tensor(1.0) * 2
    with pytest.raises(GradientError, match=r"'silent'.*no_grad"):
        silent.backward()


def test_backward_works_and_records_nothing_inside_no_grad():
    x = mg.tensor([1.0, 2.0])
    y = mg.sum(x * x)
    with mg.no_grad():
        y.backward()
    assert x.grad.tolist() == [2.0, 4.0]
    assert isinstance(x.grad, np.ndarray)


# --- long chains -----------------------------------------------------------------------------------

LONG = 100_000


@pytest.mark.parametrize("start", [1.0, np.ones(2)], ids=["number", "array"])
def test_chain_of_100_000_operations_differentiates_and_dies_with_its_last_name(start):
    x = mg.tensor(start)
    y = x
    for _ in range(LONG // 2):
        y = 0.5 * y + x
    mg.sum(y).backward()
    np.testing.assert_allclose(x.grad, np.full(np.shape(start), 2.0))  # Σ 0.5 ** i
    watched = [weakref.ref(y), weakref.ref(y.operands[0].operands[1])]
    assert all(ref() is not None for ref in watched)
    del y
    assert [ref() for ref in watched] == [None, None]


def test_memory_of_a_dropped_chain_comes_back():
    x = mg.tensor(np.ones(100))
    gc.collect()
    tracemalloc.start()
    try:
        y = x
        for _ in range(3000):
            y = 0.5 * y + x
        mg.sum(y).backward()
        held = tracemalloc.get_traced_memory()[0]
        assert held > 6000 * 800  # values, at the least
        del y
        assert tracemalloc.get_traced_memory()[0] < held / 20
    finally:
        tracemalloc.stop()


def test_chain_of_100_000_operations_is_differentiated_by_grad():
    def f(x):
        y = x
        for _ in range(LONG // 2):
            y = (y + 1e-5) * 1.0
        return y * y

    assert mg.grad(f)(1.0) == pytest.approx(2 * (1 + LONG // 2 * 1e-5))


def test_nothing_outlives_a_training_step():
    """No reference cycle keeps a graph: it is freed with its last name, without the garbage collector."""
    w = mg.parameter(np.ones((3, 3)))
    gc.collect()
    gc.disable()
    try:
        h = mg.tanh(np.ones((2, 3)) @ w)
        loss = mg.mean((h[0] - mg.concatenate([h, h])) ** 2)
        loss.backward()
        watched = [weakref.ref(node) for node in (h, loss, loss.operands[0])]
        value, gradient = mg.value_and_grad(lambda u: mg.sum(mg.tanh(u @ w)))(np.ones((2, 3)))
        del h, loss, value, gradient
        assert [ref() for ref in watched] == [None] * 3
    finally:
        gc.enable()


# --- grad, value_and_grad, jacobian ----------------------------------------------------------------


def test_grad_gives_numbers_for_numbers_and_arrays_for_arrays():
    assert mg.grad(lambda x: x * x)(3.0) == 6.0
    assert type(mg.grad(lambda x: x * x)(3.0)) is float
    found = mg.grad(lambda x: mg.sum(x * x))(np.ones(2, np.float32))
    assert isinstance(found, np.ndarray)
    assert found.dtype == np.float32
    value, slope = mg.value_and_grad(lambda x: mg.sum(x * x))([1.0, 2.0])
    assert value == 5.0
    assert slope.tolist() == [2.0, 4.0]


def test_grad_nests():
    def f(x):
        return x**4

    for order, expected in enumerate([4 * 8.0, 12 * 4.0, 24 * 2.0, 24.0, 0.0]):
        g = f
        for _ in range(order + 1):
            g = mg.grad(g)
        assert g(2.0) == pytest.approx(expected)


def test_value_and_grad_nests():
    def squared_slope(x):
        value, slope = mg.value_and_grad(mg.sin)(x)
        return value + slope * slope  # sin x + cos² x

    value, slope = mg.value_and_grad(squared_slope)(0.4)
    assert value == pytest.approx(math.sin(0.4) + math.cos(0.4) ** 2)
    assert slope == pytest.approx(math.cos(0.4) - 2 * math.cos(0.4) * math.sin(0.4))


def test_inner_grad_by_one_variable_is_differentiated_by_another():
    def inner(x, y):
        return mg.grad(lambda z: z * z * y)(x)  # 2xy

    assert mg.grad(inner, 1)(mg.tensor(3.0), 5.0) == pytest.approx(6.0)
    assert mg.grad(inner, (0, 1))(3.0, 5.0) == pytest.approx((10.0, 6.0))


def test_inner_grad_by_a_plain_number_still_depends_on_the_outer_variable():
    """d/dx [x · d/dy(x y²)] at y = 3 is d/dx 6x² = 12x; a silent 6x would ignore the closure."""
    assert mg.grad(lambda x: x * mg.grad(lambda y: x * y * y)(3.0))(2.0) == pytest.approx(24.0)


def test_perturbations_of_nested_variables_are_not_confused():
    # the classic: d/dx [x · d/dy (x + y)] = 1, not 2
    assert mg.grad(lambda x: x * mg.grad(lambda y: x + y)(mg.tensor(1.0)))(1.0) == 1.0
    assert mg.grad(lambda x: x * mg.grad(lambda y: x * y)(x))(3.0) == pytest.approx(6.0)


def test_hessian_of_a_quadratic_form_is_its_matrix():
    A = np.array([[2.0, 1.0, 0.0], [1.0, 3.0, -1.0], [0.0, -1.0, 4.0]])
    x = np.array([0.3, -1.0, 2.0])
    hessian = mg.jacobian(mg.grad(lambda v: 0.5 * (v @ A @ v)))
    np.testing.assert_allclose(hessian(x), A)
    np.testing.assert_allclose(mg.jacobian(hessian)(x), np.zeros((3, 3, 3)), atol=1e-12)


@pytest.mark.parametrize("shapes", [((), ()), ((), (2,)), ((3,), ()), ((2, 3), (3, 2)), ((2,), (2, 2))])
def test_jacobian_has_the_result_shape_then_the_argument_shape(shapes):
    out_shape, in_shape = shapes
    rng = np.random.default_rng(3)
    weights = rng.normal(size=out_shape + in_shape)
    x = np.asarray(rng.normal(size=in_shape))

    def linear(v):
        return mg.reshape(mg.sum(weights.reshape(-1, x.size) * mg.reshape(v, -1), axis=1), out_shape)

    found = mg.jacobian(linear)(x)
    assert found.shape == out_shape + in_shape
    np.testing.assert_allclose(found, weights)


def test_jacobian_by_another_argument_and_of_a_jacobian():
    A = np.arange(6.0).reshape(2, 3)
    np.testing.assert_allclose(mg.jacobian(lambda a, x: a @ x, argnums=1)(A, np.ones(3)), A)
    third = mg.jacobian(mg.jacobian(lambda x: x**3))(np.array([1.0, 2.0]))
    expected = np.zeros((2, 2, 2))
    expected[0, 0, 0], expected[1, 1, 1] = 6.0, 12.0
    np.testing.assert_allclose(third, expected)


def test_argnums_chooses_arguments_and_their_order():
    def f(x, y, z):
        return x * y**2 + z

    assert mg.grad(f, 1)(2.0, 3.0, 1.0) == pytest.approx(12.0)
    assert mg.grad(f, -1)(2.0, 3.0, 1.0) == 1.0
    assert mg.grad(f, (1, 0))(2.0, 3.0, 1.0) == pytest.approx((12.0, 9.0))
    assert mg.grad(f, (0,))(2.0, 3.0, 1.0) == (9.0,)
    assert mg.value_and_grad(f, (0, 2))(2.0, 3.0, 1.0) == (19.0, (9.0, 1.0))
    with pytest.raises(GradientError, match=r"argnums.*3"):
        mg.grad(f, 3)(1.0, 1.0, 1.0)


def test_argument_that_does_not_matter_has_zero_gradient_of_its_shape():
    found = mg.grad(lambda x, y: mg.sum(x), (0, 1))(np.ones(2), np.ones((3, 2), np.float32))
    assert found[1].shape == (3, 2)
    assert found[1].dtype == np.float32
    assert not found[1].any()
    assert mg.grad(lambda x: mg.tensor(1.0))(2.0) == 0.0
    np.testing.assert_array_equal(mg.jacobian(lambda x: mg.sign(x))(np.ones(2)), np.zeros((2, 2)))


def test_recorded_gradient_has_the_dtype_of_its_variable_in_a_mixed_program():
    x = np.ones(3, np.float32)
    for f in (lambda v: mg.sum(v * np.arange(3.0)), lambda v: mg.sum(mg.concatenate([v, np.ones(2)]) ** 2), mg.max):
        assert mg.grad(f)(x).dtype == np.float32
        assert mg.grad(f)(mg.tensor(x)).dtype == np.float32


def test_functional_gradients_leave_grad_of_parameters_and_arguments_untouched():
    w, x = mg.parameter(np.ones(2), name="w"), mg.tensor(np.array([1.0, 2.0]))
    w.grad = np.array([7.0, 7.0])
    mg.value_and_grad(lambda v: mg.sum(v * w))(np.ones(2))
    mg.grad(lambda v: mg.sum(v * w))(x)
    mg.jacobian(lambda v: v * w)(x)
    mg.check_gradients(lambda v: mg.sum(v * w), np.ones(2))
    assert w.grad.tolist() == [7.0, 7.0]
    assert x.grad is None


def test_functional_gradient_can_be_written_to_and_shares_no_memory():
    x = np.ones(3)
    first, second = mg.grad(lambda a, b: mg.sum(a + b), (0, 1))(x, x)
    assert not np.shares_memory(first, second)
    first *= 5.0
    assert second.tolist() == [1.0, 1.0, 1.0]
    assert x.tolist() == [1.0, 1.0, 1.0]


def test_recorded_gradient_can_be_trained_through_by_backward():
    """A gradient penalty: .backward() through mg.grad reaches a closed-over parameter."""
    w = mg.parameter(3.0)
    slope = mg.grad(lambda x: w * x * x)(mg.tensor(2.0))  # 2 w x
    (slope * slope).backward()
    assert w.grad == pytest.approx(2 * 12.0 * 4.0)


def test_grad_works_inside_no_grad():
    with mg.no_grad():
        assert mg.grad(lambda x: x * x)(3.0) == 6.0
        np.testing.assert_allclose(mg.jacobian(lambda x: x * x)(np.array([1.0, 2.0])), np.diag([2.0, 4.0]))


def test_no_grad_inside_a_function_holds_its_part_constant():
    def f(x):
        with mg.no_grad():
            held = x * x
        return held * x

    assert mg.grad(f)(3.0) == 9.0


def test_functional_gradients_refuse_what_has_none():
    with pytest.raises(GradientError, match=r"scalar.*\(2,\).*jacobian"):
        mg.grad(lambda x: x * 2)(np.ones(2))
    with pytest.raises(GradientError, match="int64"):
        mg.grad(lambda x: mg.sum(x * 2))(np.arange(2))
    with pytest.raises(GradientError, match="float, not a Tensor"):
        mg.grad(lambda x: 3.0)(1.0)


def test_jacobian_of_an_empty_result_is_empty():
    assert mg.jacobian(lambda x: x[:0])(np.ones(3)).shape == (0, 3)


# --- check_gradients -------------------------------------------------------------------------------


@mg.primitive(vjp=lambda g, out, x: g * np.where(np.arange(x.shape[-1]) == 1, 2.0, 1.0) * np.cos(x))
def sine_wrong_at_one(x):
    """A sine whose rule doubles the gradient of entry 1 of the last axis."""
    return np.sin(x)


def test_check_gradients_names_the_wrong_entries_and_both_numbers():
    x = np.zeros((2, 3))
    with pytest.raises(GradientCheckError) as caught:
        mg.check_gradients(lambda a, b: mg.sum(a * 0.5) + mg.sum(sine_wrong_at_one(b)), np.ones(2), x)
    message = str(caught.value)
    assert "argument 1[0, 1]" in message
    assert "argument 1[1, 1]" in message
    assert "argument 0" not in message
    assert "[0, 0]" not in message
    assert "[0, 2]" not in message
    pairs = re.findall(r": gradient (\S+), central differences (\S+)", message)
    assert len(pairs) == 2
    for gradient, difference in pairs:
        assert float(gradient) == pytest.approx(2 * float(difference), rel=1e-6)


def test_check_gradients_finds_a_missing_gradient():
    with pytest.raises(GradientCheckError, match="argument 0"):
        mg.check_gradients(lambda x: mg.sum(x * x.detach()), np.ones(2))


def test_check_gradients_finds_a_rule_whose_error_cancels_in_the_plain_sum():
    @mg.primitive(vjp=lambda g, out, x: g[::-1])
    def same(x):
        return +x

    with pytest.raises(GradientCheckError):
        mg.check_gradients(same, np.ones(3))


def test_check_gradients_finds_nan_and_is_not_fooled_by_an_infinite_slope():
    @mg.primitive(vjp=lambda g, out, x: g * math.nan)
    def identity(x):
        return +x

    with pytest.raises(GradientCheckError, match="nan"):
        mg.check_gradients(identity, np.ones(2))


@pytest.mark.parametrize("error", [1e-3, 1e-5])
def test_check_gradients_finds_small_relative_errors_and_obeys_its_tolerance(error):
    @mg.primitive(vjp=lambda g, out, x: g * (1 + error))
    def identity(x):
        return +x

    with pytest.raises(GradientCheckError):
        mg.check_gradients(identity, np.ones(2))
    assert mg.check_gradients(identity, np.ones(2), rtol=10 * error) == pytest.approx(error, rel=0.6)


def test_check_gradients_leaves_its_arguments_alone_and_takes_lists_and_numbers():
    x = np.array([0.5, 1.5])
    assert mg.check_gradients(lambda a, b: mg.tanh(a) * b, x, 2.0) < 1e-9
    assert mg.check_gradients(lambda a: mg.tanh(a), [[0.1], [0.2]]) < 1e-9
    assert x.tolist() == [0.5, 1.5]


def test_check_gradients_checks_a_function_that_itself_takes_a_gradient():
    assert mg.check_gradients(lambda x: mg.grad(lambda z: mg.sum(mg.tanh(z) ** 3))(x), np.array([0.3, -0.8])) < 1e-6


def test_a_declared_primitive_answers_for_its_numpy_function_and_is_closed_under_differentiation(monkeypatch):
    monkeypatch.setitem(NUMPY_FUNCTIONS, np.arctan, None)  # taken out again after the test

    @mg.primitive(np.arctan, vjp=lambda g, out, x: g / (1 + x * x))
    def arctan(x):
        return np.arctan(x)

    x = np.array([0.3, -2.0])
    assert mg.check_gradients(np.arctan, x) < 1e-6
    np.testing.assert_allclose(
        mg.jacobian(mg.grad(lambda v: mg.sum(arctan(v))))(x), np.diag(-2 * x / (1 + x * x) ** 2), rtol=1e-12
    )
