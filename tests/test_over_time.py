"""Plots over time: what is drawn is what was computed, and nothing is hidden, clipped or read as a formula."""

import builtins
import itertools
import math
import pickle
import sys
import warnings

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.text import Text
from networks import NETWORKS, bidirectional, lstm, rnn

import microgrid as mg
from microgrid.errors import (
    FileFormatError,
    GradientError,
    MissingExtraError,
    OperandIndexError,
    OperandTypeError,
    SequenceError,
    TimestepError,
    UnknownNameError,
)
from microgrid.jacobians import jacobians as jacobian_arrays
from viz.over_time import gradient_flow, heatmap, jacobians, loss_curve
from viz.over_time.lines import factor_per_step

HOSTILE = ["$x$", "$\\frac{", "_hidden", "a\nb", "x" * 300, "%s {0}"]


def ran(net=None, steps=6):
    """A network unrolled over random numbers and backpropagated through."""
    net = net or rnn()
    rng = np.random.default_rng(0)
    dag = net.unroll({net.names[node]: rng.normal(size=(steps, *node.shape)) for node in net.inputs}, steps=steps)
    dag.backward()
    return dag


def scalar(name="h", factor=0.5, steps=8, reverse=False):
    h = mg.state(1.0, name=name, reverse=reverse)
    h.next = factor * h
    end = mg.first(h.next) if reverse else mg.last(h.next)
    dag = mg.Graph(loss=end).unroll(steps=steps)
    dag.backward()
    return dag


def legend_of(figure):
    (legend,) = [*figure.legends, *(ax.get_legend() for ax in figure.axes if ax.get_legend())]
    return [text.get_text() for text in legend.get_texts()]


def marks(ax, meaning):
    return list(itertools.chain(*(line.get_xdata() for line in ax.lines if line.get_gid() == meaning)))


def texts(figure):
    return [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]


def check_layout(figure):
    """Nothing lies outside the figure; titles, labels, legends, colour bars and Axes lie beside each other."""
    figure.draw_without_rendering()
    boxes = {f"legend {i}": legend.get_window_extent() for i, legend in enumerate(figure.legends)}
    for i, ax in enumerate(figure.axes):
        whole = ax.get_tightbbox()
        for found, bound in zip(whole.extents, (0, 0, figure.bbox.x1, figure.bbox.y1), strict=True):
            assert abs(found - bound) < 1 or (found > bound) == (bound == 0), f"Axes {i} reach outside: {whole}"
        boxes[f"Axes {i}"] = ax.get_window_extent()
        boxes |= {f"{text.get_text()!r} {i}": text.get_window_extent() for text in labels(ax) if text.get_text()}
    for (one, a), (two, b) in itertools.combinations(boxes.items(), 2):
        assert a.x1 < b.x0 + 1 or b.x1 < a.x0 + 1 or a.y1 < b.y0 + 1 or b.y1 < a.y0 + 1, f"{one} over {two}"


def labels(ax):
    return ax.title, ax.xaxis.label, ax.yaxis.label


# --- gradient_flow -----------------------------------------------------------------------------------


def test_a_line_is_the_norms_of_the_gradients():
    dag = ran(bidirectional())
    ax = gradient_flow(dag).axes[0]
    h, k = ax.lines
    for line, name in ((h, "h"), (k, "k")):
        by_hand = [math.sqrt(sum(g * g for g in dag[name, t].grad.flat)) for t in range(6)]
        np.testing.assert_allclose(line.get_ydata(), by_hand, rtol=1e-14)
        assert line.get_xdata().tolist() == [0, 1, 2, 3, 4, 5]
    assert ax.get_yscale() == "log"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("timestep t", "‖∂loss/∂stateₜ‖")
    (x,) = gradient_flow(dag, dag.graph["x"], "x").axes[0].lines
    np.testing.assert_allclose(x.get_ydata(), np.linalg.norm(dag.grads("x"), axis=(1, 2)))


@given(st.floats(0.01, 3.0), st.integers(3, 30), st.booleans())
@settings(max_examples=8, deadline=None)
def test_the_legend_gives_the_factor_per_step_back(factor, steps, reverse):
    assert legend_of(gradient_flow(scalar("h", factor, steps, reverse))) == [f"h  × {factor:.3g} per step"]


