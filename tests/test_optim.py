"""Optimisers against PyTorch's recorded trajectories; what they may touch; states; clipping; schedules."""

import json
import math

import numpy as np
import pytest
from trajectories.make_trajectories import CASES, FILE, RECORDED_EVERY, START, STEPS, Case, gradient

import microgrid as mg
from microgrid import optim
from microgrid.errors import NotFiniteError, OperandError, OperandTypeError

TRAJECTORIES = json.loads(FILE.read_text(encoding="utf-8"))
SCHEDULES = {
    "steps": optim.Step(30, 0.3),
    "cosine": optim.Cosine(100),
    "warm up": optim.WarmUp(10),
    "warm up, then cosine": optim.WarmUp(10, optim.Cosine(90)),
}
STATEFUL = [name for name, case in CASES.items() if case.optimiser != "SGD" or "momentum" in case.settings]


def start(case: Case) -> tuple[list[mg.Parameter], optim.Optimiser]:
    """The two parameters of the recorded problem, and the optimiser of a case."""
    parameters = [mg.parameter(START[name], name=name) for name in ("W", "b")]
    given = parameters
    if case.groups is not None:
        given = [{"parameters": [each], **own} for each, own in zip(parameters, case.groups, strict=True)]
    return parameters, getattr(optim, case.optimiser)(given, **case.settings)


def move(case: Case, parameters: list[mg.Parameter], optimiser: optim.Optimiser, step: int) -> None:
    for parameter, g in zip(parameters, gradient(*(p.value for p in parameters)), strict=True):
        parameter.grad = g
    if case.max_norm is not None:
        optim.clip_grad_norm(parameters, case.max_norm)
    if case.max_value is not None:
        optim.clip_grad_value(parameters, case.max_value)
    if case.schedule is not None:
        optimiser.factor = SCHEDULES[case.schedule](step)
    optimiser.step()


def with_gradients(*pairs):
    """Parameters p0, p1, … of these (value, gradient)."""
    parameters = [mg.parameter(value, name=f"p{i}") for i, (value, _) in enumerate(pairs)]
    for parameter, (_, g) in zip(parameters, pairs, strict=True):
        parameter.grad = g
    return parameters


EVERY_OPTIMISER = {
    "sgd": lambda p: optim.SGD(p, 0.1),
    "sgd, all settings": lambda p: optim.SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "sgd, dampened": lambda p: optim.SGD(p, 0.1, momentum=0.9, dampening=0.1),
    "rmsprop": lambda p: optim.RMSprop(p),
    "rmsprop, all settings": lambda p: optim.RMSprop(p, momentum=0.9, centered=True, weight_decay=0.1),
    "adam": lambda p: optim.Adam(p, weight_decay=0.1),
    "adamw": lambda p: optim.AdamW(p),
}
every_optimiser = pytest.mark.parametrize("make", EVERY_OPTIMISER.values(), ids=EVERY_OPTIMISER)


# --- the numbers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_trajectory_is_that_of_pytorch(name):
    case = CASES[name]
    parameters, optimiser = start(case)
    expected = iter(TRAJECTORIES[name])
    for step in range(STEPS):
        move(case, parameters, optimiser, step)
        if (step + 1) % RECORDED_EVERY == 0:
            recorded = next(expected)
            for parameter in parameters:
                np.testing.assert_allclose(parameter.value, recorded[parameter.name], rtol=1e-12, atol=0)
    assert next(expected, None) is None


def adam_by_hand(values, gradients, lr, betas, eps):
    """Algorithm 1 of Kingma and Ba (2015), with its bias-corrected moments written out."""
    values = [np.array(value, float) for value in values]
    first = [np.zeros_like(value) for value in values]
    second = [np.zeros_like(value) for value in values]
    for t, step in enumerate(gradients, start=1):
        for i, g in enumerate(step):
            first[i] = betas[0] * first[i] + (1 - betas[0]) * g
            second[i] = betas[1] * second[i] + (1 - betas[1]) * g**2
            corrected = first[i] / (1 - betas[0] ** t), second[i] / (1 - betas[1] ** t)
            values[i] = values[i] - lr * corrected[0] / (np.sqrt(corrected[1]) + eps)
    return values


