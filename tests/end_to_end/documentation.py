"""The pages of the project, and what stands in them as a command."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *sorted((ROOT / "docs").glob("*.md"))]
PLACEHOLDERS = r"[A-Z]{3,}| N\b"
"""What stands for something that a reader puts in, as in `rin info PRESET --gpus N`."""


def blocks(text, language):
    """The contents of the fenced blocks of a language, or of none."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    return [content for name, content in fenced if name == language]


def lines(text):
    """Every line of the blocks for a shell, without remarks."""
    of_blocks = (line.partition("  #")[0].strip() for block in blocks(text, "sh") for line in block.splitlines())
    return [line for line in of_blocks if line]


def commands(text):
    """Every `rin ...` in a block or between backticks that is a whole command; under torchrun without it."""
    in_blocks = [re.sub(r"^torchrun .* -m (?:-- )?rin\.cli ", "rin ", line) for line in lines(text)]
    in_text = [word for word in re.findall(r"`(rin (?:\w+) [^-`][^`]*)`", text) if not re.search(PLACEHOLDERS, word)]
    return [line for line in in_blocks if line.startswith("rin ")] + in_text
