"""Networks for other programs: exported, and as diffusers opens them."""

from tests.mutants.mutant import Mutant

DRAWN = "tests/unit/interop/test_export.py::test_onnxruntime_and_the_sampler_in_numpy_draw_what_we_draw"
SAMPLE, PIPELINE = "interop/exporting/sample.py", "interop/diffusers/pipeline.py"

MUTANTS = [
    Mutant(
        "numpy-forgets-the-latents",
        SAMPLE,
        "prediction, latents = network.run(None, inputs | condition)",
        "prediction, _ = network.run(None, inputs | condition)",
        "the latents of a step are those that the next one starts from",
        (DRAWN,),
    ),
    Mutant(
        "numpy-guides-towards-no-class",
        SAMPLE,
        "prediction += np.float32(guidance) * (prediction",
        "prediction -= np.float32(guidance) * (prediction",
        "guidance leads away from what is predicted without a class",
        (DRAWN,),
    ),
    Mutant(
        "numpy-goes-on-at-the-same-noise",
        SAMPLE,
        "x = np.sqrt(gamma_next) * better + np.sqrt(1 - gamma_next) * eps",
        "x = np.sqrt(gamma) * better + np.sqrt(1 - gamma) * eps",
        "a step ends at the next noise level",
        (DRAWN,),
    ),
    Mutant(
        "diffusers-scale-taken-for-guidance",
        PIPELINE,
        "return float(scale) - 1",
        "return float(scale)",
        "guidance_scale 1 of diffusers is no guidance",
        ("tests/unit/interop/test_diffusers.py",),
    ),
]
