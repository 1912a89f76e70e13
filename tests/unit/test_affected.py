"""What `make quick` runs after a change."""

import subprocess
import time

import grimp
import pytest

from tests.affected import PACKAGES, ROOT, UNTIL, affected, changed_files, module, pytest_runtest_setup


@pytest.fixture(scope="module")
def graph():
    return grimp.build_graph(*PACKAGES, cache_dir=None)


def test_files_are_modules():
    assert module("src/rin/nn/attention.py") == "rin.nn.attention"
    assert module("src/rin/nn/__init__.py") == "rin.nn"
    assert module("tests/unit/models.py") == "tests.unit.models"
    assert module("docs/scale.md") is None


@pytest.mark.parametrize(
    ("file", "first"),
    [
        ("src/rin/nn/attention.py", "tests/unit/nn/test_nn.py"),
        ("src/rin/training/muon.py", "tests/unit/training/test_optim.py"),
        ("src/rin/core/seeds.py", "tests/unit/core/test_core.py"),
        ("src/rin/preset_sources.py", "tests/unit/test_experiment.py"),
        ("benchmarks/unets.py", "tests/unit/test_benchmarks.py"),
        ("tests/reference/case.py", "tests/reference/test_corruption.py"),
        ("tests/unit/data/test_tars.py", "tests/unit/data/test_tars.py"),
    ],
)
def test_the_nearest_tests_come_first(graph, file, first):
    tests, left = affected(graph, [file])
    assert tests[0] == first
    assert left == []
    assert len(set(tests)) == len(tests)
    assert all((ROOT / test).is_file() for test in tests)


def test_a_room_s_own_tests_come_before_nearer_ones_and_several_changes_count_each():
    graph = grimp.ImportGraph()
    for importer, imported in [
        ("rin.nn.rin", "rin.nn.blocks"), ("tests.unit.nn.test_far", "rin.nn.rin"),
        ("tests.unit.test_near", "rin.nn.blocks"), ("tests.unit.models", "rin.nn.rin"),
        ("tests.unit.data.test_through_another", "tests.unit.models"),
        ("tests.reference.test_other", "rin.other"), ("tests.end_to_end.test_processes", "rin.nn.blocks"),
    ]:  # fmt: skip
        graph.add_import(importer=importer, imported=imported)
    nn = ["tests/unit/nn/test_far.py", "tests/unit/test_near.py", "tests/unit/data/test_through_another.py"]
    assert affected(graph, ["src/rin/nn/blocks.py"]) == (nn, [])
    both = [*nn[:1], "tests/reference/test_other.py", *nn[1:]]
    assert affected(graph, ["src/rin/nn/blocks.py", "src/rin/other.py"]) == (both, [])


def test_a_change_of_what_all_tests_share_affects_them_all(graph):
    tests, _ = affected(graph, ["tests/unit/conftest.py"])
    assert set(tests) >= {str(path.relative_to(ROOT)) for path in (ROOT / "tests" / "unit").rglob("test_*.py")}


def test_what_no_test_imports_is_said(graph):
    left = ["README.md", "examples/demo.py", "src/rin/gone.py", "tests/end_to_end/test_status.py"]
    assert affected(graph, left) == ([], left)


def test_changes_are_those_since_the_branch_left_main_and_files_git_does_not_know(tmp_path):
    def git(*arguments):
        author = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *author, *arguments], cwd=tmp_path, check=True, capture_output=True)

    def write(name, text="1"):
        (tmp_path / name).write_text(text)

    git("init", "-b", "main")
    for name in ("committed.py", "edited.py", "still.py", ".gitignore"):
        write(name, "ignored.py" if name == ".gitignore" else "1")
    git("add", ".")
    git("commit", "-m", "first")
    assert changed_files(tmp_path) == []
    git("checkout", "-b", "branch")
    write("committed.py", "2")
    git("commit", "-am", "second")
    for name in ("edited.py", "new.py", "ignored.py"):
        write(name, "2")
    assert changed_files(tmp_path) == ["committed.py", "edited.py", "new.py"]


@pytest.mark.parametrize(("left", "begins"), [(100, True), (-1, False)])
def test_a_test_begins_only_while_there_is_time(monkeypatch, left, begins):
    monkeypatch.setenv(UNTIL, str(time.time() + left))
    try:
        pytest_runtest_setup()
        begun = True
    except pytest.skip.Exception:
        begun = False
    assert begun == begins