def test_no_factor_is_given_where_no_line_fits():
    assert factor_per_step(np.array([1.0, 100.0, 0.01, 50.0, 0.02])) is None
    assert factor_per_step(np.array([1.0, 2.0])) is None
    assert factor_per_step(np.array([0.0, 1.0, 2.0, np.nan, 8.0])) == 0.5


def test_zeros_and_what_is_not_finite_are_marked():
    dag = scalar(steps=8)
    for t, grad in ((1, 0.0), (3, np.inf), (4, np.nan), (6, None)):
        dag["h", t].grad = grad
    figure = gradient_flow(dag)
    ax = figure.axes[0]
    assert np.flatnonzero(np.isfinite(ax.lines[0].get_ydata())).tolist() == [0, 2, 5, 7]
    assert marks(ax, "exactly 0") == [1, 6]
    assert marks(ax, "not finite") == [3, 4]
    assert legend_of(figure)[1:] == ["exactly 0", "not finite"]


def test_a_gradient_that_is_zero_everywhere_can_be_drawn():
    h = mg.state(np.ones(2), name="h")
    h.next = mg.relu(h - 10.0)
    dag = mg.Graph(loss=mg.last(mg.sum(h.next))).unroll(steps=4)
    dag.backward()
    ax = gradient_flow(dag).axes[0]
    assert marks(ax, "exactly 0") == [0, 1, 2, 3]
    assert ax.get_yticks().size == 0


def test_large_and_small_gradients_are_squared_without_loss():
    h = mg.state(np.zeros(2), name="h")
    h.next = mg.tanh(h)
    dag = mg.Graph(loss=mg.last(mg.sum(h.next))).unroll(steps=4)
    dag.backward()
    dag["h", 0].grad, dag["h", 1].grad = np.array([3e200, 4e200]), np.array([3e-200, 4e-200])
    np.testing.assert_allclose(gradient_flow(dag).axes[0].lines[0].get_ydata()[:2], [5e200, 5e-200])


def test_a_start_that_the_batch_shares_is_left_out():
    x = mg.input(np.zeros((1, 2)), name="x")
    net = mg.Graph(loss=mg.last(mg.sum(mg.nn.RNN(2, 3, rng=0)(x))))
    dag = net.unroll(x=np.ones((5, 4, 2), np.float32))
    dag.backward()
    ax = gradient_flow(dag).axes[0]
    assert np.isnan(ax.lines[0].get_ydata()).tolist() == [True, False, False, False, False]
    assert marks(ax, "not finite") == []


def test_dozens_of_states_stay_legible():
    node = mg.input(0.5, name="x")
    for k in range(40):
        h = mg.state(0.0, name=f"layer_{k}$")
        h.next = mg.tanh(0.9 * node + 0.1 * h)
        node = h.next
    dag = mg.Graph(loss=mg.last(node)).unroll(steps=5)
    dag.backward()
    figure = gradient_flow(dag)
    assert len(figure.axes[0].lines) == 40
    assert len(legend_of(figure)) == 2
    assert [text.get_text() for text in figure.axes[1].get_yticklabels()] == ["layer_0$", "layer_39$"]
    check_layout(figure)


# --- heatmap -----------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 4), max_size=3), st.integers(1, 5), st.data())
@settings(max_examples=10, deadline=None)
def test_a_heatmap_is_features_by_timesteps_of_one_sequence(shape, steps, data):
    batch = data.draw(st.integers(0, shape[0] - 1)) if len(shape) > 1 else 0
    x = mg.input(np.zeros(shape), name="x")
    xs = np.random.default_rng(0).normal(size=(steps, *shape))
    dag = mg.Graph(loss=mg.time_sum(mg.sum(x * x))).unroll(x=xs)
    dag.backward()
    expected = (xs[:, batch] if len(shape) > 1 else xs).reshape(steps, -1).T
    for gradient, factor in ((False, 1), (True, 2)):
        ax = heatmap(dag, "x", gradient=gradient, batch=batch).axes[0]
        np.testing.assert_allclose(ax.images[0].get_array(), factor * expected)
        assert ax.get_ylabel().startswith("feature" if shape else "")
        assert ("flattened" in ax.get_ylabel()) == (len(shape) > 2)