@pytest.mark.parametrize(
    ("lr", "betas", "eps"), [(1e-3, (0.9, 0.999), 1e-8), (0.1, (0.5, 0.9), 0.5), (0.1, (0.0, 0.0), 1e-3)]
)
def test_adam_follows_the_published_algorithm(lr, betas, eps):
    rng = np.random.default_rng(5)
    values = [rng.normal(size=(2, 3)), 0.7, np.array(-0.3), np.asfortranarray(rng.normal(size=(3, 4)))]
    gradients = [[rng.normal(size=(2, 3)), float(rng.normal()), rng.normal(), rng.normal(size=(3, 4))] for _ in "0123"]
    parameters = [mg.parameter(value) for value in values]
    adam = optim.Adam(parameters, lr=lr, betas=betas, eps=eps)
    for step in gradients:
        for parameter, g in zip(parameters, step, strict=True):
            parameter.grad = g
        adam.step()
    for parameter, expected in zip(parameters, adam_by_hand(values, gradients, lr, betas, eps), strict=True):
        np.testing.assert_allclose(parameter.value, expected, rtol=1e-12)


def test_adam_learns_a_linear_regression():
    rng = np.random.default_rng(2)
    x, true = rng.normal(size=(50, 3)), np.array([1.0, -2.0, 0.5])
    w = mg.parameter(np.zeros(3))
    adam = optim.Adam([w], lr=0.1)
    for _ in range(300):
        adam.zero_grad()
        mg.mean((x @ w - x @ true) ** 2).backward()
        adam.step()
    np.testing.assert_allclose(w.value, true, atol=1e-3)


def test_centered_rmsprop_survives_a_variance_that_rounds_below_zero():
    (x,) = with_gradients((np.zeros(3, np.float32), np.float32([0.1, 0.3, 0.7])))
    rmsprop = optim.RMSprop([x], alpha=0.5, centered=True)
    for _ in range(200):
        rmsprop.step()
    assert np.all(np.isfinite(x.value))


# --- what a step changes, and what it leaves alone ---------------------------------------------------


@every_optimiser
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_arrays_move_in_place_in_their_dtype_and_gradients_stay_as_they_are(make, dtype):
    rng = np.random.default_rng(1)
    W, b = with_gradients(*[(rng.normal(size=n).astype(dtype), rng.normal(size=n).astype(dtype)) for n in ((4, 3), 3)])
    arrays, before, gradients = [W.value, b.value], [W.numpy(), b.numpy()], [W.grad, b.grad]
    copies = [np.array(g) for g in gradients]
    optimiser = make([W, b])
    for _ in range(3):
        optimiser.step()
    for parameter, array, old, g, copy in zip((W, b), arrays, before, gradients, copies, strict=True):
        assert parameter.value is array
        assert array.dtype == dtype
        assert np.all(array != old)
        assert parameter.grad is g
        np.testing.assert_array_equal(g, copy)
    for buffer in optimiser.state_dict()["arrays"].values():
        assert buffer.dtype == dtype


@every_optimiser
@pytest.mark.parametrize(
    "layout",
    [
        np.asfortranarray,
        lambda a: np.repeat(a, 2, axis=1)[:, ::2],
        lambda a: np.broadcast_to(a, a.shape),
        lambda a: a[::-1, ::-1][::-1, ::-1],
    ],
    ids=["Fortran order", "every second column", "read-only", "turned twice"],
)
def test_the_layout_in_memory_changes_no_number(make, layout):
    rng = np.random.default_rng(3)
    value, g = rng.normal(size=(4, 5)), rng.normal(size=(4, 5))
    plain, other = with_gradients((value, g), (value, np.asfortranarray(g)))
    other.value = given = layout(value.copy())
    apart, writable = np.array(given), given.flags.writeable
    for parameter in (plain, other):
        optimiser = make([parameter])
        for _ in range(3):
            optimiser.step()
    np.testing.assert_array_equal(plain.value, other.value)
    assert (other.value is given) == writable
    if not writable:
        np.testing.assert_array_equal(given, apart)


@every_optimiser
def test_numbers_move_as_arrays_do(make):
    array, number, scalar, generic = with_gradients(
        (np.array([0.7]), np.array([0.3])), (0.7, 0.3), (np.array(0.7), np.array(0.3)), (0.7, 0.3)
    )
    generic.value = np.float64(0.7)
    optimiser, held = make([array, number, scalar, generic]), scalar.value
    for _ in range(3):
        optimiser.step()
    assert type(number.value) is float
    assert type(generic.value) is np.float64
    assert scalar.value is held
    assert number.value == array.value[0] == scalar.value == generic.value != 0.7


def test_float32_does_not_feel_the_type_of_the_settings():
    W, V = with_gradients(*[(np.ones(3, np.float32), np.full(3, 0.1, np.float32))] * 2)
    optim.Adam([W], lr=0.1, weight_decay=0.1).step()
    optimiser = optim.Adam([V], lr=np.float64(0.1), weight_decay=np.float64(0.1))
    optimiser.factor = np.float64(1.0)
    optimiser.step()
    assert W.value.dtype == V.value.dtype == np.float32
    np.testing.assert_array_equal(W.value, V.value)


