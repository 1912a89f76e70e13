"""Weights & Biases and trackio: mirrors of the log, for those who look at runs there.

Each is an extra, imported only when asked for. The log and TensorBoard's events are in the run's own folder, whatever
becomes of a tracker; so one that fails in the middle of a run is left out from there on, with a warning.
"""

import importlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from PIL import Image

from rin.core.errors import RinError
from rin.core.files import written_whole
from rin.core.progress import LOGGER
from rin.core.strict_json import read_json

IDS = "trackers.json"
"""Where the ids of a run at its trackers are, in the run's folder: a resumed run goes on in the same ones."""

PROJECT = "rin"
"""The project at a tracker; W&B's own WANDB_PROJECT names another there."""


class _Service(Protocol):
    """One tracker's way of doing it."""

    def log(self, values: Mapping[str, Any], step: int) -> None: ...
    def picture(self, image: Image.Image) -> Any: ...
    def finish(self, failed: bool) -> None: ...


class Tracker:
    """A run at a tracker.

    Args:
        name: wandb or trackio.
        folder: the run's; its name is the run's name there.
        config: the run's configuration, to be shown there.

    Raises:
        RinError: the tracker is not installed, or cannot be started.
    """

    def __init__(self, name: str, folder: Path, config: Mapping[str, Any]) -> None:
        self.name = name
        module, run_id = _module(name), _run_id(name, folder)
        kind = _Wandb if name == "wandb" else _Trackio
        try:
            self._service: _Service | None = kind(module, folder, run_id, dict(config))
        except Exception as error:  # whatever a tracker raises: no account, no network, no disk
            raise RinError(
                f"cannot log to {name} ({_line(error)}): leave it out of training.trackers to train"
            ) from error

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Shows numbers of a step."""
        self._try(lambda service: service.log(values, step))

    def pictures(self, image: Image.Image, step: int) -> None:
        """Shows the samples of a step."""
        self._try(lambda service: service.log({"samples": service.picture(image)}, step))

    def finish(self, failed: bool) -> None:
        """Ends this process's part of the run."""
        self._try(lambda service: service.finish(failed))

    def _try(self, act: Any) -> None:
        if self._service is None:
            return
        try:
            act(self._service)
        except Exception as error:  # a tracker's own affair: the run goes on
            LOGGER.warning("%s failed (%s): the run goes on without it; all is in its own log", self.name, _line(error))
            self._service = None


class _Wandb:
    """Its own steps may only grow, and those of a run resumed from a checkpoint begin again there.

    So `step` is a value like others here, over which all others are shown.
    """

    def __init__(self, module: ModuleType, folder: Path, run_id: str, config: dict[str, Any]) -> None:
        project = os.environ.get("WANDB_PROJECT", PROJECT)
        self._module = module
        self._run = module.init(
            project=project, name=folder.name, id=run_id, resume="allow", dir=str(folder), config=config
        )
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def log(self, values: Mapping[str, Any], step: int) -> None:
        self._run.log({**values, "step": step})

    def picture(self, image: Image.Image) -> Any:
        return self._module.Image(image)

    def finish(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class _Trackio:
    """It knows runs by their names, of which no two in a project may be alike."""

    def __init__(self, module: ModuleType, folder: Path, run_id: str, config: dict[str, Any]) -> None:
        self._module = module
        self._run = module.init(project=PROJECT, name=f"{folder.name}-{run_id}", resume="allow", config=config)

    def log(self, values: Mapping[str, Any], step: int) -> None:
        self._run.log(dict(values), step=step)

    def picture(self, image: Image.Image) -> Any:
        return self._module.Image(image)

    def finish(self, failed: bool) -> None:
        del failed
        self._module.finish()  # the run's own leaves it to be finished again at exit


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise RinError(f"{name} cannot be imported ({_line(error)}): install it anew") from error
        raise RinError(
            f"{name} (training.trackers) is not installed: pip install 'rin-diffusion[trackers]', or leave it out"
        ) from None


def _run_id(name: str, folder: Path) -> str:
    """The id of this run at a tracker, drawn when it is first asked for."""
    path = folder / IDS
    try:
        ids = read_json(path) if path.exists() else {}
        if name not in ids:
            ids[name] = secrets.token_hex(4)
            with written_whole(path) as temporary:
                temporary.write_text(json.dumps(ids) + "\n", encoding="utf-8")
        return str(ids[name])
    except (OSError, ValueError, TypeError) as error:
        raise RinError(f"cannot read or write {path} ({error}): delete it to begin a new run at {name}") from error


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
