"""Names that shells and terminals stumble over: used as they are, and printed so that they can be given again."""

import os
import subprocess

import pytest

from tests.end_to_end.commands import assert_one_line, rin
from tests.end_to_end.test_cases import TRAIN, set_of_classes

NAMES = [
    "sp ace",
    "new\nline",
    "quo'te",
    'two"',
    "$HOME",
    "a;b",
    "back\\slash",
    "*",
    "\x1b[31mred",
    "ü日",
    "\udcff\udcfe",
]


def as_a_shell_reads(text):
    """The words of a command, by bash."""
    done = subprocess.run(["bash", "-c", f"printf '%s\\0' {text}"], capture_output=True, check=True)
    return [os.fsdecode(word) for word in done.stdout.split(b"\0")[:-1]]


@pytest.mark.parametrize("name", NAMES)
def test_a_printed_command_is_one_that_a_shell_takes(tmp_path, name):
    source, out = set_of_classes(tmp_path / f"from {name}", (name, "z"), 1), tmp_path / f"to {name}"
    done = rin("prepare", source, out, "--size", "8")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    assert done.stdout[:-1].isprintable()
    command = as_a_shell_reads(done.stdout.partition("train on them with: ")[2])
    assert command[:2] == ["rin", "train"]
    assert command[command.index("--data.path") + 1] == str(out)


@pytest.mark.parametrize("name", NAMES)
def test_runs_and_samples_have_any_name_that_is_text(tmp_path, name):
    data, run, out = set_of_classes(tmp_path / "set", (name, "z")), tmp_path / name, tmp_path / f"{name}.png"
    done = rin(*TRAIN, "--data.path", data, "--out", run, "--training.num-steps", "1")
    if "\udcff" in name:
        assert_one_line(done, "not UTF-8", "another --out")
        return
    assert done.returncode == 0, done.stderr
    assert as_a_shell_reads(done.stdout.partition("look at samples with: ")[2])[2] == str(run)
    drawn = rin("sample", run, "--num", "2", "--out", out)
    assert as_a_shell_reads(drawn.stdout.partition("samples in ")[2]) == [str(out)]
    assert out.exists()
    assert rin("status", run).stdout.partition("\n")[0].isprintable()