def test_a_gradient_of_another_dtype_is_read_in_that_of_the_parameter():
    g = np.random.default_rng(4).normal(size=100)
    W, V = with_gradients((np.zeros(100, np.float32), g), (np.zeros(100, np.float32), g.astype(np.float32)))
    adam = optim.Adam([W, V])
    for _ in range(3):
        adam.step()
    np.testing.assert_array_equal(W.value, V.value)
    assert W.value.dtype == np.float32


def test_parameters_without_a_gradient_stay_and_are_not_counted():
    moved, idle = with_gradients((np.ones(2), np.ones(2)), (np.ones(2), None))
    adam = optim.Adam([moved, idle], weight_decay=0.5)
    adam.step()
    assert idle.value.tolist() == [1.0, 1.0]
    assert adam.state_dict()["settings"]["steps"] == [1, 0]
    assert set(adam.state_dict()["arrays"]) == {"0.gradients", "0.squares"}
    idle.grad = np.ones(2)  # its first step now has the bias correction of a first step
    adam.step()
    fresh = with_gradients((np.ones(2), np.ones(2)))
    optim.Adam(fresh, weight_decay=0.5).step()
    np.testing.assert_array_equal(idle.value, fresh[0].value)


def test_zero_grad_forgets_the_gradients_of_all_groups():
    a, b = with_gradients((1.0, 1.0), (2.0, 2.0))
    optim.SGD([{"parameters": [a]}, {"parameters": [b]}], 0.1).zero_grad()
    assert (a.grad, b.grad) == (None, None)


@pytest.mark.parametrize("shape", [(0,), (3, 0)])
@every_optimiser
def test_an_empty_parameter_is_no_obstacle(make, shape):
    (empty,) = with_gradients((np.zeros(shape), np.zeros(shape)))
    make([empty]).step()
    assert empty.shape == shape


def test_a_compiled_network_sees_the_parameters_that_moved():
    x, w = mg.input(np.zeros(2), name="x"), mg.parameter(np.ones(2), name="w")
    step = mg.compile(mg.time_mean(mg.sum(w * x)))
    run = step(x=np.ones((3, 2)))
    run.backward()
    optim.SGD([w], 0.25).step()
    assert float(step(x=np.ones((3, 2))).value) == 1.5
    assert run.grads["w"].tolist() == [1.0, 1.0]


# --- parameters, groups and settings -----------------------------------------------------------------


def test_groups_keep_their_order_and_own_settings():
    a, b, c = (mg.parameter(value) for value in (1.0, 2.0, 3.0))
    adam = optim.Adam([{"parameters": [c, a], "lr": 0.5}, {"params": (b,), "betas": [0.1, 0.2]}], lr=0.1)
    assert adam.parameters == [c, a, b]
    assert [group.parameters for group in adam.groups] == [[c, a], [b]]
    assert [group.settings["lr"] for group in adam.groups] == [0.5, 0.1]
    assert [group.settings["betas"] for group in adam.groups] == [(0.9, 0.999), (0.1, 0.2)]
    assert adam.lr == 0.5
    adam.lr = 0.25
    assert [group.settings["lr"] for group in adam.groups] == [0.25, 0.25]


def test_lr_and_factor_multiply_in_every_group():
    a, b = with_gradients((1.0, 1.0), (1.0, 1.0))
    sgd = optim.SGD([{"parameters": [a]}, {"parameters": [b], "lr": 0.5}], 0.25)
    sgd.factor = 0.5
    sgd.step()
    assert (a.value, b.value) == (0.875, 0.75)
    assert (sgd.lr, sgd.factor) == (0.25, 0.5)
    sgd.factor = 0.0
    sgd.step()
    assert (a.value, b.value) == (0.875, 0.75)


def test_parameters_may_come_from_a_generator():
    a, b = with_gradients((1.0, 1.0), (1.0, 1.0))
    optim.SGD((p for p in (a, b)), 0.5).step()
    assert (a.value, b.value) == (0.5, 0.5)


