"""`make quick`'s tests: those that import what has changed, nearest first, until the time is up.

    python -m tests.affected [FILE ...]

takes the files named, or those that differ from where the branch left main, finds what imports them, and runs those of
tests/unit and tests/reference that do, directly or through others. It knows imports alone: what is read as a file or
runs as a process is left to `make test`, and so are the tests that the time does not suffice for.
"""

import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
SECONDS = 30
"""From the start; a test that has begun ends. With what is static, and the slowest test, 45 seconds are enough."""
PACKAGES = ("rin", "tests", "benchmarks", "studies")
SMOKE = ("tests/reference/test_reference.py", "tests/unit/nn/test_nn.py")
"""Run where nothing is affected: the authors' numbers, and the network."""
TEST = re.compile(r"tests\.(unit|reference)\.(.+\.)?test_\w+$")
UNTIL = "RIN_TESTS_UNTIL"
LEFT = "no time is left"


def changed_files(root=ROOT):
    """Files that differ from where the branch left main (on main, from the last commit), and what git does not know."""

    def git(*arguments):
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
        return done.stdout.splitlines() if done.returncode == 0 else []

    base = git("merge-base", "HEAD", "main") or ["HEAD"]
    return sorted({*git("diff", "--name-only", base[0]), *git("ls-files", "--others", "--exclude-standard")})


def module(file):
    """The name a file is imported by; None if it is not Python."""
    parts = Path(file).with_suffix("").parts
    parts = parts[1:] if parts[0] == "src" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) if file.endswith(".py") else None


def distances(graph, name):
    """Modules that import one that has changed -> through how many imports, 0 for the changed one itself."""
    found, here = {}, {name} & graph.modules
    if name.endswith(".conftest"):  # pytest imports it for all that is beside and below
        here = {other for other in graph.modules if other.startswith(name.removesuffix("conftest"))}
    while here:
        found |= dict.fromkeys(here, max(found.values(), default=-1) + 1)
        here = {by for one in here for by in graph.find_modules_that_directly_import(one)} - found.keys()
    return found


def affected(graph, files):
    """Test files to run, nearest first, and the changed files that none of tests/unit and tests/reference imports."""
    near, left = {}, []
    for file in files:
        name = module(file)
        tests = {test: distance for test, distance in distances(graph, name or "").items() if TEST.match(test)}
        room = f"tests.unit.{name.split('.')[1]}." if tests and name.startswith("rin.") else "no room"
        for test, distance in tests.items():
            far = distance > 0 and not test.startswith(room)  # a room's own tests come before others
            near[test] = min(near.get(test, (True, distance)), (far, distance))
        left += [] if tests else [file]
    nearest_first = sorted(near, key=lambda test: (near[test], test))
    return [test.replace(".", "/") + ".py" for test in nearest_first], left


def pytest_runtest_setup():
    """Runs in pytest's processes, which load this file as a plugin; those of `.ci/run` do so, too."""
    if time.time() > float(os.environ[UNTIL]):
        import pytest

        pytest.skip(LEFT)


def pytest_report_teststatus(report):
    """Counts what was left by itself."""
    return ("left", "", "LEFT") if report.skipped and LEFT in str(report.longrepr) else None


def pytest_terminal_summary(terminalreporter):
    """Names what was left."""
    left = Counter(report.nodeid.partition("::")[0] for report in terminalreporter.stats.get("left", []))
    for file, count in left.items():
        terminalreporter.write_line(f"no time is left for {count} of {file}")


def main(files):
    """Selects, says what, and runs; pytest's exit status."""
    import grimp

    until = time.time() + SECONDS
    files = files or changed_files()
    tests, left = affected(grimp.build_graph(*PACKAGES, cache_dir=None), files)
    print(
        f"{len(files)} files changed; " + (f"{len(tests)} test files import them" if tests else "no test imports them")
    )
    print("".join(f"left to make test: what reads or runs {file}\n" for file in left), end="")
    print("nearest first:" if tests else "the smallest set:", *(tests or SMOKE), sep="\n  ", flush=True)
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", __spec__.name, "-m", "not slow and not compiling"]
    return subprocess.call([*command, *(tests or SMOKE)], cwd=ROOT, env=os.environ | {UNTIL: str(until)})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
