"""Checkpoints: a run that was stopped, however and whenever, ends as if it never was; and no file does harm."""

import csv
import errno
import json
import math
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import microgrid as mg
from microgrid.data import Batch, Buckets, Minibatches, Windows
from microgrid.errors import FileFormatError, MicrogridError, NotFiniteError
from microgrid.files import arrays as files_arrays
from microgrid.files import whole
from microgrid.files.arrays import read_arrays, write_arrays

HERE = str(Path(mg.__file__).parents[1])
ENVIRONMENT = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": HERE}


def sequences(steps=14, batch=2, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=(steps, batch, 1)) for name in ("x", "target")}


LISTS = [np.random.default_rng(n).normal(size=(n, 1)) for n in (3, 9, 4, 4, 7, 2, 5)]


class Stop(Exception):
    """What ends a run in the middle of a step or a validation, as a power cut would."""


class Setting:
    """A network with all that a run has: dropout, an optimiser with memory, a schedule, clipping, validation."""

    def __init__(self, cell=mg.nn.RNN, data=None, rng=None, hidden=3, optimiser=mg.optim.Adam, **more):
        x, target = mg.input(np.zeros((1, 1)), name="x"), mg.input(np.zeros((1, 1)), name="target")
        self.rng = np.random.default_rng(7) if rng is None else rng
        h = mg.nn.Dropout(0.4, rng=self.rng)(cell(1, hidden, rng=0, **more)(x))
        self.loss = mg.nn.mse(mg.nn.Linear(h.shape[-1], 1, rng=1)(h), target)
        self.graph = mg.Graph(self.loss)
        self.optimiser = optimiser(self.graph.parameters, lr=0.05)
        self.data = Windows(sequences(), 4) if data is None else data

    def fit(self, path, epochs=3, *, stop_at=None, **settings):
        shape = mg.optim.WarmUp(3, then=mg.optim.Cosine(30, floor=0.1))

        def schedule(step):
            if step == stop_at:
                raise Stop
            return shape(step)

        given = {"save_every": 0.0, "clip_norm": 0.5, "validation": sequences(6, 1, seed=1), "patience": 9}
        return mg.fit(
            self.loss,
            self.data,
            epochs=epochs,
            optimiser=self.optimiser,
            schedule=schedule,
            checkpoint=path,
            progress=False,
            **{**given, **settings},
        )

    def standing(self):
        """All that a run changes, comparable bit for bit."""
        state = self.optimiser.state_dict()
        return {
            "parameters": {self.graph.names[p]: p.value.tobytes() for p in self.graph.parameters},
            "buffers": {key: (x.dtype.str, x.tobytes()) for key, x in state["arrays"].items()},
            "settings": state["settings"],
            "generator": repr(self.rng.bit_generator.state),
        }


def timeless(history):
    """The rows without the seconds."""
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]


SETTINGS = {
    "carried states": {},
    "overlapping windows": {"data": Windows(sequences(), 6, 4)},
    "LSTM of two layers": {"cell": mg.nn.LSTM, "num_layers": 2, "data": Windows(sequences(), 5)},
    "both directions": {"cell": mg.nn.GRU, "bidirectional": True, "data": Windows(sequences(), 5)},
    "buckets": {"data": Buckets({"x": LISTS, "target": LISTS}, 2, seed=3)},
    "minibatches": {"data": Minibatches({"x": np.ones((7, 5, 1)), "target": np.ones((7, 5, 1))}, 2, seed=3)},
    "momentum": {"optimiser": lambda p, lr: mg.optim.SGD(p, lr=lr, momentum=0.9)},
    "RMSprop": {"optimiser": mg.optim.RMSprop},
}


@pytest.fixture(autouse=True)
def _without_waiting_for_the_disk(monkeypatch):
    """These write thousands of files; that each is on the disk before it takes its name, test_model_files sees."""
    monkeypatch.setattr(whole.os, "fsync", lambda descriptor: None)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.safetensors"


def stopped_in(path, at=5, **settings):
    """A run that ended in the middle of its second epoch; the file stays."""
    setting = Setting(**settings)
    with pytest.raises(Stop):
        setting.fit(path, stop_at=at)
    return setting


# --- resumed = uninterrupted ----------------------------------------------------------------------------


@pytest.mark.parametrize("case", SETTINGS)
def test_a_run_stopped_in_every_step_ends_as_one_that_never_was(case, path):
    never = Setting(**SETTINGS[case])
    expected = never.fit(None)
    steps = int(expected["step"][-1])
    assert steps >= 9
    for stop_at in range(1, steps):  # each run makes one step and dies in the next
        stopped_in(path, stop_at, **SETTINGS[case])
    last = Setting(**SETTINGS[case])
    found = last.fit(path)
    assert last.standing() == never.standing()
    assert timeless(found) == timeless(expected)
    assert (found.best_epoch, found.stopped) == (expected.best_epoch, "epochs")