x = mg.parameter(1.0, name="x")


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        (x, OperandTypeError, r"takes a list of parameters: write \[x\]"),
        ([], OperandError, "SGD was given no parameters"),
        (3, OperandTypeError, "takes a list of parameters, not int"),
        ([x, x], OperandError, "'x' was given to SGD twice"),
        ([{"parameters": [x]}, {"parameters": [x]}], OperandError, "'x' was given to SGD twice"),
        ([x, x * x], OperandTypeError, "the result of multiply is none: give it leaves that need a gradient"),
        ([mg.tensor(2)], OperandTypeError, "the number 2 is none"),
        ([1.0], OperandTypeError, "1.0 is none"),
        ({"parameters": [x]}, OperandTypeError, "takes groups in a list"),
        ([{"parameters": [x]}, mg.parameter(2.0, name="y")], OperandTypeError, "'y' stands beside groups"),
        ([{"lr": 0.1}], OperandError, 'group 0 of SGD needs its leaves under "parameters"'),
        ([{"parameters": [x], "params": [x]}], OperandError, 'under "parameters", once'),
        ([{"parameters": x}], OperandTypeError, r"group 0 of SGD takes a list of parameters: write \[x\]"),
        ([{"parameters": []}], OperandError, "group 0 of SGD was given no parameters"),
        ([{"parameters": [x], "momentun": 0.9}], OperandError, "no setting 'momentun'. Did you mean 'momentum'?"),
        ([{"parameters": [x], "lr": -1.0}], OperandError, "group 0 of SGD takes a number > 0 for lr, not -1.0"),
        ([{"parameters": [x], "nesterov": True}], OperandError, "nesterov takes momentum > 0"),
    ],
)
def test_parameters_that_cannot_be_moved_are_refused(given, error, words):
    with pytest.raises(error, match=words):
        optim.SGD(given, 0.1)


@pytest.mark.parametrize(
    ("make", "settings", "words"),
    [
        (optim.SGD, {"lr": 0.0}, "SGD takes a number > 0 for lr, not 0.0"),
        (optim.SGD, {"lr": math.nan}, "for lr, not nan"),
        (optim.SGD, {"lr": math.inf}, "for lr, not inf"),
        (optim.SGD, {"lr": "0.1"}, "for lr, not '0.1'"),
        (optim.SGD, {"lr": True}, "for lr, not True"),
        (optim.SGD, {"lr": 0.1, "momentum": -0.1}, "a number ≥ 0 for momentum, not -0.1"),
        (optim.SGD, {"lr": 0.1, "dampening": None}, "a number for dampening, not None"),
        (optim.SGD, {"lr": 0.1, "nesterov": 1}, "True or False for nesterov, not 1"),
        (optim.SGD, {"lr": 0.1, "nesterov": True}, "momentum > 0 and dampening 0, not momentum=0.0"),
        (
            optim.SGD,
            {"lr": 0.1, "momentum": 0.9, "dampening": 0.5, "nesterov": True},
            "not momentum=0.9, dampening=0.5",
        ),
        (optim.SGD, {"lr": 0.1, "weight_decay": -1}, "a number ≥ 0 for weight_decay, not -1"),
        (optim.RMSprop, {"alpha": 1.0}, r"RMSprop takes a number in \[0, 1\) for alpha, not 1.0"),
        (optim.RMSprop, {"eps": 0.0}, "a number > 0 for eps, not 0.0"),
        (optim.RMSprop, {"momentum": -1.0}, "momentum, not -1.0"),
        (optim.RMSprop, {"centered": "yes"}, "True or False for centered, not 'yes'"),
        (optim.RMSprop, {"weight_decay": -1.0}, "weight_decay, not -1.0"),
        (optim.Adam, {"lr": -1.0}, "Adam takes a number > 0 for lr"),
        (optim.Adam, {"betas": (1.0, 0.9)}, r"two numbers in \[0, 1\) for betas, not \(1.0, 0.9\)"),
        (optim.Adam, {"betas": (0.9, -0.1)}, "betas"),
        (optim.Adam, {"betas": (0.9,)}, "betas"),
        (optim.Adam, {"betas": 0.9}, "two numbers .* not 0.9"),
        (optim.Adam, {"eps": 0.0}, "eps, not 0.0"),
        (optim.AdamW, {"weight_decay": -0.1}, "AdamW takes a number ≥ 0 for weight_decay"),
    ],
)
def test_settings_outside_their_range_are_refused(make, settings, words):
    with pytest.raises(OperandError, match=words):
        make([mg.parameter(1.0)], **settings)


def test_lr_and_factor_are_checked_when_they_are_set():
    sgd = optim.SGD([mg.parameter(1.0)], 0.1)
    with pytest.raises(OperandError, match="SGD takes a number > 0 for lr, not 0"):
        sgd.lr = 0
    with pytest.raises(OperandError, match="SGD takes a number ≥ 0 for factor, not nan"):
        sgd.factor = math.nan
    assert (sgd.lr, sgd.factor) == (0.1, 1.0)


