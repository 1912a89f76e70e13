"""`rin app`, asked over HTTP as a browser asks it, by several people at once."""

import io
import signal
import socket
import time
import urllib.error
import urllib.request

import pytest
from PIL import Image

import rin as library
from tests.end_to_end.browsing import Person, RefusedError
from tests.end_to_end.commands import assert_one_line, ended, rin
from tests.end_to_end.pages import listens, served, short_run, shown, until


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """See `short_run`."""
    return short_run(tmp_path_factory.mktemp("runs") / "digits")


@pytest.fixture(scope="module")
def port(run):
    """Of its page."""
    with served(run) as port:
        yield port


@pytest.fixture
def person(port):
    """Makes someone who has the page open."""
    return lambda: Person(port)


DEFAULTS = {
    "classes": [], "number": 2, "prompt": "", "condition": None, "seed": 0, "sampler": "ddim", "steps": 4,
    "guidance": 0, "latents": 6, "average": 0.999,
}  # fmt: skip


def draw(who, **others):
    """Presses Draw."""
    who.press("begin")
    return who.ask("draw", *(DEFAULTS | others).values())


def explain(who, of=0, rows=3, **others):
    """Presses Show."""
    given = {name: value for name, value in DEFAULTS.items() if name not in ("classes", "number")}
    return who.get("routing", of, rows, *(given | others).values())


def pixels(path):
    return Image.open(path).convert("RGB").tobytes()


def image(file):
    """A picture that a page shows."""
    with urllib.request.urlopen(file["url"]) as answer:
        return Image.open(io.BytesIO(answer.read()))


def seen(file):
    """Its pixels."""
    return image(file).convert("RGB").tobytes()


def drawn_by(trained, path, labels, **options):
    """What the library draws."""
    library.save(trained.sample(labels, **options), path)
    return pixels(path)


def test_it_draws_what_the_library_draws_and_shows_the_way(person, run, tmp_path):
    job = draw(person(), classes=[1, 3], seed=5, guidance=0.5, steps=40, latents=5, average=0.5)
    picture, told, written = job.result()
    trained, options = library.load(run, average_decay=0.5), {"guidance": 0.5, "num_steps": 40, "num_latents": 5}
    right = drawn_by(trained, tmp_path / "right.png", [1, 3], seed=5, **options)
    assert seen(picture) == right
    assert told == "2 pictures, 40 steps"
    assert [file["orig_name"] for file in written] == ["samples.png", "denoising.gif"]
    assert seen(written[0]) == right
    assert image(written[1]).n_frames > 1
    way = job.outputs
    assert len(way) > 2
    assert way[0][1].startswith("step ")
    assert seen(way[0][0]) != right


def test_people_do_not_mix(person, run, tmp_path):
    trained, jobs = library.load(run), {}
    for seed in range(6):
        jobs[seed] = draw(person(), classes=[seed], number=1, seed=seed, steps=20)
    for seed, job in jobs.items():
        right = drawn_by(trained, tmp_path / f"{seed}.png", [seed], seed=seed, num_steps=20)
        picture, _, written = job.result()
        assert seen(picture) == right
        assert seen(written[0]) == right


def test_stop_stops_the_own_drawing_alone(person):
    one, other, third = person(), person(), person()
    long = draw(one, number=1, steps=1000)
    until(lambda: long.outputs)
    waiting = draw(other, number=1)
    third.press("stop")
    other.press("stop")  # its own waits in the queue
    steps = len(long.outputs)
    until(lambda: len(long.outputs) > steps)
    assert not long.done()
    one.press("stop")
    assert long.result(timeout=30)[1].startswith("Stopped after step ")
    assert waiting.result(timeout=30)[1] == "Stopped before its first step."
    assert draw(other, number=1).result()[1] == "1 picture, 4 steps"


def test_who_has_left_keeps_nobody_waiting(person):
    long, began = {"number": 16, "sampler": "heun", "steps": 500}, time.monotonic()
    draw(person(), **long).result()
    whole = time.monotonic() - began
    person().leave_in_the_middle("draw", *(DEFAULTS | long).values())
    began = time.monotonic()
    assert draw(person()).result()[1] == "2 pictures, 4 steps"
    assert time.monotonic() - began < whole / 3


