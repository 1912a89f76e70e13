"""What a run writes down: the log, TensorBoard's events, and trackers."""

import json
import logging
import resource
import sys
import types
from contextlib import contextmanager

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rin.core.errors import RinError
from rin.training.logging import Log, read_log
from rin.training.trackers import IDS

LINE = {"step": 1, "loss": 0.1 + 0.2, "lr": 0.0, "grad_norm": None, "held_out_loss_by_t": {"0.1": 0.5}}


@contextmanager
def full_disk(room):
    """No file may grow beyond so many bytes: writing fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def board(folder):
    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def numbers(folder, name):
    return [(event.step, event.value) for event in board(folder).Scalars(name)]


def test_rates_are_shown_and_the_log_does_not_depend_on_them(tmp_path):
    log = Log(tmp_path, 0)
    log.record(LINE, {"examples_per_second": 7.0})
    assert read_log(tmp_path / "log.jsonl") == [LINE]  # at once, before anything is closed
    log.close()
    assert board(tmp_path).Tags()["scalars"] == ["loss", "lr", "held_out_loss_by_t/0.1", "examples_per_second"]
    assert numbers(tmp_path, "examples_per_second") == [(1, 7.0)]
    assert numbers(tmp_path, "held_out_loss_by_t/0.1") == [(1, 0.5)]


def test_a_resumed_run_takes_back_what_came_after_its_checkpoint(tmp_path):
    for first in (0, 2):
        log = Log(tmp_path, first)
        for step in range(first + 1, 5):
            log.record({"step": step, "loss": float(first), "lr": 0.0}, {})
        log.close()
    assert [(line["step"], line["loss"]) for line in read_log(tmp_path / "log.jsonl")] == numbers(tmp_path, "loss")
    assert numbers(tmp_path, "loss") == [(1, 0.0), (2, 0.0), (3, 2.0), (4, 2.0)]


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pictures_are_shown_as_they_are(tmp_path, channels):
    log = Log(tmp_path, 0)
    log.pictures(3, torch.zeros(1, channels, 4, 6, dtype=torch.uint8))
    log.close()
    (shown,) = board(tmp_path).Images("samples")
    assert (shown.step, shown.width, shown.height) == (3, 6, 4)


def fill(log):
    """Writes until it cannot, and closes what is still on a full disk."""
    try:
        for step in range(1, 1000):
            log.record({**LINE, "step": step}, {})
    finally:
        log.close()


@pytest.mark.parametrize("room", [600, 1200, 5000])
def test_a_full_disk_is_one_line_wherever_it_strikes(tmp_path, room, caplog):
    log = Log(tmp_path, 0)
    with full_disk(room), pytest.raises(RinError, match=r"cannot write the log .*File too large") as raised:
        fill(log)
    assert "\n" not in str(raised.value)
    assert not caplog.records  # it is told of once, though closing fails too


def test_a_full_disk_at_the_start_is_one_line(tmp_path):
    with full_disk(10), pytest.raises(RinError, match="cannot write the log"):
        Log(tmp_path, 0)


def test_a_failure_to_close_hides_no_other_error(tmp_path, caplog):
    def fails():
        raise OSError(28, "No space left on device")

    log = Log(tmp_path, 0)
    log._opened.callback(fails)
    with pytest.raises(ZeroDivisionError), caplog.at_level(logging.WARNING, "rin"):  # noqa: PT012
        try:
            raise ZeroDivisionError
        finally:
            log.close()
    assert "No space left" in caplog.text
    log._opened.callback(fails)
    with pytest.raises(RinError, match="No space left"):
        log.close()


class Fake:
    """A tracker's module and its run in one, that remembers what it is told."""

    def __init__(self):
        self.begun, self.told, self.finished, self.over = [], [], [], []

    def init(self, **options):
        self.begun.append(options)
        return self

    def define_metric(self, name, step_metric=None):
        self.over.append((name, step_metric))

    def log(self, values, step=None):
        self.told.append((values, step))

    def Image(self, image):  # noqa: N802
        return image.size

    def finish(self, exit_code=None):
        self.finished.append(exit_code)


