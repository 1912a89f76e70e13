"""`rin train`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from rin.cli.arguments import parse, quoted
from rin.core.distributed import is_first
from rin.core.errors import RinError
from rin.core.launch import processes
from rin.experiment import ExperimentConfig, to_dict
from rin.presets import preset, preset_names
from rin.run import train as train_run
from rin.run_data import with_condition

USAGE = """\
usage: rin train PRESET [--data.path ...] [--training.num-steps ...] [--out runs/x]

Trains a preset, every option of which can be changed; the same command resumes where a run was stopped.
`rin train PRESET --help` lists the options and the preset's values.

presets: {}
"""


@dataclass(frozen=True, kw_only=True)
class TrainArguments:
    """Trains a model, or goes on with a run: the same command resumes."""

    experiment: Annotated[ExperimentConfig, tyro.conf.arg(name="")]

    out: Path
    """The run's folder."""

    data_moved: bool = False
    """The set of the run in --out lies at --data.path now: go on with it there."""

    dry_run: bool = False
    """Print the resolved configuration as JSON and leave."""


def train(arguments: list[str]) -> None:
    """Trains the preset that the first argument names."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE.format(", ".join(preset_names())), end="")
        if not arguments:
            raise RinError(f"give a preset: {', '.join(preset_names())}")
        return
    name = arguments[0]
    if name.startswith("-"):
        raise RinError(f"the preset comes first, as in: rin train digits {name} ...")
    default = TrainArguments(experiment=preset(name), out=Path("runs") / name)
    chosen = parse(TrainArguments, arguments[1:], f"rin train {name}", default)
    if chosen.dry_run:
        print(json.dumps(to_dict(with_condition(chosen.experiment)), indent=2))
        return
    with processes():
        train_run(chosen.experiment, chosen.out, chosen.data_moved)
        if not is_first():
            return
    out = quoted(chosen.out)
    print(f"the run is in {out}; look at samples with: rin sample {out} --out samples.png")
