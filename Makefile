# Everything builds .venv here; Python 3.11 or later, make and a compiler are all that is needed.
PYTHON ?= python3
BIN := .venv/bin
# Tests run on one thread a process: two threads on two busy cores can be ten times slower than one.
# Each of the two runners begins with half of the tests, so that what several of them share is seldom made twice.
TEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal $(TEST_OPTIONS)
# Where a minute goes is worth a look at every run.
SLOWEST := --durations=20 --durations-min=1
# Dynamo does not take the shape checks' hook, so what is compiled runs without. What the compiler has made of the same
# code before is kept: the first run is the slow one.
TEST_COMPILED := TORCHINDUCTOR_CACHE_DIR=$(CURDIR)/.venv/inductor $(TEST) -o addopts="-ra --strict-markers" tests/compiled

.PHONY: setup demo demo-video bench quick test test-full static check format site wheel clean

setup: .venv/ready

# gradio asks for a Pillow below 13, and is tested with 13: it comes without what it asks for, and dev has the rest of that.
# torch-fidelity and rin-pytorch ask for torchvision, which has no build for PyTorch's CPU build. The tests give the
# first one the names that it imports, and it lies apart, for torchmetrics would import it without; the second one needs
# torchvision for files alone.

.venv/ready: Makefile pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps gradio
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps --upgrade --target .venv/fidelity torch-fidelity
	touch $@

demo: setup  ## train the digits preset for a few minutes, sample it, measure it
	$(BIN)/python examples/demo.py demo

demo-video: setup  ## train the moving-shapes preset, predict clips, measure them
	$(BIN)/python examples/demo_video.py demo-video

quick: static  ## format, lint, layers, and the tests that the change touches: 45 seconds
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.affected

test: setup  ## unit, reference and end-to-end tests
	$(TEST) $(SLOWEST) -m "not slow and not compiling"
	$(TEST_COMPILED) -m "not slow"

test-full: setup  ## the long ones too
	$(TEST) $(SLOWEST) -m "not compiling"
	$(TEST_COMPILED)

bench: .venv/bench  ## measure speed and memory, beside rin-pytorch, U-Nets and transformers; BENCH="--full" on a GPU
	$(BIN)/python -m benchmarks $(BENCH)

.venv/bench: .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[bench]"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps rin-pytorch
	touch $@

static: setup  ## format, lint, layers: a second
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

check: static  ## types too, and those of what macOS has
	$(BIN)/basedpyright
	$(BIN)/basedpyright --pythonplatform Darwin src

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

site: setup  ## the pages and the reference as a site
	$(BIN)/python -m sphinx -W --keep-going -q -c docs/site . site

wheel: setup
	$(BIN)/python -m build --wheel

clean:
	rm -rf .venv build dist site demo demo-video bench .pytest_cache .ruff_cache .import_linter_cache
