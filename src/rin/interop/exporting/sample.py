"""Draws with an exported Recurrent Interface Network: all of its sampling, in numpy and onnxruntime.

    python sample.py --classes 3 5 --guidance 1 --out samples.png

x_t = sqrt(gamma) x_0 + sqrt(1 - gamma) eps is clean data x_0 with noise eps; gamma rises from 0 to 1 as t falls from 1,
where x_t is noise, to 0. At each step the network is given x_t and gamma and predicts eps, x_0, or
v = sqrt(gamma) eps - sqrt(1 - gamma) x_0; each of them tells x_0 and eps, which are mixed anew for the next, smaller t.
The latents that it ends one step with are those that it starts the next one from: the recurrence of a RIN.
"""

import argparse
import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime


def gamma_of(t: Any, schedule: str) -> Any:
    """The share of clean data's variance in x_t, at times t."""
    name, _, numbers = schedule.partition("@")
    start, end, power = [*map(float, (numbers or "0.002,80,7").split(",")), 0.0][:3]
    if schedule == "cosine":
        return np.cos((t + 0.0002) / 1.00025 * np.pi / 2) ** 2
    if schedule == "linear":
        return np.clip(1 - t, 1e-9, 1)
    if name == "log-snr":  # of sigma, the noise's deviation over that of the data
        return 1 / (1 + (start * (end / start) ** t) ** 2)
    if name == "karras":
        low, high = start ** (1 / power), end ** (1 / power)
        return 1 / (1 + (low + t * (high - low)) ** (2 * power))
    edges = np.array([0, 1], np.float32)
    along = start + np.append(t, edges) * (end - start)  # a stretch of a curve, scaled to run from 1 to 0
    cosine = np.cos(along * np.pi / 2)
    curve = np.where(abs(cosine) > 1e-6, cosine, 0) ** (2 * power) if name == "cosine" else -np.tanh(along / power / 2)
    return np.clip((curve[:-2] - curve[-1]) / (curve[-2] - curve[-1]), 1e-9, 1)


def gammas_of(num_steps: int, schedule: str) -> Any:
    """Gamma where each step begins, and where the last one ends."""
    return gamma_of((1 - np.arange(num_steps + 1) / num_steps).astype(np.float32), schedule)


def guided_steps(gammas: Any, interval: Any) -> Any:
    """Whether each step begins at a noise level sigma that guidance is for, which is all of them without interval."""
    low, high = interval or (-1, np.inf)
    sigmas = np.sqrt(1 - gammas[:-1]) / np.sqrt(gammas[:-1])
    return (low < sigmas) & (sigmas <= high)


def draw(network: Any, config: Any, x: Any, condition: Any, nothing: Any, num_steps: int, guidance: float = 0) -> Any:
    """Samples in [-1, 1] out of noise x. The condition, and what says nothing, are inputs of the network by name."""
    gammas = gammas_of(num_steps, config["schedule"])
    half_log_snr = np.log(gammas[:-1] / (1.0 - gammas[:-1].astype(float))) / 2
    is_guided = guided_steps(gammas, config["guidance_interval"])
    latents = latents_without = np.zeros((len(x), *config["latents"]), np.float32)
    x_0, scale = x, np.float32(config["input_scale"])
    for step, (gamma, gamma_next) in enumerate(pairwise(gammas)):
        signal, noise, x_0_before = np.sqrt(gamma), np.sqrt(1 - gamma), x_0
        deviation = x.std(axis=tuple(range(1, x.ndim)), keepdims=True) if config["normalise_input"] else 1
        inputs = {"x": x / deviation, "gamma": np.full(len(x), gamma), "latents_prev": latents}
        prediction, latents = network.run(None, inputs | condition)
        if guidance and is_guided[step]:  # away from what it predicts without the condition
            if config["guidance_latents"] == "own":
                inputs["latents_prev"] = latents_without
            without, latents_without = network.run(None, inputs | nothing)
            prediction += np.float32(guidance) * (prediction - without)
        if config["prediction"] == "eps":
            x_0 = (x - noise * prediction) / signal
        else:
            x_0 = signal * x - noise * prediction if config["prediction"] == "v" else prediction
        x_0 = better = np.clip(x_0, -scale, scale)
        if config["sampler"] == "dpmpp-2m" and 0 < step < num_steps - 1:  # goes on as it went from the step before
            before, now, then = half_log_snr[step - 1 : step + 2]
            share = (then - now) / (now - before) / 2 if before < now < then else 0
            better = x_0 + np.float32(share) * (x_0 - x_0_before)
        eps = (x - signal * better) / noise
        x = np.sqrt(gamma_next) * better + np.sqrt(1 - gamma_next) * eps
    return x_0 / scale


