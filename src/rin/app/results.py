"""What a page shows of a drawing, and the files that it gives."""

from pathlib import Path

from PIL import Image

from rin.app.drawing import Drawn
from rin.core.errors import RinError
from rin.core.kind import Kind
from rin.core.optional import pyav
from rin.core.pixels import to_pictures
from rin.core.values import Values
from rin.sampling.outputs import save
from rin.sampling.pictures import bordered, contact_sheet, grid, to_image
from rin.sampling.plots import is_plotted, plots


def can_be_shown(kind: Kind) -> bool:
    """Whether there are pictures of samples: not of sets whose points have neither 2 nor 3 numbers."""
    return not kind.is_set or kind.shape[1] in (2, 3)


def picture(drawn: Drawn, kind: Kind) -> Image.Image | None:
    """One picture of all samples as they stand; None if there are no pictures of such.

    A grid of images or plots; of clips a row of frames each.
    """
    if not can_be_shown(kind):
        return None
    if is_plotted(kind.shape):
        return to_image(grid(plots(drawn.samples)))
    media = to_pictures(drawn.samples)
    if kind.is_video:
        num_context = kind.num_context_frames if drawn.denoising is not None else 0
        return to_image(contact_sheet(bordered(media, num_context)))
    return to_image(grid(media))


def files(drawn: Drawn, kind: Kind, values: Values, class_names: tuple[str, ...], folder: Path) -> list[Path]:
    """Writes samples into a folder, as `rin sample` does: the one to be shown first.

    Args:
        drawn: the end of a drawing.
        kind: of the model.
        values: what the numbers of its data mean.
        class_names: of its classes.
        folder: an empty one.

    Returns:
        Images: a grid and its denoising; clips: playing as GIF and, where there is PyAV, MP4, and a sheet; sets and
        signals: plots. Of sets that cannot be plotted, arrays.
    """
    assert drawn.denoising is not None  # it has ended
    names = {"pictures": ["samples.png", "denoising.gif"], "clips": ["clips.gif", "clips.mp4", "clips.png"]}
    wanted = names.get(kind.noun, ["samples.png"]) if can_be_shown(kind) else ["samples.npz"]
    written: list[Path] = []
    for name in wanted:
        if name.endswith(".mp4") and not _has_pyav():
            continue
        save(
            drawn.samples, folder / name, labels=drawn.labels, class_names=class_names, denoising=drawn.denoising,
            num_context=kind.num_context_frames, values=values,
        )  # fmt: skip
        written.append(folder / name)
    return written


def _has_pyav() -> bool:
    try:
        pyav("to write an MP4")
    except RinError:
        return False
    return True
