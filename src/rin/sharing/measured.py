"""What was measured of a model, out of the files that `rin evaluate --out` and `rin sweep` left in its folder."""

import json
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rin.core.files import check_file
from rin.core.names import printable
from rin.sharing.card import markdown_table

COMMAND = "command"
"""Where results tell the command that measured them."""

_SWEEP, _BEST = "sweep.jsonl", 5

_WRITES = ("--out", "--keep", "--keep-reference", "--neighbours")
"""Options that change no figure."""

_HOW = (
    "num", "num_probes", "num_evaluations", "patch_size", "nearer_than", "seed", "steps", "guidance", "num_latents",
    "num_guide_latents", "frames", "num_context_frames", "protocol", "reference", "features", "sentences",
)  # fmt: skip
"""What stands among results and is none."""


def what_was_measured(folder: Path, digest: str, name: str) -> str:
    """The results that a folder has of weights with a digest; what is of others, or does not say, is left out.

    Args:
        folder: of a run or a saved model.
        digest: SHA-256 of the weights.
        name: of the model on the Hub, which stands in the place of the folder.
    """
    parts = list(_evaluations(folder, digest, name))
    if sweep := _sweep(folder, digest, name):
        parts.append(sweep)
    return "\n\n".join(parts)


def _evaluations(folder: Path, digest: str, name: str) -> Iterator[str]:
    for path in sorted(folder.glob("*.json")):
        content = _read(_text(path))
        if not isinstance(content.get(COMMAND), str):
            continue
        of_averages = {key: part for key, part in content.items() if isinstance(part, dict)}
        for title, results in {"": content, **of_averages}.items():
            if _of_weights(results) != digest:
                continue
            rows = list(_rows(results))
            network = _network(results.get("protocol", results))
            command = _command(content[COMMAND], folder, name)
            of_which = f", {printable(title)}" if title else ""
            yield f"`{command}`{of_which}{network}:\n\n{markdown_table(('measure', 'value'), rows)}"


def _text(path: Path) -> str:
    """What a file holds; nothing of what is none, or no text."""
    try:
        check_file(path)
        return path.read_text(encoding="utf-8") if path.exists() else ""
    except (OSError, ValueError):
        return ""


def _read(text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _of_weights(results: dict[str, Any]) -> object:
    """The digest of the weights that results are of, if they say it."""
    protocol = results.get("protocol", {})
    samples = protocol.get("samples", results) if isinstance(protocol, dict) else {}
    return samples.get("weights_sha256") if isinstance(samples, dict) else None


def _rows(results: dict[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """The numbers of results, by their names; an estimate with its deviation."""
    for key, value in results.items():
        words = f"{before}{key.replace('_', ' ')}"
        if key in _HOW or isinstance(value, (bool, str)):
            continue
        if isinstance(value, dict):
            if set(value) == {"value", "deviation"}:
                yield words, f"{value['value']:.4g} (deviation {value['deviation']:.2g})"
            else:
                yield from _rows(value, f"{words}, ")
        elif isinstance(value, (int, float)):
            yield words, f"{value:.4g}"


def _network(protocol: dict[str, Any]) -> str:
    """Which network looked at the samples, without which a distance says nothing."""
    features = protocol.get("features")
    if not isinstance(features, dict):
        return ""
    named = f"{features['network']}, " if "network" in features else ""
    return f" (features of {named}SHA-256 {features['sha256']})"


def _command(command: str, folder: Path, name: str) -> str:
    """A command with the model's name on the Hub for its folder, and without the paths of a machine."""
    words, kept = shlex.split(command), list[str]()
    for before, word in zip(["", *words], words, strict=False):
        option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        if before in _WRITES or option in _WRITES:
            continue
        if os.path.isabs(value):
            is_model = os.path.realpath(value) == os.path.realpath(folder)
            value = name if is_model else "FILE" + Path(value).suffix if Path(value).suffix else "FOLDER"
        kept.append(f"{option}{equals}{value}")
    return printable(shlex.join(kept))


def _sweep(folder: Path, digest: str, name: str) -> str:
    path = folder / _SWEEP
    rows = [row for row in map(_read, _text(path).splitlines()) if _of_weights(row) == digest]
    if not rows:
        return ""
    most = max(row["protocol"]["samples"]["num"] for row in rows)
    last = next(row["protocol"] for row in reversed(rows) if row["protocol"]["samples"]["num"] == most)
    alike = [row for row in rows if _same(row["protocol"], last)]
    # the words of a way do not tell which latents guided it: those that were measured last are listed
    guided = [latents for row in alike if (latents := _guidance_latents(row["protocol"]))][-1:]
    alike = [row for row in alike if _guidance_latents(row["protocol"]) in (None, *guided)]
    best = sorted(alike, key=lambda row: row["frechet_distance"])[:_BEST]
    shown = [(row["words"], str(row["way"]["num_steps"]), f"{row['frechet_distance']:.4g}") for row in best]
    of_all = "all" if len(alike) == len(best) else f"the best {len(best)} of {len(alike)}"
    against = " against what it was trained on" if "part" in last["reference"] else ""
    return (
        f"`rin sweep {name}`, {most} pictures each{against}{_network(last)}, {of_all} ways to sample:\n\n"
        + markdown_table(("way", "steps", "Frechet distance"), shown)
    )


def _guidance_latents(protocol: dict[str, Any]) -> str | None:
    """Which latents the unconditional pass went on from; None without guidance."""
    samples = protocol["samples"]
    return samples.get("guidance_latents", "shared") if samples.get("guidance") else None


def _same(protocol: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether figures compare: as many samples, one reference, one network."""
    return all(protocol[part] == other[part] for part in ("reference", "features")) and (
        protocol["samples"]["num"] == other["samples"]["num"]
    )
