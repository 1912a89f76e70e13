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


def between_backticks(text):
    """What stands between backticks, outside of blocks."""
    outside = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"`([^`\n]+)`", outside)


def commands(text):
    """Every `rin ...` in a block or between backticks that is a whole command."""
    in_text = [words for words in between_backticks(text) if re.match(r"rin \w+ [^-]", words)]
    whole = [words for words in in_text if not re.search(PLACEHOLDERS, words)]
    return [line for line in lines(text) if line.startswith("rin ")] + whole


def commands_of_many(text):
    """Every `rin ...` that stands under torchrun in a block, without it."""
    of_many = re.compile(r"^torchrun .* -m (?:-- )?rin\.cli ")
    return [of_many.sub("rin ", line) for line in lines(text) if of_many.match(line)]


def others(text):
    """Every other line of the blocks for a shell, and every other command between backticks."""
    of_blocks = [line for line in lines(text) if not line.startswith(("rin ", "torchrun "))]
    return of_blocks + [words for words in between_backticks(text) if re.match(r"(make|python|pip) ", words)]
