"""Libraries that are installed only where they are wanted."""

from typing import Any

from rin.core.errors import RinError


def pyav(purpose: str) -> Any:
    """PyAV, which reads and writes video files.

    Args:
        purpose: what it is needed for, as in "to read videos".

    Raises:
        RinError: it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise RinError(f'PyAV is needed {purpose}: pip install "rin-diffusion[video]"') from error
    return av