def test_colours_are_centred_where_there_are_signs():
    dag = ran()
    signed = heatmap(dag, "x").axes[0].images[0]
    assert signed.norm.vmin == -signed.norm.vmax == -np.abs(dag.values("x")[:, 0]).max()
    x = mg.input(0.0, name="x")
    unsigned = heatmap(mg.Graph(x * 1.0).unroll(x=[1.0, 2.0]), "x").axes[0].images[0]
    assert (unsigned.norm.vmin, unsigned.norm.vmax, unsigned.cmap.name) == (0.0, 2.0, "cividis")
    assert heatmap(dag, "h", gradient=True).axes[1].get_ylabel() == "∂loss/∂h"
    zeros = heatmap(mg.Graph(x * 1.0).unroll(x=[0.0, 0.0]), "x").axes[0].images[0]
    assert zeros.norm.vmax == 1.0


def test_what_is_not_finite_is_grey_and_said_so():
    x = mg.input(np.zeros(2), name="x")
    dag = mg.Graph(x * 1.0).unroll(x=[[1.0, np.nan], [-np.inf, 4.0]])
    figure = heatmap(dag, "x")
    image = figure.axes[0].images[0]
    assert image.get_array().mask.tolist() == [[False, True], [True, False]]
    assert image.norm.vmax == 4.0
    assert "grey: not finite" in figure.axes[0].get_xlabel()


def test_ticks_are_whole_numbers():
    for steps, draw in ((1, gradient_flow), (2, gradient_flow), (3, lambda dag: heatmap(dag, "h"))):
        shown = [text.get_text() for text in draw(ran(steps=steps)).axes[0].get_xticklabels()]
        assert shown
        assert all(label.lstrip("−").isdigit() for label in shown)


# --- jacobians ---------------------------------------------------------------------------------------


def test_lines_are_singular_values_of_steps_and_of_their_product():
    dag = ran(NETWORKS["learnable_start"](), steps=6)
    whole, one, at_one = jacobians(dag).axes[0].lines
    found = jacobian_arrays(dag)
    np.testing.assert_allclose(one.get_ydata(), [np.linalg.svd(j)[1][0] for j in found], rtol=1e-12)
    product, expected = np.eye(3), [1.0]
    for jacobian in found[::-1]:
        product = product @ jacobian
        expected.insert(0, np.linalg.svd(product)[1][0])
    np.testing.assert_allclose(whole.get_ydata(), expected, rtol=1e-10)
    assert list(at_one.get_ydata()) == [1.0, 1.0]


def test_the_product_of_a_reverse_state_starts_at_the_first_timestep():
    whole, one, _ = jacobians(scalar(factor=0.5, steps=4, reverse=True)).axes[0].lines
    np.testing.assert_allclose(whole.get_ydata(), [1.0, 0.5, 0.25, 0.125])
    assert one.get_xdata().tolist() == [1, 2, 3]


@pytest.mark.parametrize(("factor", "mark"), [(1e-3, None), (1e3, "not finite"), (0.0, "exactly 0")])
def test_a_product_beyond_all_numbers_is_not_called_zero(factor, mark):
    ax = jacobians(scalar(factor=factor, steps=300)).axes[0]
    shown = ax.lines[0].get_ydata()
    assert shown[-1] == 1.0
    assert np.isnan(shown[0])
    for meaning in ("exactly 0", "not finite"):
        assert (0 in marks(ax, meaning)) == (meaning == mark)


def test_the_states_are_named():
    figure = jacobians(lstm().unroll(steps=12))
    assert figure.axes[0].get_title() == "Jacobians of the timesteps, h = (h, c)"
    assert legend_of(figure)[0].startswith("all timesteps: ‖∂h₁₁/∂hₜ‖₂")
    assert legend_of(jacobians(ran(bidirectional()), "k"))[1] == "one timestep: ‖∂kₜ₋₁/∂kₜ‖₂"


# --- loss_curve --------------------------------------------------------------------------------------


ROWS = [
    {"epoch": k, "step": 10 * k, "loss": 2.0**-k, "validation loss": abs(k - 6) + 0.5, "seconds": 0.1}
    for k in range(1, 9)
]


