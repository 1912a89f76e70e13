"""Text encoders of the transformers library: captions become the hidden states of their tokens."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch

from rin.core.errors import RinError
from rin.core.optional import transformers
from rin.core.progress import LOGGER
from rin.core.texts import Tokens


class TextEncoder:
    """A text encoder, as transformers opens it by name: the hidden states of its last layer.

    Args:
        name: a folder, or a model on the Hub.
        num_tokens: of a text; what is beyond them is not read.

    Raises:
        RinError: there is no such model, it is none that encodes texts, or transformers is not installed.
    """

    def __init__(self, name: str, num_tokens: int) -> None:
        library = transformers("for text encoders")
        self.name, self.num_tokens, self.num_cut, self._has_told = name, num_tokens, 0, False
        library.utils.logging.disable_progress_bar()  # of a second's reading
        try:
            self.tokenizer: Any = library.AutoTokenizer.from_pretrained(name)
            model: Any = library.AutoModelForTextEncoding.from_pretrained(name, use_safetensors=True)
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise _no_encoder(name, error) from error
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.tokenizer.padding_side = "right"  # the tokens that count are the first ones
        self.model = model.eval().requires_grad_(False)
        self.width = _width(name, model.config)
        most = getattr(model.config, "max_position_embeddings", None)
        if most is not None and num_tokens > most:
            raise RinError(f"the text encoder {name} reads {most} tokens at most, and {num_tokens} are asked for")

    @torch.no_grad()
    def encode(self, texts: Sequence[str], device: torch.device | str = "cpu") -> Tokens:
        """The hidden states of some texts (b k dim), and which of their tokens count (b k).

        They are float32 with the precision of float16, which files keep them in. Of a text that is longer than
        `num_tokens` the first are taken, with one warning; `num_cut` counts such texts.

        Raises:
            RinError: the hidden states are not finite in float16.
        """
        told = {"padding": "max_length", "truncation": True, "max_length": self.num_tokens, "return_tensors": "pt"}
        asked = self.tokenizer(list(texts), **told)
        is_full = asked["attention_mask"].all(dim=1).tolist()  # others cannot be longer
        longer = self._longer([text for text, full in zip(texts, is_full, strict=True) if full])
        if longer and not self._has_told:
            self._tell(longer)
        self.num_cut += len(longer)
        self.model.to(device)
        with torch.autocast(torch.device(device).type, enabled=False):  # the same to the bit wherever it is asked
            states = self.model(
                input_ids=asked["input_ids"].to(device), attention_mask=asked["attention_mask"].to(device)
            ).last_hidden_state
        if not torch.isfinite(states.half()).all():
            raise RinError(f"the hidden states of {self.name} are beyond 16 bits: give another text encoder")
        return states.half().float(), asked["attention_mask"].to(device) > 0

    def tell_cut(self, texts: Sequence[str]) -> None:
        """Warns of prompts that are too long, however often: whoever has asked should know what is not read."""
        if longer := self._longer(texts):
            self._tell(longer)

    def _longer(self, texts: Sequence[str]) -> list[str]:
        lengths = [len(ids) for ids in self.tokenizer(list(texts), verbose=False)["input_ids"]] if texts else []
        return [text for text, length in zip(texts, lengths, strict=True) if length > self.num_tokens]

    def _tell(self, longer: Sequence[str]) -> None:
        self._has_told = True
        LOGGER.warning(
            "captions of more than %d tokens are cut there, the first of them %r", self.num_tokens, longer[0][:60]
        )


@lru_cache(maxsize=2)
def text_encoder(name: str, num_tokens: int) -> TextEncoder:
    """A text encoder, opened once.

    Raises:
        RinError: as of `TextEncoder`.
    """
    return TextEncoder(name, num_tokens)


def encoder_width(name: str) -> int:
    """How wide the hidden states of a text encoder are.

    Raises:
        RinError: there is no such model, or transformers is not installed.
    """
    library = transformers("for text encoders")
    try:
        config = library.AutoConfig.from_pretrained(name)
    except (OSError, ValueError, KeyError) as error:
        raise _no_encoder(name, error) from error
    return _width(name, config)


def _width(name: str, config: Any) -> int:
    """The width that a model's configuration tells.

    Raises:
        RinError: it tells none.
    """
    config = getattr(config, "text_config", None) or config
    width = getattr(config, "hidden_size", None) or getattr(config, "d_model", None)
    if not isinstance(width, int):
        raise RinError(f"the model {name} does not say how wide its hidden states are: give another text encoder")
    return width


def _no_encoder(name: str, error: Exception) -> RinError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return RinError(
        f"there is no text encoder {name!r}: give a folder or a Hub name of transformers that has a tokenizer and "
        f"safetensors ({reason[:200]})"
    )
