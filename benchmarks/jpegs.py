"""JPEGs that look a little like photographs, in ten classes: `python -m benchmarks.jpegs FOLDER COUNT SIZE`.

Each is a sum of noise at many scales in the colour of its class, with as much detail as makes files as large as those
of photographs. Picture k of a seed is always the same.
"""

import argparse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

QUALITY, NUM_CLASSES = 90, 10


def write_jpegs(folder: Path, count: int, size: tuple[int, int], seed: int = 0) -> None:
    """Writes `count` pictures of a width and height into a folder, in a sub-folder a class."""
    for kind in range(NUM_CLASSES):
        (folder / f"class-{kind}").mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor() as threads:
        for _ in threads.map(lambda number: write_picture(folder, number, size, seed), range(count)):
            pass


def write_picture(folder: Path, number: int, size: tuple[int, int], seed: int) -> None:
    """Writes picture `number` of a seed."""
    chance = np.random.default_rng((seed, number))
    colour = np.random.default_rng((seed, number % NUM_CLASSES, 0)).uniform(60, 200, 3)
    light = np.stack([landscape(size, chance) for _ in range(3)], axis=-1)
    pixels = (colour + 50 * light).clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(folder / f"class-{number % NUM_CLASSES}" / f"{number:07d}.jpg", quality=QUALITY)


def landscape(size: tuple[int, int], chance: np.random.Generator) -> np.ndarray:
    """Noise of all scales from the whole picture down to two pixels (h w), about 0 and of deviation 1."""
    cells, strength, most = 2, 1.0, max(size) // 2
    picture = Image.fromarray(chance.standard_normal((cells, cells), np.float32))
    while cells < most:
        cells, strength = min(2 * cells, most), 0.8 * strength
        larger = np.asarray(picture.resize((cells, cells), Image.Resampling.BICUBIC))
        picture = Image.fromarray(larger + strength * chance.standard_normal((cells, cells), np.float32))
    whole = np.asarray(picture.resize(size, Image.Resampling.BICUBIC))
    return whole / whole.std()


def main() -> None:
    """Writes square pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("count", type=int, help="how many pictures")
    parser.add_argument("size", type=int, help="their height and width")
    chosen = parser.parse_args()
    write_jpegs(chosen.folder, chosen.count, (chosen.size, chosen.size))


if __name__ == "__main__":
    main()
