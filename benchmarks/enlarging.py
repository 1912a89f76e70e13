"""How good enlarged pictures are: PSNR and Frechet distance of samples beside bicubic, and a sheet to look at.

    python -m benchmarks.enlarging --run runs/cifar10-larger --data path/to/cifar10-parquet --features F.pt

takes pictures that the run has not been trained on, makes them as small as it draws from, and enlarges them. The sheet
has a row a picture: the small one, bicubic, three samples, the picture itself.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

import rin
from benchmarks.editing import measured_by
from rin.data.degrading import downscaled
from rin.evaluation.restored import bicubic, psnr
from rin.sampling.pictures import grid, save_image

SHOWN, SAMPLES = 10, 3


def main() -> None:
    """Measures, prints, and draws the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, help="a model that draws from smaller pictures")
    parser.add_argument("--data", required=True, help="pictures with classes, numbered as the model's")
    parser.add_argument("--split", default="test", help="of the data")
    parser.add_argument("--num", type=int, default=1000, help="pictures")
    parser.add_argument("--features", type=Path, required=True, help="a TorchScript network")
    parser.add_argument("--reference", help="an .npz of `rin evaluate --keep-reference`; the training split if absent")
    parser.add_argument("--sheet", type=Path, help="a picture file")
    chosen = parser.parse_args()
    trained = rin.load(chosen.run, device="cpu")
    opened = rin.open_data(rin.DataConfig(path=chosen.data, split=chosen.split, num_held_out=0), trained.kind.shape)
    pictures, labels = opened.training.get(torch.arange(chosen.num))
    factor = trained.kind.shape[1] // trained.kind.condition_shape[1]
    low = downscaled(pictures, factor)
    draw = partial(trained.sample, condition=rin.to_floats(low), seed=0, batch_size=250)
    ways: dict[str, Callable[[], Tensor]] = {
        "the pictures themselves": lambda: pictures,
        "bicubic": lambda: bicubic(low, factor),
        "a sample, --consistent": lambda: rin.to_pictures(draw(consistent=True)),
        "a sample": lambda: rin.to_pictures(draw()),
    }
    measured = measured_by(trained, chosen.reference or chosen.data, chosen.features)
    print("PSNR in dB, distance, taken for the class, levels away when made smaller again")
    for name, make in ways.items():
        made = make()
        distance, accuracy = measured(made, labels.tolist())
        away = (downscaled(made, factor).float() - low.float()).abs().mean()
        print(f"{name:24} {psnr(made, pictures).mean():6.2f} {distance:8.3f} {accuracy:6.3f} {away:6.2f}", flush=True)
    if chosen.sheet is not None:
        save_image(sheet(trained, pictures[:SHOWN], low[:SHOWN], factor), chosen.sheet)


def sheet(trained: rin.TrainedModel, pictures: Tensor, low: Tensor, factor: int) -> Tensor:
    """A row a picture."""
    given = rin.to_floats(low).repeat_interleave(SAMPLES, dim=0)
    drawn = rin.to_pictures(trained.sample(condition=given, seed=0, consistent=True)).unflatten(0, (-1, SAMPLES))
    enlarged = low.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)
    rows = torch.cat([enlarged[:, None], bicubic(low, factor)[:, None], drawn, pictures[:, None]], dim=1)
    return grid(rows.flatten(0, 1), SAMPLES + 3)


if __name__ == "__main__":
    main()
