"""Arrays, what their numbers mean, and weights that are taken over."""

from tests.mutants.mutant import Mutant, conditions, nn

ARRAYS, INIT_FROM = "tests/unit/data/test_arrays.py::", "tests/unit/test_init_from.py::"
ENCODERS = "tests/unit/test_text_encoders.py::"

MUTANTS = [
    Mutant(
        "holes-by-steps-of-a-stream",
        "data/feeding/stream.py",
        "degradation(pictures, Chance(seed, step, places))",
        "degradation(pictures, Chance(seed, step - first_step, places))",
        "a hole is a function of (seed, step, place), also of a run that was stopped",
        (conditions("test_a_resumed_run_ends_as_the_uninterrupted_one"),),
    ),
    Mutant(
        "classes-of-other-examples",
        "data/files/arrays.py",
        "return torch.from_numpy(taken), self.labels[index]",
        "return torch.from_numpy(taken), self.labels[rows]",
        "an example keeps its class when some are held out",
        (f"{ARRAYS}test_an_example_keeps_its_class_when_some_are_held_out",),
        quick=True,
    ),
    Mutant(
        "whole-numbers-cut-off",
        "core/values.py",
        "else x.round().astype(dtype)",
        "else x.astype(dtype)",
        "samples are rounded to the nearest level",
        (f"{ARRAYS}test_other_numbers_are_seen_in_their_range_and_given_back_in_their_type",),
    ),
    Mutant(
        "a-set-is-its-own-neighbour",
        "evaluation/sets.py",
        ".fill_diagonal_(torch.inf)",
        "",
        "the nearest set is another one",
        ("tests/unit/evaluation/test_sets.py::test_quality_of_sets_on_a_line",),
    ),
    Mutant(
        "classes-by-their-numbers",
        "init_from.py",
        "fitted[:, place] = before[:, places[name]]",
        "fitted[:, place] = before[:, place]",
        "a class that is taken over is known by its name",
        (f"{INIT_FROM}test_classes_keep_their_embeddings_by_their_names",),
        quick=True,
    ),
    Mutant(
        "positions-by-rows-alone",
        "init_from.py",
        "before.unflatten(0, (sum(slots), *grid)).movedim(3, 1)",
        "before.unflatten(0, (sum(slots), *reversed(grid))).movedim(3, 1)",
        "positions are interpolated over rows and columns as they lie",
        (f"{INIT_FROM}test_positions_of_a_grid_that_is_not_square_keep_their_places",),
    ),
    Mutant(
        "attention-in-bfloat16-where-it-is-trained",
        "nn/attention.py",
        "if self.training and self.float32_on_cpu",
        "if False and self.float32_on_cpu",
        "a CPU trains attention in float32",
        (nn("test_under_a_cpus_autocast_attention_and_mixing_compute_in_float32"),),
    ),
    Mutant(
        "pairs-by-their-places",
        "data/files/pairs.py",
        "rows = {row: theirs_by_key[key] for key, row in places.items()}",
        "rows = dict(zip(places.values(), theirs_by_key.values()))",
        "a picture is drawn from the one of its own name",
        ("tests/unit/data/test_pairs.py::test_a_picture_without_another_is_named_and_others_left_over_are_told",),
    ),
    Mutant(
        "embeddings-of-other-captions",
        "data/prepared/embedding.py",
        "np.array([rows[name] for name in names], np.int64)",
        "np.arange(len(names))",
        "a label stands for the embedding of its own caption",
        (f"{ENCODERS}test_embeddings_are_the_hidden_states_of_each_caption",),
    ),
    Mutant(
        "padding-that-counts",
        "core/texts.py",
        "torch.from_numpy(self.mask[rows]).to(labels.device) & known[:, None]",
        "known[:, None].expand(-1, self.mask.shape[1])",
        "tokens behind a text's end say nothing",
        (f"{ENCODERS}test_embeddings_are_the_hidden_states_of_each_caption",),
    ),
    Mutant(
        "captions-lost-on-resuming",
        "run.py",
        "before is None or before.experiment.model.kind.is_labelled",
        "before is None or before.experiment.model.num_classes",
        "a run that learns from captions goes on with them",
        ("tests/unit/test_captions.py::test_a_run_that_was_stopped_goes_on_with_its_captions",),
    ),
]
