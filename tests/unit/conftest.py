"""What tests share."""

import jaxtyping
import pytest


@pytest.fixture
def unhooked():
    """Without the tests' own checks of shapes and types, which would come before what a user is told."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