def test_a_history_its_file_and_its_columns_draw_the_same(tmp_path):
    history = mg.History(ROWS)
    x, target = mg.input(np.zeros((1, 1)), name="x"), mg.input(np.zeros((1, 1)), name="target")
    loss = mg.nn.mse(mg.nn.Linear(1, 1, rng=0, dtype=np.float64)(x), target)
    data = {"x": np.ones((2, 3, 1)), "target": np.zeros((2, 3, 1))}
    fitted = mg.fit(loss, data, epochs=3, validation=data, log=tmp_path / "log.csv", progress=False)
    for log, rows in (
        (history, ROWS),
        ({name: history[name] for name in ("epoch", "loss", "validation loss")}, ROWS),
        (fitted, fitted.rows),
        (tmp_path / "log.csv", fitted.rows),
        (str(tmp_path / "log.csv"), fitted.rows),
        (list(fitted), fitted.rows),
    ):
        figure = loss_curve(log)
        ax = figure.axes[0]
        for line, name in zip(ax.lines, ("loss", "validation loss"), strict=False):
            np.testing.assert_allclose(line.get_ydata(), [row[name] for row in rows], rtol=1e-6)
            assert line.get_xdata().tolist() == [row["epoch"] for row in rows]
        assert ax.get_xlabel() == "epoch"
        assert legend_of(figure)[:2] == ["loss", "validation loss"]


def test_the_lowest_validation_loss_is_marked():
    figure = loss_curve(mg.History(ROWS))
    (ring,) = [line for line in figure.axes[0].lines if line.get_gid() == "best"]
    assert (ring.get_xdata()[0], ring.get_ydata()[0]) == (6, 0.5)
    assert legend_of(figure)[2] == "lowest validation loss: 0.5, epoch 6"


@pytest.mark.parametrize(
    ("losses", "scale"),
    [
        ([1.0, 0.5], "linear"),
        ([1.0, 0.05], "log"),
        ([1.0, -3.0, 20.0], "linear"),
        ([0.0, 5.0], "linear"),
        ([3.0], "linear"),
    ],
)
def test_the_axis_is_logarithmic_over_a_decade(losses, scale):
    ax = loss_curve(losses).axes[0]
    assert ax.get_yscale() == scale
    assert ax.lines[0].get_ydata().tolist() == losses


def test_missing_losses_are_left_out_and_infinite_ones_marked():
    figure = loss_curve({"step": [1, 2, 3, 4], "train": [2.0, np.inf, 1.0, 0.9], "val": [3.0, 2.0]})
    ax = figure.axes[0]
    assert ax.get_xlabel() == "step"
    assert [line.get_xdata().tolist() for line in ax.lines[::2][:1]] == [[1, 2, 3, 4]]
    assert marks(ax, "not finite") == [2]
    assert "lowest val: 2, step 2" in legend_of(figure)


def test_losses_that_are_none_are_refused(tmp_path):
    for log in ([], {}, {"epoch": [1, 2]}, mg.History()):
        with pytest.raises(SequenceError, match="no loss to plot"):
            loss_curve(log)
    with pytest.raises(OperandTypeError, match=r"what mg\.fit returned"):
        loss_curve(3.0)
    with pytest.raises(OperandTypeError, match="'two', which is no number"):
        loss_curve([1.0, "two"])
    for content in ("epoch,loss\n1,abc\n", "loss\n1,2,3\n", "\x00\x01"):
        (tmp_path / "log.csv").write_text(content)
        with pytest.raises((FileFormatError, SequenceError)):
            loss_curve(tmp_path / "log.csv")
    with pytest.raises(FileNotFoundError):
        loss_curve(tmp_path / "none.csv")


# --- all of them -------------------------------------------------------------------------------------


def all_plots(dag, name, **where):
    yield gradient_flow(dag, **where)
    yield gradient_flow(dag, name, dag.graph.output.operands[0], **where)
    yield heatmap(dag, name, **where)
    yield heatmap(dag, name, gradient=True, **where)
    yield jacobians(dag, **where)
    yield loss_curve({name: [1.0, 0.5, 0.01], "val": [1.0, 2.0, 3.0]}, **where)


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_text_and_never_formulas(name):
    for figure in all_plots(scalar(name), name):
        written = [text for ax in figure.axes for text in labels(ax) if text.get_text()]
        for text in written + [text for legend in figure.legends for text in legend.get_texts()]:
            assert not text.get_parse_math(), text
            assert "\n" not in text.get_text()
            assert not text.get_usetex()


