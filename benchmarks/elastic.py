"""One elastic network at several numbers of latents: distance over operations, and pictures of one seed at each.

    rin sweep MODEL --features F.pt --num 1000 --guidances 4 --guidance-intervals 0.2,2 --num-latents 8 16 32 64
    python -m benchmarks.elastic MODEL --guidance 4 --guidance-interval 0.2 2 --out elastic.png

draws what the first command has measured of these weights (`sweep.jsonl` beside them) at that guidance, in the model's
own sampler and steps.
"""

import argparse
from pathlib import Path

import torch
from matplotlib import pyplot

import rin
from benchmarks.report import COLOURS
from rin.costs.operations import cost
from rin.evaluation.sweeping import SWEEP, measured_rows, own_way, way_of
from rin.sampling.pictures import grid


def main() -> None:
    """Draws the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a folder with weights and the sweep of them")
    parser.add_argument("--guidance", type=float, required=True, help="strength that the sweep was made with")
    parser.add_argument(
        "--guidance-interval", type=float, nargs=2, metavar="SIGMA", help="noise levels it was guided at, all if absent"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the pictures")
    parser.add_argument("--out", type=Path, required=True, help="a picture file")
    chosen = parser.parse_args()
    trained = rin.load(chosen.model, device="cpu")
    interval = tuple(chosen.guidance_interval) if chosen.guidance_interval else None
    measured = by_latents(chosen.model / SWEEP, trained, chosen.guidance, interval)
    if not measured:
        way = own_way(trained, chosen.guidance, interval).words
        parser.error(f"no sweep of these weights has numbers of latents by {way}: see --help")
    figure, (curve, pictures) = pyplot.subplots(1, 2, figsize=(13, 5.2), layout="constrained", width_ratios=(2, 3))
    whole = cost(trained.config).operations
    shares = [cost(trained.config, num_latents).operations / whole for num_latents in measured]
    curve.plot(shares, list(measured.values()), "o-", color=COLOURS[0])
    for place, (share, (num_latents, distance)) in enumerate(zip(shares, measured.items(), strict=True)):
        below = place % 2  # neighbours' numbers would lie over each other
        curve.annotate(
            f"{num_latents}", (share, distance), textcoords="offset points", xytext=(-4, -16 if below else 8)
        )
    curve.set(
        xlim=(0, 1.08), ylim=(0, 1.25 * max(measured.values())), ylabel="Frechet distance",
        xlabel="operations of a step, as a share of all latents'", title="One set of weights, by its number of latents",
    )  # fmt: skip
    curve.grid(alpha=0.3)
    labels = range(trained.kind.num_classes)
    ways = [own_way(trained, chosen.guidance, interval, str(num_latents)) for num_latents in measured]
    rows = [rin.to_pictures(trained.sample(labels, seed=chosen.seed, **way.options)) for way in ways]
    sheet = grid(torch.cat(rows), columns=len(labels))[0]
    pictures.imshow(sheet.permute(1, 2, 0), interpolation="nearest")
    height = sheet.shape[1] / len(rows)
    pictures.set_yticks([height * (row + 0.5) for row in range(len(rows))], [f"{count} latents" for count in measured])
    pictures.set_xticks([])
    pictures.set_frame_on(False)
    pictures.tick_params(length=0)
    pictures.set_title(f"The same noise with each (seed {chosen.seed})")
    figure.savefig(chosen.out, dpi=110)


def by_latents(
    path: Path, trained: rin.TrainedModel, guidance: float, guidance_interval: tuple[float, float] | None = None
) -> dict[int, float]:
    """Distance by number of latents, the same in all steps, which are the model's own."""
    measured = {way_of(row): row["frechet_distance"] for row in measured_rows(path, trained, guidance)}
    counts = range(1, trained.config.num_latents + 1)
    ways = {count: own_way(trained, guidance, guidance_interval, str(count)) for count in counts}
    return {count: measured[way] for count, way in ways.items() if way in measured}


if __name__ == "__main__":
    main()