@pytest.mark.parametrize("case", ["carried states", "overlapping windows", "buckets"])
def test_any_one_stop_in_an_epoch_changes_nothing(case, path):
    never = Setting(**SETTINGS[case])
    expected = never.fit(None, epochs=2)
    per_epoch = len(never.data)
    for stop_at in range(per_epoch, 2 * per_epoch):
        path.unlink(missing_ok=True)
        stopped_in(path, stop_at, **SETTINGS[case])
        again = Setting(**SETTINGS[case])
        assert timeless(again.fit(path, epochs=2)) == timeless(expected)
        assert again.standing() == never.standing()


class Dying:
    """Validation data that ends the run the n-th time that it is read."""

    def __init__(self, dies):
        self.dies, self.read = dies, 0

    def __len__(self):
        return 1

    def epoch(self, number, start=0):
        self.read += 1
        if self.read == self.dies:
            raise Stop
        yield Batch(sequences(6, 1, seed=1))


def test_a_stop_between_the_last_batch_and_the_end_of_an_epoch_changes_nothing(path):
    never = Setting()
    expected = never.fit(None)
    for dies in 1, 2, 2:  # in each epoch, the first of which is done
        with pytest.raises(Stop):
            Setting().fit(path, validation=Dying(dies))
    again = Setting()
    assert timeless(again.fit(path)) == timeless(expected)
    assert again.standing() == never.standing()


def test_more_epochs_go_on_from_those_that_are_done(path):
    never = Setting()
    expected = never.fit(None, epochs=4)
    for epochs in 1, 2, 2, 4:
        last = Setting()
        found = last.fit(path, epochs=epochs)
        assert len(found) == epochs
    assert timeless(found) == timeless(expected)
    assert last.standing() == never.standing()


class Rising:
    """Validation data on which each epoch is worse than the one before, but for the `best`."""

    def __init__(self, best, read=0):
        self.best, self.read = best, read

    def __len__(self):
        return 1

    def epoch(self, number, start=0):
        self.read += 1
        level = 0 if self.read == self.best else self.read
        yield Batch({"x": np.zeros((2, 1, 1)), "target": np.full((2, 1, 1), 10.0 * level)})


def test_patience_is_counted_over_stops_and_the_best_parameters_are_kept(path):
    best, never = Setting(), Setting()
    best.fit(None, epochs=2, patience=None)
    expected = never.fit(None, epochs=9, validation=Rising(2), patience=3)
    assert (expected.stopped, expected.best_epoch, len(expected)) == ("patience", 2, 5)
    per_epoch = len(never.data)
    for epoch in range(5):  # in the middle of each epoch
        with pytest.raises(Stop):
            Setting().fit(path, 9, stop_at=epoch * per_epoch + 2, validation=Rising(2, max(0, epoch - 1)), patience=3)
    for _ in range(2):  # a run that is over may be asked again
        last = Setting()
        found = last.fit(path, 9, validation=Rising(2, 4), patience=3)
        assert (found.stopped, found.best_epoch, len(found)) == ("patience", 2, 5)
        assert last.standing()["parameters"] == never.standing()["parameters"] == best.standing()["parameters"]
    assert timeless(found) == timeless(expected)


def test_a_run_that_ended_by_patience_goes_on_from_its_last_parameters(path):
    never = Setting()
    expected = never.fit(None, epochs=7, validation=Rising(2), patience=None)
    Setting().fit(path, epochs=7, validation=Rising(2), patience=3)
    again = Setting()
    found = again.fit(path, epochs=7, validation=Rising(2, 5), patience=None)
    assert timeless(found) == timeless(expected)
    assert again.standing() == never.standing()


def test_patience_asked_for_later_knows_the_parameters_of_the_best_epoch(path):
    best = Setting()
    best.fit(None, epochs=2, patience=None)
    Setting().fit(path, epochs=3, validation=Rising(2), patience=None)
    again = Setting()
    found = again.fit(path, epochs=9, validation=Rising(2, 3), patience=3)
    assert (found.stopped, found.best_epoch) == ("patience", 2)
    assert again.standing()["parameters"] == best.standing()["parameters"]


@pytest.mark.parametrize("kind", ["PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"])
def test_every_random_generator_of_numpy_is_kept(kind, path):
    def setting():
        return Setting(rng=np.random.Generator(getattr(np.random, kind)(3)))

    never = setting()
    never.fit(None, epochs=2)
    with pytest.raises(Stop):
        setting().fit(path, epochs=2, stop_at=5)
    again = setting()
    again.fit(path, epochs=2)
    assert again.standing() == never.standing()


