"""A model card, README.md: the text of those of models that are shared, and of those that come with rin."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

CARD = "README.md"


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What there is to say of a model."""

    name: str
    """The heading."""

    draws: str
    """What it draws, in words, as in "pictures of 32x32 pixels, by class"."""

    num_parameters: int
    """Weights of the network."""

    kept: str = ""
    """What the weights are kept as, where it is not as they were trained."""

    picture: str = ""
    """The file of the samples that are shown, beside the card; empty for none."""

    drawing: str = ""
    """The command that draws it."""

    sections: Mapping[str, str] = field(default_factory=dict[str, str])
    """What is said of it further, by what stands bold in front."""

    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What the Hub reads, by the names of `huggingface_hub.ModelCardData`; none at all if empty."""

    def text(self) -> str:
        """The card as Markdown, with the Hub's metadata before it."""
        kept = f", kept {self.kept}" if self.kept else ""
        shown = f"![What it draws, not picked]({self.picture})" if self.picture else ""
        parts = [
            f"# {self.name}",
            f"Draws {self.draws}. {self.num_parameters / 1e6:.2f} M parameters{kept}.",
            shown,
            f"```sh\n{self.drawing}\n```" if self.drawing else "",
            *(f"**{title}** {text}" for title, text in self.sections.items()),
        ]
        return self._head() + "\n\n".join(part for part in parts if part) + "\n"

    def _head(self) -> str:
        if not self.metadata:
            return ""
        from huggingface_hub import ModelCardData

        return f"---\n{ModelCardData(**self.metadata).to_yaml()}\n---\n\n"


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, a line a row."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("|" + "|".join(_cell(cell) for cell in line) + "|" for line in lines)


def _cell(text: str) -> str:
    return text if text == "---" else f" {text} ".replace("|", "\\|")
