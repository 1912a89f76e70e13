"""The Hugging Face Hub: names, and a folder sent there. What it refuses is one line."""

import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from rin.core.errors import RinError


def is_hub_name(name: str) -> bool:
    """Whether it is owner/name as the Hub has such."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return re.fullmatch(r"[^/]+/[^/]+", name) is not None


def check_hub_name(name: str) -> None:
    """Refuses what is no name of a model on the Hub.

    Raises:
        RinError: it is none.
    """
    if not is_hub_name(name):
        raise RinError(
            f"{name!r} is no name on the Hub: give owner/name, of letters, digits, and single - _ . between them"
        )


def check_logged_in(name: str, token: str | None) -> None:
    """Asks the Hub who we are, before there is any work.

    Raises:
        RinError: nobody whom it knows, or it cannot be reached.
    """
    import huggingface_hub

    with _one_line(name):
        huggingface_hub.HfApi(token=token).whoami()


def upload(folder: Path, name: str, *, commit_message: str, private: bool | None, token: str | None) -> str:
    """Sends all that is in a folder to the Hub as one commit; returns the model's address.

    Args:
        folder: what to send; files of the same names there are written over, others stay.
        name: owner/name, which is made if there is none.
        commit_message: of the commit.
        private: whether only its owner may see it; None as the owner's account has it.
        token: of the account; None for the one that `hf auth login` has kept.

    Raises:
        RinError: the Hub refuses or cannot be reached, or the model is to be private and is there, for all to see.
    """
    import huggingface_hub

    with _one_line(name):
        api = huggingface_hub.HfApi(token=token)
        url = str(api.create_repo(name, private=private, exist_ok=True))
        if private and not api.repo_info(name).private:  # which the Hub leaves as it is
            raise RinError(
                f"{name} is on the Hub already and public: make it private there first, or give another name"
            )
        api.upload_folder(repo_id=name, folder_path=folder, commit_message=commit_message)
    return url


@contextmanager
def _one_line(name: str) -> Generator[None]:
    from huggingface_hub import errors

    try:
        yield
    except RinError:
        raise
    except (OSError, ValueError, getattr(errors, "HTTPError", OSError)) as error:  # a network that is down is the last
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        status = getattr(getattr(error, "response", None), "status_code", None)
        hint = ": log in by hf auth login, as one who may write there" if status in (401, 403) else ""
        raise RinError(f"cannot push to {name} on the Hub{hint} ({reason})") from error
