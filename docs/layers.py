"""`python docs/layers.py` draws the package's layers, out of its imports, into docs/layers.md; --check compares."""

import sys
import tomllib
from itertools import product
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "layers.md"
HEAD = """# Layers

Made by `python docs/layers.py` from the imports of the package. A part imports parts below it only; `lint-imports`
enforces it. An arrow that others imply is not drawn; the table has all of them.

"""


def layers() -> dict[str, int]:
    """The layer of each part of the package, as pyproject.toml has them, from 0 at the top."""
    contract, *_ = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    named = [[name.strip().removeprefix("rin.") for name in layer.split("|")] for layer in contract["layers"]]
    return {part: number for number, layer in enumerate(named) for part in layer}


def imports() -> dict[str, set[str]]:
    """The parts that each part imports; `rin` and `rin.public` are the public face, and no part."""
    graph, found = grimp.build_graph("rin", cache_dir=None), {}
    for module in graph.modules - {"rin", "rin.public"}:
        part = module.split(".")[1]
        below = {name.split(".")[1] for name in graph.find_modules_directly_imported_by(module) if "." in name}
        found[part] = found.get(part, set()) | below - {part}
    return found


def page() -> str:
    """The page; SystemExit where a part is in no layer, or an import does not point downwards."""
    rank, arrows = layers(), imports()
    if missing := arrows.keys() - rank.keys():
        raise SystemExit(f"in no layer of pyproject.toml: {', '.join(sorted(missing))}")
    if wrong := [f"{a} -> {b}" for a in arrows for b in arrows[a] if rank[a] >= rank[b]]:
        raise SystemExit(f"imports that do not point downwards: {', '.join(sorted(wrong))}")
    parts, reach = [part for part in rank if part in arrows], {}
    for part in reversed(parts):
        reach[part] = arrows[part].union(*(reach[below] for below in arrows[part]))
    direct = {part: arrows[part] - set().union(*(reach[below] for below in arrows[part])) for part in parts}
    figure = [f"    {a} --> {b}" for a, b in product(parts, parts) if b in direct[a]]
    rows = [f"| {a} | {', '.join(b for b in parts if b in arrows[a])} |" for a in parts]
    table = ["| part, from the top | imports |", "|---|---|", *rows]
    return HEAD + "\n".join(["```mermaid", "flowchart TD", *figure, "```", "", *table]) + "\n"


if __name__ == "__main__":
    if "--check" not in sys.argv:
        PAGE.write_text(page(), encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != page():
        raise SystemExit("docs/layers.md is not what the imports are: python docs/layers.py")