@pytest.mark.parametrize(
    ("value", "g", "error", "words"),
    [
        (
            np.ones(3),
            np.ones(2),
            OperandError,
            r"gradient of 'p1' has shape \(2,\), and the parameter has shape \(3,\)",
        ),
        (np.ones(3), 1.0, OperandError, r"gradient of 'p1' has shape \(\)"),
        (1.0, np.ones(3), OperandError, r"the parameter has shape \(\)"),
    ],
)
def test_a_gradient_of_another_shape_is_refused_before_anything_moves(value, g, error, words):
    parameters = with_gradients((np.ones(2), np.ones(2)), (value, g))
    adam = optim.Adam(parameters)
    with pytest.raises(error, match=words):
        adam.step()
    assert parameters[0].value.tolist() == [1.0, 1.0]
    assert adam.state_dict()["settings"]["steps"] == [0, 0]


def test_a_parameter_that_changed_its_shape_or_kind_between_steps_is_refused():
    (p,) = with_gradients((np.ones(2), np.ones(2)))
    adam = optim.Adam([p])
    adam.step()
    p.value = p.grad = np.ones(3)
    with pytest.raises(OperandError, match=r"'p0' has shape \(3,\) .* at its last step had \(2,\)"):
        adam.step()
    p.value = p.grad = np.ones(2, np.float32)
    with pytest.raises(OperandError, match=r"'p0' has .* dtype float32, and at its last step had \(2,\) and float64"):
        adam.step()
    p.value, p.grad = 1, 1.0
    with pytest.raises(OperandTypeError, match="'p0' holds int64, and only floats"):
        adam.step()


# --- states --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STATEFUL)
def test_training_goes_on_bit_for_bit_from_a_saved_state(name, tmp_path):
    case = CASES[name]
    parameters, optimiser = start(case)
    for step in range(50):
        move(case, parameters, optimiser, step)
    state = optimiser.state_dict()
    np.savez(tmp_path / "arrays.npz", **state["arrays"])
    settings = json.dumps(state["settings"])
    values = [parameter.numpy() for parameter in parameters]
    for step in range(50, STEPS):
        move(case, parameters, optimiser, step)

    resumed, other = start(Case(case.optimiser, {"lr": 0.7}, case.groups and ({}, {})))
    for parameter, value in zip(resumed, values, strict=True):
        parameter.value = value
    with np.load(tmp_path / "arrays.npz") as arrays:
        other.load_state_dict({"arrays": arrays, "settings": json.loads(settings)})
    for step in range(50, STEPS):
        move(case, resumed, other, step)
    for a, b in zip(parameters, resumed, strict=True):
        np.testing.assert_array_equal(a.value, b.value)


def test_a_state_does_not_change_with_the_optimiser_nor_the_optimiser_with_the_state():
    (p,) = with_gradients((np.ones(2), np.ones(2)))
    first, second = optim.SGD([p], 0.1, momentum=0.9), optim.SGD([p], 0.1, momentum=0.9)
    first.step()
    state = first.state_dict()
    first.step()
    assert state["arrays"]["0.momentum"].tolist() == [1.0, 1.0]
    second.load_state_dict(state)
    state["arrays"]["0.momentum"][:] = math.nan
    assert second.state_dict()["arrays"]["0.momentum"].tolist() == [1.0, 1.0]


def test_a_state_keeps_the_factor_the_settings_of_groups_and_numbers():
    number, array = with_gradients((1.0, 1.0), (np.asfortranarray(np.ones((2, 3))), np.ones((2, 3))))
    first = optim.Adam([{"parameters": [number], "lr": 0.5}, {"parameters": [array], "betas": (0.1, 0.2)}])
    first.factor = 0.25
    first.step()
    second = optim.Adam([{"parameters": [number]}, {"parameters": [array]}], lr=1.0)
    second.load_state_dict(first.state_dict())
    assert second.factor == 0.25
    assert [group.settings for group in second.groups] == [group.settings for group in first.groups]
    assert second.state_dict()["settings"] == first.state_dict()["settings"]
    assert second.moved[1][2].buffers["squares"].flags.f_contiguous


def saved() -> dict:
    """A state of Adam over W (2, 3) and b (3,), of which only W has moved."""
    parameters = with_gradients((np.ones((2, 3)), np.ones((2, 3))), (np.ones(3), None))
    adam = optim.Adam(parameters)
    adam.step()
    return adam.state_dict()


def changed(**parts):
    state = saved()
    for place, value in parts.items():
        (state["arrays"] if place.startswith("a_") else state["settings"])[place.removeprefix("a_")] = value
    return state


def without(holder, name):
    state = saved()
    del (state[holder] if holder else state)[name]
    return state


GROUP = saved()["settings"]["groups"][0]


