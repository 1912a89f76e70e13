"""`rin push`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from rin.cli.arguments import parse, quoted
from rin.sharing import check_hub_name
from rin.trained_model import load


@dataclass(frozen=True, kw_only=True)
class PushArguments:
    """Sends a model to the Hugging Face Hub: averaged weights, configuration, a model card, samples.

    The card tells what it draws, how it was trained, the held-out losses of a run, and what rin evaluate --out and
    rin sweep have left in the run's folder of these weights; no path of this machine. Log in by hf auth login before.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A run's folder, a saved model's, or the name of a model that comes with rin, as in digits."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OWNER/NAME")]
    """Its name on the Hub. What is there of the same names is written over; the Hub keeps what was before."""

    to_folder: Path | None = None
    """A new folder to write all of it to; nothing is sent."""

    private: bool = False
    """Only its owner may see it; if absent as the owner's account has it, which is public as a rule."""

    license: str | None = None
    """Of the weights, as the Hub writes it: apache-2.0, cc-by-4.0, openrail and so on; the card says nothing of one if
    absent."""

    prompt: str | None = None
    """The caption of the samples, for models that have learned from captions; of these none are drawn without it."""

    num: int | None = None
    """Samples, the first ones of seed 0, 0 for none; if absent eight a class up to sixteen classes, else 64 pictures or
    8 clips."""

    commit_message: str = "A RIN, saved by rin"
    """Of the commit on the Hub."""


def push(arguments: list[str]) -> None:
    """Sends the model, or writes what would be sent."""
    chosen = parse(PushArguments, arguments, "rin push")
    check_hub_name(chosen.name)  # before a model is opened, which can take long
    trained = load(chosen.run)
    if chosen.to_folder is not None:
        trained.save_with_card(
            chosen.to_folder, chosen.name, license=chosen.license, prompt=chosen.prompt, num=chosen.num
        )
        print(f"nothing is sent; {quoted(chosen.to_folder)} has what would be")
        return
    url = trained.push_to_hub(
        chosen.name, commit_message=chosen.commit_message, private=chosen.private or None,
        license=chosen.license, prompt=chosen.prompt, num=chosen.num,
    )  # fmt: skip
    print(f"{url}: rin sample {chosen.name}")
