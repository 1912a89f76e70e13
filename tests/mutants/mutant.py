"""A mutant, and the names that mutants call files and tests by."""

from typing import NamedTuple


class Mutant(NamedTuple):
    """One change of the code, and the tests that are to go red."""

    name: str
    file: str  # below src/rin
    original: str
    mutated: str
    undoes: str
    tests: tuple[str, ...]
    quick: bool = False  # cheap and important enough for every run of the tests


def nn(name):
    return f"tests/unit/nn/test_nn.py::{name}"


def diffusion(name):
    return f"tests/unit/diffusion/test_diffusion.py::{name}"


def samplers(name):
    return f"tests/unit/diffusion/test_samplers.py::{name}"


def optim(name):
    return f"tests/unit/training/test_optim.py::{name}"


def adapters(name):
    return f"tests/unit/training/test_adapters.py::{name}"


def training(name):
    return f"tests/unit/training/test_training.py::{name}"


def editing(name):
    return f"tests/unit/sampling/test_editing.py::{name}"


def clips(name):
    return f"tests/unit/sampling/test_clips.py::{name}"


def conditions(name):
    return f"tests/unit/test_condition_pictures.py::{name}"


def processes(name):
    return f"tests/end_to_end/test_processes.py::{name}"


def reference(case):
    return f"tests/reference/test_reference.py::test_case[{case}]"


INITIALISATION, TOKENIZERS, EMBEDDINGS = "nn/initialisation.py", "nn/tokenizers.py", "nn/embeddings.py"
BLOCKS, RIN, MODEL_CONFIG = "nn/blocks.py", "nn/rin.py", "nn/config.py"
DIFFUSION, LOSS, SAMPLERS = "diffusion/diffusion.py", "diffusion/loss.py", "diffusion/samplers.py"
GIVEN, GUIDANCE, REVERSE = (f"diffusion/{name}.py" for name in ("given", "guidance", "reverse_process"))
PARAMETRISATION = "diffusion/parametrisation.py"
OPTIM, CONFIG, RATES, AVERAGE = (f"training/{name}.py" for name in ("optim", "config", "lr_schedules", "average"))
SHARDING = "training/sharding.py"