@pytest.fixture
def fake(monkeypatch):
    fake = Fake()
    for name in ("wandb", "trackio"):
        module = types.ModuleType(name)
        for attribute in ("init", "Image", "finish"):
            setattr(module, attribute, getattr(fake, attribute))
        monkeypatch.setitem(sys.modules, name, module)
    return fake


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_resumed_run_goes_on_in_the_same_run_of_a_tracker(tmp_path, fake, name):
    folder = tmp_path / "mine"
    folder.mkdir()
    for step in (0, 1):
        log = Log(folder, step, (name,), {"seed": 3})
        log.record({**LINE, "step": step + 1}, {"examples_per_second": 7.0})
        log.pictures(step + 1, torch.zeros(1, 3, 4, 6, dtype=torch.uint8))
        log.close()
    first, second = fake.begun
    assert first == second
    assert (first["project"], first["config"], first["resume"]) == ("rin", {"seed": 3}, "allow")
    run_id = json.loads((folder / IDS).read_text())[name]
    values = {"loss": LINE["loss"], "lr": 0.0, "held_out_loss_by_t/0.1": 0.5, "examples_per_second": 7.0}
    if name == "wandb":
        assert (first["id"], first["name"], first["dir"]) == (run_id, "mine", str(folder))
        assert fake.over[:2] == [("step", None), ("*", "step")]
        assert fake.told[:2] == [({**values, "step": 1}, None), ({"samples": (6, 4), "step": 1}, None)]
        assert fake.finished == [0, 0]
    else:
        assert first["name"] == f"mine-{run_id}"
        assert fake.told[:2] == [(values, 1), ({"samples": (6, 4)}, 1)]


def test_two_runs_have_two_ids(tmp_path, fake):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Log(tmp_path / name, 0, ("wandb",)).close()
    assert fake.begun[0]["id"] != fake.begun[1]["id"]


def test_a_tracker_is_told_of_failure(tmp_path, fake):
    log = Log(tmp_path, 0, ("wandb",))
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        try:
            raise ZeroDivisionError
        finally:
            log.close()
    assert fake.finished == [1]


@pytest.mark.usefixtures("fake")
def test_a_tracker_that_fails_under_way_is_left_out_and_the_run_goes_on(tmp_path, caplog, monkeypatch):
    def fails(*_, **__):
        raise ConnectionError("the other end\nis gone")

    log = Log(tmp_path, 0, ("wandb",))
    monkeypatch.setattr(log._trackers[0]._service._run, "log", fails)
    for step in (1, 2):
        log.record({**LINE, "step": step}, {})
    log.close()
    assert len(read_log(tmp_path / "log.jsonl")) == 2
    assert [record.getMessage().count("wandb failed (the other end)") for record in caplog.records] == [1]


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_tracker_that_is_not_installed_is_one_line_with_the_way_out(tmp_path, monkeypatch, name):
    class Absent:
        @staticmethod
        def find_spec(module, *_):
            if module == name:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "meta_path", [Absent, *sys.meta_path])
    with pytest.raises(RinError, match=rf"{name} .*is not installed: pip install 'rin-diffusion\[trackers\]'"):
        Log(tmp_path, 0, (name,))


@pytest.mark.usefixtures("fake")
def test_a_tracker_that_cannot_be_started_is_one_line(tmp_path, monkeypatch):
    def refuses(**_):
        raise RuntimeError("no API key\nlog in first")

    monkeypatch.setattr(sys.modules["wandb"], "init", refuses)
    with pytest.raises(RinError, match=r"cannot log to wandb \(no API key\): leave it out of training.trackers"):
        Log(tmp_path, 0, ("wandb",))


def test_ids_that_cannot_be_read_are_one_line(tmp_path, fake):
    (tmp_path / IDS).write_text("[")
    with pytest.raises(RinError, match="delete it"):
        Log(tmp_path, 0, ("wandb",))
    assert not fake.begun
