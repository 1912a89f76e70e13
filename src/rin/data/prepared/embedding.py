"""The captions of a prepared set, embedded once by a text encoder.

`embeddings.npy` (float16, texts k dim) and `embedded_tokens.npy` (int32, how many of a text's tokens count; -1 while it
is not embedded yet) lie beside `set.json`, with `embeddings.json`, which tells what they were made from. All different
captions of all splits are in them, in the order of `set.json`.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.format import open_memmap

from rin.core import strict_json
from rin.core.errors import RinError
from rin.core.names import printable, whole_path
from rin.core.progress import LOGGER, progress_bar
from rin.core.text_encoders import encoder_width, text_encoder
from rin.core.texts import EmbeddedCaptions
from rin.data.prepared.reading import read_set
from rin.data.prepared.shard_writing import write_json

TABLE, TOKENS, ABOUT = "embeddings.npy", "embedded_tokens.npy", "embeddings.json"

_FORMAT_VERSION = 1

_AT_ONCE = 64
"""Texts."""

_WAY_OUT = "give the rin prepare command with --text-encoder again"


def embed(folder: Path, encoder: str, num_tokens: int) -> bool:
    """Embeds the captions of a prepared set, or goes on with it; whether there was something to do.

    Args:
        folder: the set's, which is finished.
        encoder: the text encoder, a name or a folder.
        num_tokens: of a text.

    Raises:
        RinError: there is no such encoder, its numbers are beyond 16 bits, or the folder cannot be written.
    """
    texts, encoder = _texts_of(folder), whole_path(encoder)
    width = encoder_width(encoder)
    about = {"format_version": _FORMAT_VERSION, "text_encoder": encoder, "texts": _digest(texts)}
    try:
        return _embed(folder, texts, encoder, (len(texts), num_tokens, width), about)
    except OSError as error:
        raise RinError(f"cannot write embeddings to {printable(folder)}: {error.strerror or error}") from error


def _embed(folder: Path, texts: list[str], encoder: str, shape: tuple[int, int, int], about: dict[str, Any]) -> bool:
    table, tokens = folder / TABLE, folder / TOKENS
    if not _is_begun(folder, shape, about):
        (folder / ABOUT).unlink(missing_ok=True)
        open_memmap(table, "w+", np.float16, shape)
        counts = open_memmap(tokens, "w+", np.int32, shape[:1])
        counts[:] = -1
        counts.flush()  # zeros, after the power has failed, would pass for captions of no tokens
        write_json(folder / ABOUT, about)
    embeddings, counts = open_memmap(table, "r+"), open_memmap(tokens, "r+")
    missing = np.flatnonzero(counts < 0)
    if not len(missing):
        return False
    network = text_encoder(encoder, shape[1])
    before = network.num_cut
    with progress_bar("embedding", len(texts), len(texts) - len(missing)) as bar:
        for places in np.array_split(missing, -(-len(missing) // _AT_ONCE)):
            states, mask = network.encode([texts[place] for place in places])
            embeddings[places] = states.numpy()
            embeddings.flush()  # before what says that they are there
            counts[places] = mask.sum(1).numpy()
            bar.advance(len(places))
    if cut := network.num_cut - before:
        LOGGER.warning("%d of %d captions have more than %d tokens and are cut there", cut, len(missing), shape[1])
    return True


def _is_begun(folder: Path, shape: tuple[int, int, int], about: dict[str, Any]) -> bool:
    """Whether the files of these embeddings are there, be they finished or not."""
    try:
        files = _files_of(folder)
    except RinError:
        return False
    return files is not None and (files[0], files[1].shape, files[2].shape) == (about, shape, shape[:1])


class Embeddings(NamedTuple):
    """What embeddings are."""

    encoder: str
    """The text encoder that made them; empty if it is not known."""

    num_tokens: int
    """Of a text."""

    width: int
    """Of a token."""


def embeddings_in(folder: Path) -> Embeddings | None:
    """What the embeddings of a prepared set are; None if it has none.

    Raises:
        RinError: they are damaged.
    """
    files = _files_of(folder)
    return None if files is None else Embeddings(files[0]["text_encoder"], *files[1].shape[1:])


def _files_of(folder: Path) -> tuple[dict[str, Any], np.ndarray, np.ndarray] | None:
    """What embeddings were made from, themselves, and how many tokens of each count; None if there are none."""
    if not os.path.isfile(folder / ABOUT):  # which takes names that are too long for such as are not there
        return None
    try:
        about = strict_json.read_json(folder / ABOUT)
        embeddings, counts = (np.load(folder / name, mmap_mode="r") for name in (TABLE, TOKENS))
        if (embeddings.ndim, embeddings.dtype, counts.dtype) != (3, np.float16, np.int32):
            raise ValueError("they are no embeddings")
        if type(about["text_encoder"]) is not str:
            raise ValueError("they are of no text encoder")
    except (OSError, ValueError, EOFError, KeyError, TypeError) as error:
        raise RinError(f"the embeddings in {printable(folder)} are damaged ({error}): {_WAY_OUT}") from error
    return about, embeddings, counts


def read_embeddings(folder: Path, names: Sequence[str]) -> EmbeddedCaptions | None:
    """The embeddings of some captions of a prepared set; None if it has none.

    Args:
        folder: the set's, or any other.
        names: the captions, of each label.

    Raises:
        RinError: they are not finished, or are of other captions.
    """
    files = _files_of(folder)
    if files is None:
        return None
    (about, embeddings, counts), texts = files, _texts_of(folder)
    rows = {text: row for row, text in enumerate(texts)}
    if about.get("texts") != _digest(texts) or not len(texts) == len(embeddings) == len(counts):
        raise RinError(f"the embeddings in {printable(folder)} are of other captions than the set has: {_WAY_OUT}")
    if (counts < 0).any():
        raise RinError(f"the embeddings in {printable(folder)} are not finished: {_WAY_OUT}")
    mask = np.arange(embeddings.shape[1]) < counts[:, None]
    return EmbeddedCaptions(embeddings, mask, about["text_encoder"], np.array([rows[name] for name in names], np.int64))


def _texts_of(folder: Path) -> list[str]:
    """All different captions of a prepared set, in its order."""
    splits = read_set(folder)["splits"].values()
    return list(dict.fromkeys(name for split in splits for name in split["class_names"]))


def _digest(texts: list[str]) -> str:
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()
