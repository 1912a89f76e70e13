"""A trained RIN as a folder that the library diffusers opens: its file layout, its pipeline, rin's network and sampler.

The folder holds weights and configurations alone. Network and sampling are rin's own, which has to be installed where
the folder is opened.
"""

from rin.interop.diffusers.saving import save

__all__ = ["save"]