def test_layers_that_share_a_generator_share_it_after_a_stop(path):
    def make():
        rng = np.random.default_rng(3)
        x, target = mg.input(np.zeros((1, 1)), name="x"), mg.input(np.zeros((1, 1)), name="target")
        h = mg.nn.RNN(1, 3, num_layers=3, dropout=0.3, rng=rng)(x)
        return mg.nn.mse(mg.nn.Linear(3, 1, rng=1)(mg.nn.Dropout(0.3, rng=rng)(h)), target)

    expected = mg.fit(make(), Windows(sequences(), 4), epochs=3, progress=False)
    mg.fit(make(), Windows(sequences(), 4), epochs=1, progress=False, checkpoint=path)
    found = mg.fit(make(), Windows(sequences(), 4), epochs=3, progress=False, checkpoint=path)
    assert timeless(found) == timeless(expected)


def test_parameters_of_any_kind_are_kept(path):
    def make():
        x, target = mg.input(np.zeros((1, 1)), name="x"), mg.input(np.zeros((1, 1)), name="target")
        number, none = mg.parameter(0.5, name="number"), mg.parameter(np.array(2.0), name="none")
        matrix = mg.parameter(np.asfortranarray(np.eye(3)), name="matrix")
        row = mg.parameter(np.ones((1, 3), np.float16), name="row").astype(np.float64)
        return mg.nn.mse(mg.sum(row @ matrix, axis=1, keepdims=True) * x * number + none, target)

    never, again = make(), make()
    expected = mg.fit(never, sequences(), epochs=4, progress=False)
    mg.fit(make(), sequences(), epochs=2, progress=False, checkpoint=path)
    found = mg.fit(again, sequences(), epochs=4, progress=False, checkpoint=path)
    assert timeless(found) == timeless(expected)
    for one, other in zip(mg.Graph(never).parameters, mg.Graph(again).parameters, strict=True):
        assert type(one.value) is type(other.value)
        assert np.array_equal(one.value, other.value)
    assert type(mg.Graph(again)["number"].value) is float


def test_parameters_that_do_not_move_are_left_as_the_program_has_them(path):
    def make(value):
        loss = Setting().loss
        graph = mg.Graph(loss)
        still, moving = graph.parameters[0], graph.parameters[1:]
        still.value[...] = value
        return loss, still, mg.optim.Adam(moving)

    loss, _, adam = make(0.25)
    mg.fit(loss, sequences(), epochs=1, optimiser=adam, progress=False, checkpoint=path)
    loss, still, adam = make(0.5)
    mg.fit(loss, sequences(), epochs=2, optimiser=adam, progress=False, checkpoint=path)
    assert (still.value == 0.5).all()


def test_a_resumed_run_takes_the_learning_rate_and_schedule_that_it_is_given(path):
    first = Setting()
    first.fit(path, epochs=1)
    again = Setting()
    again.optimiser.lr = 0.007
    history = mg.fit(again.loss, again.data, epochs=2, optimiser=again.optimiser, checkpoint=path, progress=False)
    assert history["learning rate"][-1] == 0.007  # no schedule: no factor


def test_a_run_that_is_over_says_so_and_not_that_it_goes_on(path, capsys):
    Setting().fit(path, epochs=2)
    capsys.readouterr()
    Setting().fit(path, epochs=2)
    assert "epoch 3" not in capsys.readouterr().err


def test_resume_false_starts_anew_and_replaces_the_file(path):
    Setting().fit(path, epochs=3)
    never, again = Setting(), Setting()
    expected = never.fit(None, epochs=1)
    assert timeless(again.fit(path, epochs=1, resume=False)) == timeless(expected)
    assert again.standing() == never.standing()
    assert len(Setting().fit(path, epochs=1)) == 1


