"""Data sets that are given in Python: killed, gone on with, and under two processes as under one."""

import json
import signal

import pytest

from tests.end_to_end.commands import ended, start, together
from tests.end_to_end.own_data import KINDS

MODULE = "tests.end_to_end.own_data"


def log(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def weights(run):
    return {path.name: path.read_bytes() for path in (run / "checkpoints" / "step-000000006").glob("*.safetensors")}


@pytest.mark.parametrize("kind", KINDS)
def test_ones_own_data_are_gone_on_with_bit_by_bit_and_the_same_in_two_processes(tmp_path, kind):
    whole = ended(start(kind, tmp_path / "whole", 0, module=MODULE))
    assert whole.returncode == 0, whole.stderr
    assert ended(start(kind, tmp_path / "killed", 4, module=MODULE)).returncode == -signal.SIGKILL
    assert ended(start(kind, tmp_path / "killed", 0, module=MODULE)).returncode == 0
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")
    for result in together(2, kind, tmp_path / "two", 0, module=MODULE):
        assert result.returncode == 0, result.stderr
    for one, other in zip(log(tmp_path / "whole"), log(tmp_path / "two"), strict=True):
        assert one.keys() == other.keys()
        for name in {"loss", "held_out_loss"} & one.keys():
            assert other[name] == pytest.approx(one[name], rel=1e-5), (one["step"], name)
