"""A trained model as others get it: a folder with a model card, and the Hugging Face Hub."""

from rin.sharing.card import ModelCard
from rin.sharing.facts import Origin, hours_trained
from rin.sharing.folder import check_shareable, write_card
from rin.sharing.hub import check_hub_name, check_logged_in, upload

__all__ = [
    "ModelCard",
    "Origin",
    "check_hub_name",
    "check_logged_in",
    "check_shareable",
    "hours_trained",
    "upload",
    "write_card",
]