def test_the_log_of_a_resumed_run_has_each_epoch_once(path, tmp_path):
    log = tmp_path / "run.csv"
    for stop_at in range(1, 12):
        with pytest.raises(Stop):
            Setting().fit(path, stop_at=stop_at, log=log)
    history = Setting().fit(path, log=log)
    Setting().fit(path, log=log)  # it is over
    with open(log, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert [float(row["loss"]) for row in rows] == pytest.approx(history["loss"].tolist(), rel=1e-6)


def test_a_checkpoint_comes_when_it_is_due_and_at_the_end(path, monkeypatch):
    saved = []
    monkeypatch.setattr(whole.os, "replace", lambda a, b: (saved.append(1), Path(a).rename(b)))
    Setting().fit(path, save_every=0.0)
    assert len(saved) >= 12  # after each step
    saved.clear()
    path.unlink()
    Setting().fit(path, save_every=1e9)
    assert saved == [1]
    saved.clear()
    Setting().fit(path, save_every=1e9)  # nothing new
    assert saved == []


def test_the_arrays_of_a_checkpoint_can_be_read_by_others(path):
    setting = stopped_in(path)
    arrays = safetensors.numpy.load_file(path)
    for parameter in setting.graph.parameters:
        held = arrays[f"parameter/{setting.graph.names[parameter]}"]
        assert held.tobytes() == parameter.value.tobytes()


# --- stopped from outside -------------------------------------------------------------------------------

TRAIN = """
import os, random, signal, sys, time
import numpy as np
import microgrid as mg
from microgrid.files.arrays import read_arrays

folder, mode = sys.argv[1:3]
rng = np.random.default_rng(0)
given = {name: rng.normal(size=(203, 2, 1)) for name in ("x", "target")}

class Slow(mg.data.Windows):
    wait = 0.0
    def epoch(self, number, start=0):
        for batch in super().epoch(number, start):
            time.sleep(self.wait)
            if mode == "tell" and (number, batch.start) == (1, 24):
                print("here", flush=True)
                time.sleep(0.3)
            if mode == "hang" and (number, batch.start) == (1, 24):
                print("here", flush=True)
                time.sleep(60)
            yield batch

def train(path, save_every, name):
    x, target = mg.input(np.zeros((1, 1)), name="x"), mg.input(np.zeros((1, 1)), name="target")
    h = mg.nn.Dropout(0.3, rng=5)(mg.nn.LSTM(1, 3, rng=0)(x))
    loss = mg.nn.mse(mg.nn.Linear(3, 1, rng=1)(h), target)
    net = mg.Graph(loss)
    adam = mg.optim.Adam(net.parameters, lr=0.01)
    data = Slow(given, 8)
    data.wait = 0.001 if save_every is not None else 0.0
    history = mg.fit(loss, data, epochs=EPOCHS, optimiser=adam, schedule=mg.optim.Cosine(500), clip_norm=1.0,
                     checkpoint=path, save_every=save_every or 0.0, log=None if path is None else path + ".csv",
                     validation={n: x[:20] for n, x in given.items()}, patience=99, progress=False)
    rows = [sorted((k, v) for k, v in row.items() if k != "seconds") for row in history]
    parts = [p.value.tobytes() for p in net.parameters], sorted(
        (k, v.tobytes()) for k, v in adam.state_dict()["arrays"].items())
    with open(os.path.join(folder, name), "w") as file:
        file.write(repr((history.stopped, rows, parts)))

EPOCHS = 2
if mode in ("tell", "hang"):
    train(folder + "/run", 0.0, "out")
    sys.exit(0)

EPOCHS = 16
train(None, None, "never")
random.seed(1)
path, kills, loads = folder + "/run", 0, 0
while True:
    child = os.fork()
    if not child:
        sys.stderr = open(os.devnull, "w")
        train(path, 0.01 if kills % 3 == 0 else 1e-9, "killed")
        os._exit(0)
    ended = 0
    if kills < 20:
        time.sleep(random.uniform(0.02, 0.25))
        ended, status = os.waitpid(child, os.WNOHANG)
        if not ended:
            os.kill(child, signal.SIGKILL)
            kills += 1
    if not ended:
        ended, status = os.waitpid(child, 0)
    if os.path.exists(path):
        read_arrays(path, "checkpoint")
        loads += 1
    if not os.WIFSIGNALED(status):
        assert status == 0, status
        break
print(kills, loads)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks, so that a start costs milliseconds")
def test_a_run_killed_at_20_random_moments_ends_as_one_that_never_was(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(TRAIN)
    done = subprocess.run(
        [sys.executable, script, tmp_path, "kill"], capture_output=True, text=True, timeout=120, env=ENVIRONMENT
    )
    assert done.returncode == 0, done.stderr
    kills, loads = map(int, done.stdout.split())
    assert kills >= 15
    assert loads >= 10
    assert (tmp_path / "killed").read_text() == (tmp_path / "never").read_text()
    with open(tmp_path / "run.csv", newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == [str(n) for n in range(1, 17)]


def test_what_a_kill_left_half_written_is_cleared_away_by_the_next_run(path, monkeypatch):
    with monkeypatch.context() as patch:  # killed between writing and renaming
        patch.setattr(whole.os, "replace", full)
        patch.setattr(Path, "unlink", lambda self, missing_ok=False: None)
        stopped_in(path)
    assert len(list(path.parent.iterdir())) > 1
    Setting().fit(path)
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def started(tmp_path, mode):
    script = tmp_path / "train.py"
    script.write_text(TRAIN)
    child = subprocess.Popen(
        [sys.executable, script, tmp_path, mode],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    assert child.stdout.readline() == "here\n"
    return child


def test_ctrl_c_ends_a_run_after_the_batch_with_everything_saved_and_it_goes_on(tmp_path):
    child = started(tmp_path, "tell")
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=30)
    assert child.returncode == 0
    assert f"stopped in epoch 2, before batch 4, saved in '{tmp_path}/run'" in said.splitlines()
    assert "Traceback" not in said
    arrays, header = read_arrays(tmp_path / "run", "checkpoint")
    assert (header["epoch"], header["batch"]) == (1, 3)
    assert any(key.startswith("state/") for key in arrays)
    assert (tmp_path / "out").read_text().startswith("('interrupted'")
    again = subprocess.run(
        [sys.executable, tmp_path / "train.py", tmp_path, "tell"],
        capture_output=True,
        text=True,
        timeout=60,
        env=ENVIRONMENT,
    )
    assert again.returncode == 0
    assert (tmp_path / "out").read_text().startswith("('epochs'")


def test_a_second_ctrl_c_interrupts_at_once(tmp_path):
    child = started(tmp_path, "hang")
    child.send_signal(signal.SIGINT)
    time.sleep(0.2)
    assert child.poll() is None  # it waits for its batch
    began = time.monotonic()
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=30)
    assert time.monotonic() - began < 5
    assert child.returncode != 0
    assert "KeyboardInterrupt" in said
    _, header = read_arrays(tmp_path / "run", "checkpoint")
    assert header["epoch"] == 1


class Interrupting(Windows):
    """Somebody presses Ctrl-C while batch `at` of each epoch is made."""

    def __init__(self, sequences, length, at):
        super().__init__(sequences, length)
        self.at = at

    def epoch(self, number, start=0):
        for i, batch in enumerate(super().epoch(number, start), start):
            if i == self.at:
                signal.raise_signal(signal.SIGINT)
            yield batch


@pytest.mark.parametrize("at", [0, 1, 2, 3])
def test_ctrl_c_in_any_batch_saves_and_gives_the_old_handler_back(at, path, capsys):
    before = signal.getsignal(signal.SIGINT)
    setting = Setting(data=Interrupting(sequences(), 4, at))
    history = setting.fit(path, save_every=1e9)
    assert history.stopped == "interrupted"
    assert signal.getsignal(signal.SIGINT) is before
    assert "stopped in epoch" in capsys.readouterr().err
    again, never = Setting(), Setting()
    found, expected = again.fit(path), never.fit(None)
    assert timeless(found) == timeless(expected)
    assert again.standing() == never.standing()


def test_an_error_gives_the_old_handler_of_ctrl_c_back(path):
    before = signal.getsignal(signal.SIGINT)
    stopped_in(path)
    assert signal.getsignal(signal.SIGINT) is before


def test_without_a_checkpoint_ctrl_c_keeps_the_parameters_and_says_nothing_of_a_file(capsys):
    setting = Setting(data=Interrupting(sequences(), 4, 2))
    before = setting.standing()["parameters"]
    assert setting.fit(None).stopped == "interrupted"
    said = capsys.readouterr().err
    assert "stopped in epoch 1" in said
    assert "saved" not in said
    assert setting.standing()["parameters"] != before


# --- files that do not fit ------------------------------------------------------------------------------


def refused(path, words, setting=None, **settings):
    """That a run refuses the file, says why and how to go on, and changes nothing."""
    setting = setting or Setting()
    for parameter in setting.graph.parameters:
        parameter.value += 0.125
    held, data = setting.standing(), path.read_bytes()
    with pytest.raises(FileFormatError, match=words) as error:
        setting.fit(path, **settings)
    assert setting.standing() == held
    assert path.read_bytes() == data
    assert str(path) in str(error.value)
    return str(error.value)


def test_a_file_cut_short_anywhere_is_refused(path):
    stopped_in(path)
    data = path.read_bytes()
    setting = Setting()
    for size in [*range(0, len(data), max(1, len(data) // 60)), len(data) - 1]:
        path.write_bytes(data[:size])
        refused(path, "empty|cut short|damaged", setting)


def test_a_file_with_bytes_added_is_refused(path):
    stopped_in(path)
    path.write_bytes(path.read_bytes() + b"\0" * 8)
    refused(path, "cannot be read")


def test_files_of_other_kinds_are_refused_by_what_they_are(path):
    model = Setting()
    model.graph.save(path)
    assert "it holds a model, not a checkpoint" in refused(path, "model")
    path.write_bytes(pickle.dumps({"parameter/W": np.ones(3)}))
    refused(path, "pickle, which runs code")
    with open(path, "wb") as file:
        np.savez(file, W=np.ones(3))
    refused(path, "zip archive")
    safetensors.numpy.save_file({"W": np.ones(3)}, path)
    refused(path, "without microgrid's description")
    path.write_text("epoch,loss\n1,0.5\n")
    refused(path, "no safetensors file")
    path.write_bytes(b"")
    refused(path, "empty")


def test_a_checkpoint_is_no_model(path):
    stopped_in(path)
    with pytest.raises(FileFormatError, match="it holds a checkpoint, not a model"):
        mg.load(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no pipes")
def test_a_pipe_is_no_checkpoint(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileFormatError, match="pipe"):
        Setting().fit(tmp_path / "pipe")


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"hidden": 4}, r"'rnn\.W' is float32 of shape \(1, 3\), but that of this network float32 of shape \(1, 4\)"),
        ({"cell": mg.nn.GRU}, r"parameter '(rnn|gru)\."),
        ({"num_layers": 2}, "parameter 'rnn"),
        ({"dtype": np.float64}, "'rnn.W' is float32"),
        ({"optimiser": mg.optim.SGD}, "the state is that of Adam, and this is SGD"),
        ({"optimiser": mg.optim.RMSprop}, "Adam.*RMSprop"),
        ({"data": Windows(sequences(), 5)}, "4 batches in an epoch, but this one has 3"),
        ({"data": Windows(sequences(batch=5), 4)}, "'rnn.h'.*batch|batch.*5"),
        ({"rng": np.random.Generator(np.random.Philox(0))}, "random generator"),
    ],
)
def test_the_checkpoint_of_another_run_is_refused_by_what_does_not_fit(other, words, path):
    stopped_in(path)
    said = refused(path, words, Setting(**other))
    assert "resume=False" in said


def test_an_optimiser_of_other_groups_or_order_is_refused(path):
    stopped_in(path)
    setting = Setting()
    *rest, last = setting.graph.parameters
    setting.optimiser = mg.optim.Adam([{"parameters": rest}, {"parameters": [last], "lr": 0.1}])
    assert "groups" in refused(path, "does not fit this run", setting)
    setting.optimiser = mg.optim.Adam([last, *rest])
    refused(path, "does not fit this run", setting)


ARRAY_MUTATIONS = {
    "a parameter is missing": lambda a, k: a.pop("parameter/rnn.W"),
    "a parameter more": lambda a, k: a.update({"parameter/V": np.ones(3)}),
    "another shape": lambda a, k: a.update({"parameter/rnn.W": np.ones((3, 1), np.float32)}),
    "another dtype": lambda a, k: a.update({"parameter/rnn.W": np.ones((1, 3), np.float64)}),
    "whole numbers": lambda a, k: a.update({"parameter/rnn.W": np.ones((1, 3), np.int64)}),
    "a scalar": lambda a, k: a.update({"parameter/rnn.W": np.float32(1)[...]}),
    "a best value is missing": lambda a, k: a.pop("best/rnn.W"),
    "a best value of another shape": lambda a, k: a.update({"best/rnn.W": np.ones((2, 3), np.float32)}),
    "no best values at all": lambda a, k: [a.pop(key) for key in list(a) if key.startswith("best/")],
    "a state is missing": lambda a, k: a.pop("state/rnn.h"),
    "a state more": lambda a, k: a.update({"state/c": np.ones((2, 3), np.float32)}),
    "a state of another batch": lambda a, k: a.update({"state/rnn.h": np.ones((7, 3), np.float32)}),
    "a state of another shape": lambda a, k: a.update({"state/rnn.h": np.ones((2, 4), np.float32)}),
    "a state of another dtype": lambda a, k: a.update({"state/rnn.h": np.ones((2, 3), np.float64)}),
    "a state without axes": lambda a, k: a.update({"state/rnn.h": np.ones((), np.float32)}),
    "a buffer is missing": lambda a, k: a.pop("optimiser/0.squares"),
    "a buffer more": lambda a, k: a.update({"optimiser/0.momentum": np.ones((1, 3), np.float32)}),
    "a buffer of no parameter": lambda a, k: a.update({"optimiser/99.squares": np.ones((1, 3), np.float32)}),
    "a buffer of another shape": lambda a, k: a.update({"optimiser/0.squares": np.ones((3, 1), np.float32)}),
    "a buffer of another dtype": lambda a, k: a.update({"optimiser/0.squares": np.ones((1, 3), np.float64)}),
    "an array of no meaning": lambda a, k: a.update({"junk": np.ones(3)}),
}


@pytest.mark.parametrize("case", ARRAY_MUTATIONS)
def test_arrays_that_do_not_fit_are_refused(case, path):
    stopped_in(path)
    arrays, header = read_arrays(path, "checkpoint")
    ARRAY_MUTATIONS[case](arrays, header)
    write_arrays(path, arrays, "checkpoint", header)
    refused(path, "cannot be read")


MISSING = object()
WRONG = (None, True, -1, 1.5, -0.5, "x", "nan", [], [1], {}, {"a": 1}, 10**30, 10**400, 1e308, MISSING)
FIELDS = (
    *("batches", "epoch", "batch", "steps", "norm_count", "since_best", "sums", "best", "best_epoch", "seconds"),
    *("rows", "optimiser", "generators", "more"),
)
LEGAL = {  # what a file may hold there
    "best": (None, -1, 1.5, -0.5, "nan", 1e308, 10**30),
    "best_epoch": (None,),
    "seconds": (1.5, 1e308, 10**30),
    "more": (MISSING,),
}


def same(a, b):
    return type(a) is type(b) and a == b


@pytest.mark.parametrize("field", FIELDS)
def test_a_header_field_of_the_wrong_kind_is_refused(field, path):
    stopped_in(path)
    arrays, header = read_arrays(path, "checkpoint")
    setting = Setting()
    for wrong in WRONG:
        changed = {**header, field: wrong}
        if wrong is MISSING:
            changed.pop(field)
        if any(same(wrong, legal) for legal in LEGAL.get(field, ())):
            continue
        write_arrays(path, arrays, "checkpoint", changed)
        refused(path, "cannot be read", setting, log=path.parent / "log.csv")


def nested(header):
    """Ways to lead each number and string inside the lists and objects of a header astray."""
    for key, where in (
        ("sums", lambda h: h["sums"]),
        ("rows", lambda h: h["rows"][0]),
        ("optimiser", lambda h: h["optimiser"]),
        ("optimiser", lambda h: h["optimiser"]["steps"]),
        ("optimiser", lambda h: h["optimiser"]["groups"][0]),
        ("generators", lambda h: h["generators"][0]),
        ("generators", lambda h: h["generators"][0]["state"]),
    ):
        holder = where(header)
        for place in range(len(holder)) if isinstance(holder, list) else list(holder):
            yield key, where, place


def test_no_value_inside_a_header_makes_a_run_fail_in_another_way_than_by_refusing_the_file(path):
    """A value may be possible, as another learning rate is; then the run goes on."""
    stopped_in(path)
    arrays, header = read_arrays(path, "checkpoint")
    data, accepted, setting = path.read_bytes(), [], Setting()
    log = path.parent / "log.csv"
    for _, where, place in nested(header):
        for wrong in WRONG:
            changed = json.loads(json.dumps(header))
            holder = where(changed)
            if wrong is MISSING:
                del holder[place]
            else:
                holder[place] = wrong
            write_arrays(path, arrays, "checkpoint", changed)
            held = setting.standing()
            try:
                setting.fit(path, log=log)
            except FileFormatError as error:
                assert str(path) in str(error)  # noqa: PT017
                assert setting.standing() == held
            except Exception as error:
                raise AssertionError(f"{place!r} was {wrong!r:.40}") from error
            else:
                accepted.append((place, wrong))
                setting = Setting()
    path.write_bytes(data)
    assert not [place for place, wrong in accepted if wrong is MISSING]


def test_rows_without_their_columns_are_refused(path):
    stopped_in(path)
    arrays, header = read_arrays(path, "checkpoint")
    for rows in ([{}], [{"epoch": 1}], [{"a": 1.0}], [*header["rows"], *header["rows"]], []):
        write_arrays(path, arrays, "checkpoint", {**header, "rows": rows})
        refused(path, "cannot be read", log=path.parent / "log.csv")


@pytest.mark.parametrize("seed", range(4))
def test_flipped_bits_are_refused_or_harmless(seed, path):
    stopped_in(path)
    data, rng = path.read_bytes(), np.random.default_rng(seed)
    for _ in range(40):
        changed = bytearray(data)
        for place in rng.integers(len(data), size=rng.integers(1, 4)):
            changed[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        setting = Setting()
        held = setting.standing()
        try:
            with np.errstate(all="ignore"):
                setting.fit(path)
        except FileFormatError:
            assert setting.standing() == held
        except NotFiniteError:
            pass  # a parameter that became infinite


def test_a_header_that_names_a_field_twice_or_is_nested_deep_is_refused(path):
    stopped_in(path)
    arrays, header = read_arrays(path, "checkpoint")
    text = json.dumps({"version": 1, "kind": "checkpoint", "content": header})
    for bad in (
        text.replace('"epoch":', '"epoch": 1, "epoch":', 1),
        text.replace('"rows": [', '"rows": [' + "[" * 100_000, 1),
        text.replace('"version": 1', '"version": 2', 1),
        text.replace('"version": 1', '"version": true', 1),
        text.replace('"seconds": ', '"seconds": NaN, "second": ', 1),
        text[:-1],
        "[]",
        "null",
    ):
        path.write_bytes(safetensors.numpy.save(arrays, metadata={files_arrays.KEY: bad}))
        refused(path, "cannot be read")


# --- what cannot be written -----------------------------------------------------------------------------


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_told_once_and_the_run_and_the_older_checkpoint_go_on(path, monkeypatch, capsys):
    stopped_in(path)
    older = path.read_bytes()
    monkeypatch.setattr(whole.os, "replace", full)
    again = Setting()
    history = again.fit(path)
    said = capsys.readouterr().err
    assert said.count("warning") == 1
    assert "No space left on device" in said
    assert "training goes on, the older checkpoint stays" in said
    assert path.read_bytes() == older
    assert sorted(each.name for each in path.parent.iterdir()) == [path.name]
    monkeypatch.undo()
    never = Setting()
    assert timeless(never.fit(None)) == timeless(history)
    last = Setting()
    assert timeless(last.fit(path)) == timeless(history)
    assert last.standing() == never.standing() == again.standing()


def test_a_disk_that_is_full_from_the_start_leaves_none_and_says_so(path, monkeypatch, capsys):
    monkeypatch.setattr(whole.os, "fsync", full)
    Setting().fit(path)
    said = capsys.readouterr().err
    assert said.count("warning") == 1
    assert "there is none yet" in said
    assert list(path.parent.iterdir()) == []


def test_trouble_of_another_kind_or_again_after_it_passed_is_told_again(path, monkeypatch, capsys):
    troubles = iter([errno.ENOSPC, errno.ENOSPC, errno.EIO, 0, errno.EIO, 0])
    rename = os.replace

    def replace(a, b):
        number = next(troubles, 0)
        if number:
            raise OSError(number, os.strerror(number))
        rename(a, b)

    monkeypatch.setattr(whole.os, "replace", replace)
    Setting().fit(path)
    said = capsys.readouterr().err
    assert said.count("warning") == 3
    assert said.count("No space left") == 1
    assert said.count("Input/output error") == 2


def test_ctrl_c_with_a_full_disk_does_not_claim_that_all_is_saved(path, monkeypatch, capsys):
    monkeypatch.setattr(whole.os, "replace", full)
    setting = Setting(data=Interrupting(sequences(), 4, 2))
    assert setting.fit(path).stopped == "interrupted"
    assert "saved in" not in capsys.readouterr().err


def test_a_folder_that_disappears_is_told_and_the_run_goes_on(tmp_path, capsys):
    folder = tmp_path / "gone"
    folder.mkdir()

    class Removing(Dying):
        def epoch(self, number, start=0):
            for each in folder.iterdir():
                each.unlink()
            folder.rmdir()
            folder.touch()  # a file in its place
            self.epoch = super().epoch
            return super().epoch(number, start)

    history = Setting().fit(folder / "run", validation=Removing(-1))
    assert (history.stopped, len(history)) == ("epochs", 3)
    assert "no checkpoint could be saved" in capsys.readouterr().err


def test_a_missing_folder_is_an_error_before_training(tmp_path):
    setting = Setting()
    held = setting.standing()
    with pytest.raises(FileNotFoundError, match="its folder does not exist"):
        setting.fit(tmp_path / "none" / "run")
    assert setting.standing() == held


def test_a_folder_in_place_of_the_file_is_an_error_before_training(tmp_path):
    setting = Setting()
    held = setting.standing()
    for resume in True, False:
        with pytest.raises((OSError, MicrogridError)):
            setting.fit(tmp_path, resume=resume)
    assert setting.standing() == held


def test_a_nan_leaves_the_checkpoint_from_before(path):
    given = sequences()
    given["x"][6] = np.nan
    setting = Setting(data=Windows(given, 4))
    with pytest.raises(NotFiniteError, match=r"epoch 1, batch 2.*The checkpoint '.*' is from before"):
        setting.fit(path)
    _, header = read_arrays(path, "checkpoint")
    assert (header["epoch"], header["batch"]) == (0, 1)
    again, never = Setting(), Setting()
    again.fit(path)  # with the data mended
    never.fit(None)
    assert again.standing()["settings"]["steps"] == never.standing()["settings"]["steps"]
    assert all(np.isfinite(p.value).all() for p in again.graph.parameters)


def test_numbers_that_json_has_no_word_for_are_kept(path):
    class Infinite(Dying):
        def epoch(self, number, start=0):
            self.read += 1
            level = np.inf if self.read == 1 else 1.0
            yield Batch({"x": np.zeros((2, 1, 1)), "target": np.full((2, 1, 1), level)})

    Setting().fit(path, epochs=1, validation=Infinite(-1))
    history = Setting().fit(path, epochs=2, validation=Dying(-1))
    assert math.isinf(history["validation loss"][0])
    assert history.best_epoch == 2
