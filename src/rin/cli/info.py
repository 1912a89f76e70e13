"""`rin info`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from rin.cli.arguments import parse
from rin.core.errors import RinError
from rin.evaluation.cost import Cost, cost
from rin.nn import RINConfig
from rin.presets import preset, preset_names, preset_source
from rin.run import read_model_config


@dataclass(frozen=True, kw_only=True)
class InfoArguments:
    """Tells what a preset or a run costs, and where its figures come from."""

    what: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="PRESET|RUN")] = None
    """A preset, a run or a saved model; every preset if absent."""


def info(arguments: list[str]) -> None:
    """Prints the sizes of one preset or run, or a table of all presets."""
    chosen = parse(InfoArguments, arguments, "rin info")
    if chosen.what is None:
        _print_table()
    elif chosen.what in preset_names():
        _print_model(preset(chosen.what).model)
        print(f"\n{preset_source(chosen.what)}")
    elif Path(chosen.what).is_dir():
        _print_model(read_model_config(Path(chosen.what)))
    else:
        raise _neither(chosen.what)


def _neither(what: str) -> RinError:
    try:
        preset(what)
    except RinError as error:
        return RinError(f"{error}; and there is no folder of that name")
    raise AssertionError(what)


def _print_model(config: RINConfig) -> None:
    for name, value in _figures(config, cost(config)).items():
        print(f"{name:<24} {value}")


def _figures(config: RINConfig, price: Cost) -> dict[str, str]:
    patch = f"{config.patch_size} x {config.patch_size}"
    if len(config.shape) == 4:
        patch = f"{config.temporal_patch_size} x {patch}"
    return {
        "example": " x ".join(map(str, config.shape)),
        "patch": "none" if len(config.shape) == 2 else patch,
        "interface": f"{price.tokens} tokens x {config.interface_dim}",
        "latents": f"{price.latents} x {config.latent_dim}",
        "compute layers a block": ", ".join(map(str, config.compute_depth)),
        "heads": f"{config.num_heads}, read and write {config.num_read_write_heads}",
        "classes": str(config.num_classes or "none"),
        "parameters": f"{price.parameters:,} (counted)",
        "operations": f"{price.operations / 1e9:.4g} G a forward pass of one example (counted, 2 a multiply-add)",
    }


def _print_table() -> None:
    print(f"{'preset':<16}{'example':<16}{'tokens x width':<16}{'latents x width':<17}{'parameters':<13}operations")
    for name in preset_names():
        config = preset(name).model
        price = cost(config)
        example, tokens = "x".join(map(str, config.shape)), f"{price.tokens} x {config.interface_dim}"
        latents, parameters = f"{price.latents} x {config.latent_dim}", f"{price.parameters / 1e6:.4g} M"
        print(f"{name:<16}{example:<16}{tokens:<16}{latents:<17}{parameters:<13}{price.operations / 1e9:.4g} G")
    print("\nParameters and operations of a forward pass are counted; `rin info PRESET` says where sizes come from.")