@pytest.mark.parametrize(
    ("state", "error", "words"),
    [
        ([], OperandTypeError, "the state is what state_dict.. gives, not list"),
        ({}, OperandError, "the state has no 'arrays'"),
        (without("", "settings"), OperandError, "the state has no 'settings'"),
        ({**saved(), "arrays": []}, OperandTypeError, "'arrays' of the state is no Mapping but list"),
        (changed(optimiser="SGD"), OperandError, "the state is that of SGD, and this is Adam"),
        (changed(optimiser=3), OperandTypeError, "'optimiser' .* is no str but int"),
        (without("settings", "steps"), OperandError, "no 'steps'"),
        (changed(steps=[1]), OperandError, "the steps of 1 parameters, not 2"),
        (changed(steps=[1, -1]), OperandError, "a whole number ≥ 0 for the steps of parameter 1, not -1"),
        (changed(steps=[1.5, 0]), OperandError, "the steps of parameter 0, not 1.5"),
        (changed(steps=[10**400, 0]), OperandError, "the steps of parameter 0, not 1000"),
        (changed(steps={}), OperandTypeError, "'steps' of the state's settings is no list but dict"),
        (changed(factor="1"), OperandError, "the state takes a number ≥ 0 for factor, not '1'"),
        (changed(factor=10**400), OperandError, "factor, not 1000"),
        (changed(groups=[]), OperandError, r"0 parameters in groups of \[\], and this Adam has 2 in groups of \[2\]"),
        (changed(groups=[GROUP, GROUP]), OperandError, r"4 parameters in groups of \[2, 2\]"),
        (changed(groups=[{**GROUP, "parameters": 1}]), OperandError, r"1 parameters in groups of \[1\]"),
        (changed(groups=[3]), OperandTypeError, "group 0 of the state is what state_dict.. gives, not int"),
        (changed(groups=[{**GROUP, "lr": -1}]), OperandError, "group 0 of the state takes a number > 0 for lr, not -1"),
        (changed(groups=[{**GROUP, "betas": [1]}]), OperandError, r"for betas, not \[1\]"),
        (changed(groups=[{**GROUP, "alpha": 1}]), OperandError, "group 0 of the state has no setting 'alpha'"),
        (changed(groups=[{"parameters": 2}]), OperandError, "group 0 of the state has no 'lr'"),
        (without("arrays", "0.squares"), OperandError, "lacks 'squares' of parameter 0, 'W', .* under '0.squares'"),
        (changed(**{"a_0.squares": [1.0]}), OperandTypeError, "'squares' of parameter 0, 'W', .* no array but list"),
        (
            changed(**{"a_0.squares": np.ones((3, 2))}),
            OperandError,
            r"parameter 0, 'W', has shape \(3, 2\) in the state, and the parameter has shape \(2, 3\)",
        ),
        (changed(**{"a_0.squares": np.ones((2, 3), np.float32)}), OperandError, "'W', has dtype float32 in the state"),
        (changed(**{"a_0.squares": np.full((2, 3), None)}), OperandError, "has dtype object in the state"),
        (changed(**{"a_1.squares": np.ones(3)}), OperandError, "'1.squares', which is that of no parameter that"),
        (changed(**{"a_7.squares": np.ones(3)}), OperandError, "'7.squares', which is that of no parameter that"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(state, error, words):
    W, b = with_gradients((np.ones((2, 3)), np.ones((2, 3))), (np.ones(3), np.ones(3)))
    W.name = "W"
    adam = optim.Adam([W, b], lr=0.5)
    adam.step()
    before = adam.state_dict()
    with pytest.raises(error, match=words):
        adam.load_state_dict(state)
    after = adam.state_dict()
    assert after["settings"] == before["settings"]
    for key, array in before["arrays"].items():
        np.testing.assert_array_equal(after["arrays"][key], array)


def test_a_state_whose_settings_do_not_go_together_is_refused():
    sgd = optim.SGD([mg.parameter(1.0)], 0.1)
    state = sgd.state_dict()
    state["settings"]["groups"][0]["nesterov"] = True
    with pytest.raises(OperandError, match="nesterov"):
        sgd.load_state_dict(state)


# --- clipping ------------------------------------------------------------------------------------------


def test_clip_grad_norm_scales_all_gradients_to_the_joint_norm():
    a, b, idle = with_gradients((np.zeros(2, np.float32), np.array([3.0, 0.0], np.float32)), (0.0, 4.0), (1.0, None))
    assert optim.clip_grad_norm([a, b, idle], 1.0) == pytest.approx(5.0)
    np.testing.assert_allclose(a.grad, [0.6, 0.0], rtol=1e-6)
    assert a.grad.dtype == np.float32
    assert b.grad == pytest.approx(0.8)
    assert type(b.grad) is float
    assert idle.grad is None


@pytest.mark.parametrize("max_norm", [0.6, math.inf])
def test_clip_grad_norm_leaves_small_gradients_as_they_are(max_norm):
    (a,) = with_gradients((np.zeros(2), np.array([0.3, 0.4])))
    held = a.grad
    assert optim.clip_grad_norm(iter([a]), max_norm) == pytest.approx(0.5)
    assert a.grad is held
    assert held.tolist() == [0.3, 0.4]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("power", [-0.85, -0.5, 0.0, 0.5, 0.85])
def test_clip_grad_norm_measures_gradients_of_any_size(dtype, power):
    size = float(np.finfo(dtype).max) ** power
    a, b = with_gradients(*[(np.zeros((2, 2)).astype(dtype), np.array(g, dtype)) for g in (0, 0)])
    a.grad, b.grad = dtype(size) * np.array([[1, 2], [4, 2]], dtype), np.zeros((2, 2), dtype)
    true = [float(entry) for entry in a.grad.flat]
    expected = math.hypot(*true)
    found = optim.clip_grad_norm([a, b], expected / 3)
    rtol = 1e-14 if dtype == np.float64 else 1e-6
    assert found == pytest.approx(expected, rel=rtol)
    precise = 8 * float(np.finfo(dtype).eps) + 2 * float(np.finfo(dtype).smallest_subnormal) / size
    np.testing.assert_allclose(np.asarray(a.grad, float).ravel(), [g / 3 for g in true], rtol=precise)
    assert a.grad.dtype == dtype
    assert b.grad.tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_clip_grad_norm_brings_huge_gradients_of_each_dtype_down_to_one():
    for dtype, size in ((np.float16, 6e4), (np.float32, 3e38), (np.float64, 1e300)):
        (p,) = with_gradients((np.zeros(100, dtype), np.full(100, size, dtype)))
        assert optim.clip_grad_norm([p], 1.0) == pytest.approx(float(dtype(size)) * 10, rel=1e-6)
        np.testing.assert_allclose(p.grad, np.full(100, 0.1), rtol=2e-3 if dtype == np.float16 else 1e-6)


def test_clip_grad_norm_of_zeros_or_of_nothing_is_zero():
    zero, number, empty, idle = with_gradients(
        (np.ones(3), np.zeros(3)), (1.0, 0.0), (np.ones(0), np.ones(0)), (1.0, None)
    )
    assert optim.clip_grad_norm([zero, number, empty, idle], 1.0) == 0.0
    assert optim.clip_grad_norm([idle], 1.0) == 0.0
    assert optim.clip_grad_norm([], 1.0) == 0.0
    assert zero.grad.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_clip_grad_norm_names_the_parameter_whose_gradient_is_not_finite(wrong, dtype):
    good, bad = with_gradients((1.0, 9.0), (np.ones(2, dtype), np.array([1.0, wrong], dtype)))
    with pytest.raises(NotFiniteError, match="the gradient of 'p1' is not finite"):
        optim.clip_grad_norm([good, bad], 1.0)
    assert good.grad == 9.0


def test_clip_grad_norm_refuses_a_norm_that_no_float_holds():
    parameters = with_gradients(*[(np.ones(2), np.full(2, 1.7e308))] * 2)
    with pytest.raises(NotFiniteError, match="the norm of all gradients together is not finite"):
        optim.clip_grad_norm(parameters, 1.0)
    assert parameters[0].grad.tolist() == [1.7e308, 1.7e308]


@pytest.mark.parametrize("clip", [optim.clip_grad_norm, optim.clip_grad_value])
def test_clipping_writes_into_no_array_that_may_be_in_other_hands(clip):
    shared, fixed = np.array([30.0, -40.0]), np.broadcast_to(np.array(5.0), (2, 2))
    a, b, c = with_gradients((np.zeros(2), shared), (np.zeros(2), shared), (np.zeros((2, 2)), fixed))
    clip([a, b, c], 1.0)
    assert shared.tolist() == [30.0, -40.0]
    assert fixed.tolist() == [[5.0, 5.0], [5.0, 5.0]]
    np.testing.assert_array_equal(a.grad, b.grad)  # not clipped twice
    factor = 1.0 / math.sqrt(2 * 50.0**2 + 4 * 5.0**2)
    expected = [30 * factor, -40 * factor] if clip is optim.clip_grad_norm else [1.0, -1.0]
    np.testing.assert_allclose(a.grad, expected, rtol=1e-14)


def test_clipping_leaves_the_gradients_of_a_run_as_they_are():
    w = mg.parameter(np.array([3.0, 4.0]), name="w")
    run = mg.compile(mg.sum(w * w))(steps=1)
    run.backward()
    optim.clip_grad_norm([w], 1.0)
    assert run.grads["w"].tolist() == [6.0, 8.0]
    np.testing.assert_allclose(w.grad, [0.6, 0.8])


def test_clip_grad_value_bounds_every_element_in_its_dtype():
    a, b, idle = with_gradients(
        (np.zeros(4, np.float32), np.array([0.1, -0.2, 9.0, -math.inf], np.float32)), (0.0, -4.0), (1.0, None)
    )
    optim.clip_grad_value((p for p in (a, b, idle)), 0.5)
    np.testing.assert_array_equal(a.grad, np.array([0.1, -0.2, 0.5, -0.5], np.float32))
    assert a.grad.dtype == np.float32
    assert b.grad == -0.5
    assert type(b.grad) is float
    assert idle.grad is None


def test_clip_grad_value_with_a_limit_past_the_dtype_keeps_finite_gradients():
    (a,) = with_gradients((np.zeros(2, np.float32), np.array([3e38, -1.0], np.float32)))
    optim.clip_grad_value([a], 1e300)
    np.testing.assert_array_equal(a.grad, np.array([3e38, -1.0], np.float32))


def test_clip_grad_value_names_the_parameter_whose_gradient_holds_a_nan():
    good, bad = with_gradients((1.0, 9.0), (np.ones(2), np.array([1.0, math.nan])))
    with pytest.raises(NotFiniteError, match="the gradient of 'p1' holds a NaN"):
        optim.clip_grad_value([good, bad], 1.0)
    assert good.grad == 9.0


@pytest.mark.parametrize("clip", [optim.clip_grad_norm, optim.clip_grad_value])
@pytest.mark.parametrize("limit", [0.0, -1.0, math.nan, "1", None])
def test_clipping_refuses_a_limit_that_is_no_positive_number(clip, limit):
    (p,) = with_gradients((1.0, 9.0))
    with pytest.raises(OperandError, match=rf"{clip.__name__} takes a number > 0 for \w+, not {limit!r}"):
        clip([p], limit)
    with pytest.raises(OperandTypeError, match=r"takes a list of parameters: write \[p0\]"):
        clip(p, 1.0)
    assert p.grad == 9.0


# --- schedules -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (optim.Step(3), {0: 1.0, 2: 1.0, 3: 0.1, 5: 0.1, 6: 0.01, 3000: 0.0}),
        (optim.Step(1, 0.0), {0: 1.0, 1: 0.0, 2: 0.0}),
        (optim.Cosine(10), {0: 1.0, 5: 0.5, 10: 0.0, 10**12: 0.0}),
        (optim.Cosine(2, 0.5), {0: 1.0, 1: 0.75, 2: 0.5, 3: 0.5}),
        (optim.WarmUp(4), {0: 0.25, 1: 0.5, 3: 1.0, 4: 1.0, 10**12: 1.0}),
        (optim.WarmUp(1, optim.Step(1, 0.5)), {0: 1.0, 1: 1.0, 2: 0.5, 3: 0.25}),
        (optim.WarmUp(2, optim.WarmUp(2)), {0: 0.5, 1: 1.0, 2: 0.5, 3: 1.0, 4: 1.0}),
        (optim.WarmUp(2, lambda step: step / 8), {1: 1.0, 2: 0.0, 3: 0.125}),
    ],
)
def test_schedule_is_a_function_of_the_step_alone(schedule, expected):
    for step, factor in reversed(expected.items()):
        assert schedule(step) == pytest.approx(factor, abs=1e-15)
        assert schedule(np.int64(step)) == schedule(step)
        assert type(schedule(step)) is float


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: optim.Step(0), OperandError, "Step takes a whole number ≥ 1 for every, not 0"),
        (lambda: optim.Step(2.0), OperandError, "for every, not 2.0"),
        (lambda: optim.Step(True), OperandError, "for every, not True"),
        (lambda: optim.Step(2, -0.1), OperandError, "Step takes a number ≥ 0 for factor, not -0.1"),
        (lambda: optim.Cosine(0), OperandError, "Cosine takes a whole number ≥ 1 for steps, not 0"),
        (lambda: optim.Cosine(5, 1.5), OperandError, "Cosine takes a number from 0 to 1 for floor, not 1.5"),
        (lambda: optim.WarmUp(-1), OperandError, "WarmUp takes a whole number ≥ 1 for steps, not -1"),
        (lambda: optim.WarmUp(5, 0.5), OperandTypeError, "WarmUp takes a schedule for then, .* not 0.5"),
        (lambda: optim.Step(2)(-1), OperandError, "Step takes a whole number ≥ 0 for the step, not -1"),
        (lambda: optim.Cosine(2)(0.5), OperandError, "for the step, not 0.5"),
        (lambda: optim.WarmUp(2)(-1), OperandError, "WarmUp takes a whole number ≥ 0 for the step, not -1"),
    ],
)
def test_schedules_refuse_what_is_no_schedule(make, error, words):
    with pytest.raises(error, match=words):
        make()