def test_a_long_name_that_is_no_formula_has_its_place():
    name = "$\\frac{" + 50 * "x"
    dag = scalar(name)
    for figure in (gradient_flow(dag), heatmap(dag, name, gradient=True), jacobians(dag)):
        check_layout(figure)


def test_no_figure_is_left_open_and_no_setting_of_the_user_changes():
    import matplotlib.pyplot as plt

    plt.close("all")
    before, backend = dict(matplotlib.rcParams), matplotlib.get_backend()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for figure in all_plots(scalar(), "h"):
            assert isinstance(figure, Figure)
    assert plt.get_fignums() == []
    assert dict(matplotlib.rcParams) == before
    assert matplotlib.get_backend() == backend


def test_axes_that_are_given_are_drawn_into():
    figure = Figure(layout="constrained", figsize=(12, 9))
    upper, lower = figure.subfigures(2, 1)
    places = [*upper.subplots(1, 3), *lower.subplots(1, 3)]
    dag = scalar()
    for draw, ax in zip(
        (
            lambda ax: gradient_flow(dag, ax=ax),
            lambda ax: heatmap(dag, "h", ax=ax),
            lambda ax: jacobians(dag, ax=ax),
            lambda ax: loss_curve([1.0, 2.0], ax=ax),
        ),
        places,
        strict=False,
    ):
        assert draw(ax) is figure
        assert ax.get_title()
    for wrong in (np.array(places), figure, "ax"):
        with pytest.raises(OperandTypeError, match=r"one Axes as in figure, ax = plt\.subplots\(\)"):
            gradient_flow(dag, ax=wrong)


def test_a_figure_saves_shows_itself_and_can_be_pickled(tmp_path):
    figure = gradient_flow(scalar())
    figure.savefig(tmp_path / "flow.svg")
    assert (tmp_path / "flow.svg").stat().st_size > 1000
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert pickle.loads(pickle.dumps(figure)).axes[0].get_title() == figure.axes[0].get_title()


def test_nothing_overlaps_or_is_cut_off():
    dag = ran(bidirectional())
    for figure in (gradient_flow(dag), jacobians(dag), heatmap(dag, "h"), loss_curve(mg.History(ROWS))):
        check_layout(figure)


def test_without_matplotlib_an_error_says_how_to_install_it(monkeypatch):
    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name.split(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    dag = scalar()
    for module in [name for name in sys.modules if name.startswith("viz.over_time.chart")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(builtins, "__import__", missing)
    for draw in (
        lambda: gradient_flow(dag),
        lambda: heatmap(dag, "h"),
        lambda: jacobians(dag),
        lambda: loss_curve([1.0]),
    ):
        with pytest.raises(MissingExtraError, match=r"pip install 'microgrid-autodiff\[plots\]'"):
            draw()


def test_errors_say_what_to_do():
    net = rnn()
    fresh = net.unroll(steps=3)
    for draw in (lambda: gradient_flow(fresh), lambda: heatmap(fresh, "h", gradient=True)):
        with pytest.raises(GradientError, match=r"call dag\.backward\(\) first"):
            draw()
    for draw in (gradient_flow, jacobians, lambda graph: heatmap(graph, "h")):
        with pytest.raises(OperandTypeError, match=r"takes an unrolled graph, not Graph; unroll it first"):
            draw(net)
    dag = ran()
    for draw in (gradient_flow, heatmap):
        with pytest.raises(UnknownNameError, match="Did you mean 'target'"):
            draw(dag, "targt")
        with pytest.raises(TimestepError, match="'U' has one value for the whole sequence"):
            draw(dag, "U")
    for batch in (2, -1):
        with pytest.raises(OperandIndexError, match="'h' holds 2 sequences"):
            heatmap(dag, "h", batch=batch)
    with pytest.raises(TimestepError, match="unroll for more"):
        jacobians(net.unroll(steps=1))
    x = mg.input(1.0, name="x")
    plain = mg.Graph(loss=mg.time_sum(x * x)).unroll(steps=2)
    plain.backward()
    with pytest.raises(OperandTypeError, match="no states whose gradients to plot: name nodes"):
        gradient_flow(plain)