def test_who_waits_is_told_the_place_in_the_queue(person):
    one, other, third = person(), person(), person()
    long = draw(one, number=1, steps=1000)
    until(lambda: long.outputs)
    waiting = draw(other)
    assert third.place_in_queue("draw", *DEFAULTS.values()) == (1, 2)
    one.press("stop")
    assert waiting.result()[1] == "2 pictures, 4 steps"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"seed": -3}, "seed -3"),
        ({"seed": 2**40}, "seed"),
        ({"number": 17}, "16"),
        ({"classes": [99]}, "not in the list"),
        ({"sampler": "euler"}, "not in the list"),
        ({"latents": 2}, "less than minimum"),
        ({"steps": 0}, "less than minimum"),
        ({"average": 0.1}, "not in the list"),
        ({"condition": {"path": "/etc/hostname", "meta": {"_type": "gradio.FileData"}}}, "."),
    ],
)
def test_a_mistake_is_a_message_and_the_page_goes_on(person, wrong, words):
    who = person()
    with pytest.raises(RefusedError, match=words):
        draw(who, **wrong).result()
    assert draw(who).result()[1] == "2 pictures, 4 steps"


def test_what_latents_read_is_gone_through(person):
    who = person()
    _, slider, told, last, sheet = explain(who, of=2, steps=6)
    assert (slider["maximum"], slider["value"]) == (6, 6)
    assert told == "a step that begins at t = 0.167 (1 is noise)"
    assert image(sheet).width > image(last).width
    told, first = who.get("moment", 1)
    assert told == "a step that begins at t = 1 (1 is noise)"
    assert seen(first) != seen(last)
    assert seen(who.get("moment", 6)[1]) == seen(last)
    told, nothing = person().get("moment", 1)  # who has asked for nothing sees nothing
    assert (told, nothing) == ("", None)


def test_the_run_is_told_of(person, run):
    who = person()
    table, curves, no_log, _, words, picture = who.get("run")
    rows = dict(table["data"])
    assert rows["parameters"] == f"{sum(weight.numel() for weight in library.load(run).model.parameters()):,}"
    assert (rows["data"], rows["classes"], rows["latents"]) == ("digits", "10", "3 to 6 x 32")
    assert (rows["state"], rows["step"]) == ("finished", "4 of 4")
    assert curves["visible"]
    assert not no_log["visible"]
    assert len(curves["value"]["data"]) == 4 + 2
    assert words == "step 4"
    assert seen(picture["value"]) == pixels(run / "samples/step-000000004.png")
    told, earlier = who.get("samples", 0)
    assert told == "step 2"
    assert seen(earlier) == pixels(run / "samples/step-000000002.png")


def test_nothing_is_loaded_from_elsewhere_and_no_file_is_given(port, run):
    address = f"http://127.0.0.1:{port}/"
    with urllib.request.urlopen(address) as answer:
        assert answer.headers["content-security-policy"].startswith("default-src 'self' ")
    for path in (run / "config.json", "/etc/passwd"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{address}gradio_api/file={path}")
        with refused.value as answer:
            assert answer.code in (403, 404)


def test_it_is_reached_from_this_machine_alone(port):
    addresses = {address[4][0] for address in socket.getaddrinfo(socket.gethostname(), port, socket.AF_INET)}
    others = [address for address in (*addresses, "127.0.0.2") if address != "127.0.0.1"]
    assert others
    assert not any(listens(port, address) for address in others)


def test_it_is_reached_from_others_when_that_is_asked_for_and_warned_of():
    process, port = shown("digits", "--host", "0.0.0.0")
    assert listens(port, "127.0.0.2")
    until(lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/").status == 200)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    end = ended(process, timeout=60)
    assert end.returncode == 0
    assert [line for line in end.stderr.splitlines() if line] == [
        "--host 0.0.0.0: whoever reaches this machine can draw with this model; there is no password"
    ]
    assert "Ctrl-C" in end.stdout


def test_what_cannot_be_listened_at_is_told(port):
    assert_one_line(rin("app", "digits", "--port", port), "cannot listen at 127.0.0.1", "--port")
    assert_one_line(rin("app", "digits", "--port", "99999"), "take 1 to 65535")
    assert_one_line(rin("app", "digits", "--host", "no.such.host.invalid"), "cannot listen at no.such.host.invalid")
    assert_one_line(rin("app", "nowhere"), "there is no folder nowhere")