def save(samples: Any, path: Path, values: Any) -> None:
    """Writes samples in [-1, 1]: .png has images or clips one below the other, .npy the data's own numbers."""
    if path.suffix == ".npy":
        data = (np.clip(samples, -1, 1) + 1) / 2 * (values["high"] - values["low"]) + values["low"]
        return np.save(path, (data if "float" in values["dtype"] else data.round()).astype(values["dtype"]))
    from PIL import Image

    frames = np.moveaxis((np.clip(samples, -1, 1) * 127.5 + 127.5).round().astype(np.uint8), 1, -1)
    rows = frames[:, None] if frames.ndim == 4 else frames  # b f h w c
    sheet = rows.swapaxes(1, 2).reshape(len(rows) * rows.shape[2], -1, rows.shape[-1])
    return Image.fromarray(sheet[..., 0] if sheet.shape[-1] == 1 else sheet).save(path)


def main() -> None:
    """Draws and writes samples, one a class."""
    parser = argparse.ArgumentParser(description="Draws with an exported RIN.")
    parser.add_argument("--model", type=Path, default=Path(__file__).with_name("model.onnx"))
    parser.add_argument("--classes", nargs="*", default=[], help="by name or number, taken in turns")
    parser.add_argument("--prompt", default="", help="a caption, for models that have learned from captions")
    parser.add_argument("--context", help=".npy in [-1, 1], one or one a sample: frames to go on from, a picture")
    parser.add_argument("--num", type=int, help="samples")
    parser.add_argument("--steps", type=int, help="of sampling; the model's own if absent")
    parser.add_argument("--guidance", type=float, help="0 is none; the model's own if absent, and a class is given")
    parser.add_argument("--seed", type=int, default=0, help="of numpy's noise")
    parser.add_argument("--noise", help=".npy of noise to start from instead (b ...)")
    parser.add_argument("--out", type=Path, default=Path("samples.png"), help=".png (images, clips) or .npy")
    chosen = parser.parse_args()
    config = json.loads(chosen.model.with_suffix(".json").read_text("utf-8"))
    num, steps = chosen.num or len(chosen.classes) or 1, chosen.steps or config["num_steps"]
    x = np.random.default_rng(chosen.seed).standard_normal((num, *config["shape"]), np.float32)
    x = np.load(chosen.noise).astype(np.float32) if chosen.noise else x
    condition, nothing = dict[str, Any](), dict[str, Any]()
    names, length = config["class_names"], config["caption_length"]
    numbers = {str(n): n for n in range(config["num_classes"])} | {name: n for n, name in enumerate(names)}
    if wrong := [name for name in chosen.classes if name not in numbers]:
        parser.error(f"there is no class {wrong[0]}; there are: {', '.join(names or numbers) or 'none'}")
    if numbers:
        condition["labels"] = np.resize([numbers[name] for name in chosen.classes] or [-1], len(x)).astype(np.int64)
        nothing["labels"] = np.full(len(x), -1, np.int64)
    if len(text := chosen.prompt.encode()) > length:
        parser.error(f"the prompt has {len(text)} bytes, and this model reads {length}")
    if length:
        condition["texts"] = np.tile(np.frombuffer(text.ljust(length, b"\0"), np.uint8), (len(x), 1))
        nothing["texts"] = np.zeros_like(condition["texts"])
    guidance = chosen.guidance
    if guidance is None:  # the model's own, of what is asked for by class or caption
        guidance = config["guidance"] if chosen.classes or text else 0.0
    if nothing and not config["label_drop_rate"] and (guidance or not (chosen.classes or text)):
        parser.error("this model was always given a class or a caption in training: give one, and leave out guidance")
    interval = config["guidance_interval"]
    if guidance and not guided_steps(gammas_of(steps, config["schedule"]), interval).any():
        levels = f"sigma {interval[0]:g} to {interval[1]:g}"
        if chosen.guidance:
            parser.error(f"guidance is for {levels}, where none of {steps} steps begins")
        print(
            f"not guided: the model's own guidance is at {levels}; none of {steps} steps begins there", file=sys.stderr
        )
    if bool(chosen.context) != bool(config["context"]):
        parser.error(f"what this model is given to go on from: {config['context'] or 'nothing'}; --context has it")
    if config["context"]:
        context = np.broadcast_to(np.load(chosen.context), (len(x), *config["context"])) * config["input_scale"]
        condition["context"] = nothing["context"] = context.astype(np.float32)
    if len(config["shape"]) < 3 and chosen.out.suffix != ".npy":
        parser.error("this model draws no pictures: give --out samples.npy")
    samples = draw(onnxruntime.InferenceSession(chosen.model), config, x, condition, nothing, steps, guidance)
    save(samples, chosen.out, config["values"])


if __name__ == "__main__":
    main()
