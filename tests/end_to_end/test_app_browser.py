"""The page of `rin app` in a real browser, as a person sees it and reaches it."""

import re
import shutil

import pytest
from PIL import Image, ImageSequence

import rin as library
from rin.app.opened import shares_of_operations
from rin.core.pixels import to_pictures
from rin.sampling.pictures import grid, to_image
from tests.end_to_end.pages import served, short_run

playwright = pytest.importorskip("playwright.sync_api", reason="a real browser needs playwright: make setup")
expect = playwright.expect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="a real browser: apt-get install chromium")

PATIENCE = 60_000
"""Milliseconds, of a busy machine."""

PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """See `short_run`."""
    return short_run(tmp_path_factory.mktemp("runs") / "digits")


@pytest.fixture(scope="module")
def address(run):
    """Of its page."""
    with served(run) as port:
        yield f"http://127.0.0.1:{port}/"


@pytest.fixture(scope="module")
def browser():
    expect.set_options(timeout=PATIENCE)
    with playwright.sync_playwright() as driver:
        try:
            opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=PATIENCE)
        except playwright.Error as error:
            pytest.skip(f"{CHROMIUM} does not start: {error.message.splitlines()[0]}")
        yield opened
        opened.close()


@pytest.fixture
def window(browser, address, request):
    """A window that has the page open; whatever the browser complains of while it is open fails the test."""
    context = browser.new_context(viewport=getattr(request, "param", {"width": 1280, "height": 900}))
    page, trouble = context.new_page(), []
    page.set_default_timeout(PATIENCE)
    page.on("console", lambda message: message.type == "error" and trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("request", lambda asked: not is_own(asked.url, address) and trouble.append(f"elsewhere: {asked.url}"))
    page.on("requestfailed", lambda asked: not is_called_off(asked) and trouble.append(f"{asked.url}: {asked.failure}"))
    page.on("response", lambda answer: answer.status >= 400 and trouble.append(f"{answer.url}: {answer.status}"))
    page.goto(address, wait_until="load")
    expect(page.get_by_role("button", name="Draw")).to_be_visible()
    yield page
    told = list(trouble)
    context.close()
    assert told == []


def is_own(url, address):
    return url.startswith((address, "data:", "blob:"))


def is_called_off(asked):
    """Whether the page itself has: a stream of events when all have come, an estimate when there is a newer one."""
    return asked.failure == "net::ERR_ABORTED"


def draw(window, told="pictures, ", **fields):
    """Fills fields in, and draws."""
    for name, value in fields.items():
        window.get_by_label(name, exact=True).fill(str(value))
    window.get_by_role("button", name="Draw").click()
    expect(window.get_by_text(told)).to_be_visible()


def downloaded(window, name, folder):
    """The pixels of each frame of a picture of the list of files."""
    with window.expect_download() as coming:
        window.get_by_role("row", name=name).get_by_role("link").click()
    assert coming.value.suggested_filename == name
    coming.value.save_as(folder / name)
    with Image.open(folder / name) as picture:
        return [frame.convert("RGB").tobytes() for frame in ImageSequence.Iterator(picture)]


def test_what_is_asked_for_is_drawn_shown_and_downloaded(window, run, tmp_path):
    expect(window.get_by_role("heading", name=str(run))).to_be_visible()
    window.get_by_label("Classes (all if none)").click()
    window.get_by_role("option", name="3", exact=True).click()
    trained = library.load(run)
    for seed in (0, 7):
        draw(window, "2 pictures, 9 steps", **{"Seed": seed, "Steps": 9, "number input for Number": 2})
        samples = trained.sample([3, 3], seed=seed, num_steps=9, guidance=1.0)
        right = to_image(grid(to_pictures(samples)))
        assert downloaded(window, "samples.png", tmp_path) == [right.convert("RGB").tobytes()]
    assert len(downloaded(window, "denoising.gif", tmp_path)) > 1
    picture = window.get_by_alt_text("Samples")
    expect(picture).to_have_js_property("naturalWidth", right.width)
    expect(picture).to_have_css("image-rendering", "pixelated")
    draw(window, "16 pictures, 9 steps", **{"number input for Number": 16})
    assert picture.bounding_box()["height"] >= 400


def test_estimates_are_shown_on_the_way_and_stop_ends_it(window):
    draw(window, re.compile(r"^step \d+ of 1000: the clean estimate"), Steps=1000)
    picture = window.get_by_alt_text("Samples")
    early = picture.get_attribute("src")
    expect(picture).not_to_have_attribute("src", early)
    expect(picture).not_to_have_js_property("naturalWidth", 0)
    expect(window.get_by_text(re.compile(r"^step \d+ of 1000"))).to_be_visible()
    window.get_by_role("button", name="Stop").click()
    expect(window.get_by_text(re.compile(r"^Stopped after step \d+ of 1000"))).to_be_visible()
    draw(window, "10 pictures, 2 steps", Steps=2)


def test_a_mistake_is_a_message_and_the_page_goes_on(window):
    draw(window, "10 pictures, 4 steps")
    for wrong, words in (({"Seed": -3}, "seed -3"), ({"Seed": 0, "Steps": 0}, "less than minimum value 1")):
        for name, value in wrong.items():
            window.get_by_label(name, exact=True).fill(str(value))
        window.get_by_role("button", name="Draw").click()
        message = window.get_by_test_id("toast-body")
        expect(message).to_contain_text(words)
        window.get_by_alt_text("Samples").click(trial=True)  # nothing lies over it
        message.get_by_test_id("toast-close").click()
        expect(message).to_have_count(0)
    draw(window, "10 pictures, 3 steps", Steps=3)


def test_what_latents_cost_and_read_is_told(window, run):
    shares = shares_of_operations(library.load(run).config)
    slider = window.get_by_label("range slider for Latents")
    for key, count in (("Home", 3), ("ArrowRight", 4)):
        slider.press(key)
        expect(window.get_by_text(f"{shares[count]:.0%} of the operations")).to_be_visible()
    window.get_by_role("tab", name="Routing").click()
    window.get_by_role("button", name="Show").click()
    expect(window.get_by_text("a step that begins at t = 0.25")).to_be_visible()
    for label in ("One step", "Several steps"):
        expect(window.get_by_alt_text(label)).to_be_visible()
    last = window.get_by_alt_text("One step").get_attribute("src")
    window.get_by_label("range slider for Step, from noise").press("Home")
    expect(window.get_by_text("a step that begins at t = 1 ")).to_be_visible()
    expect(window.get_by_alt_text("One step")).not_to_have_attribute("src", last)


def test_the_run_is_told_of(window):
    window.get_by_role("tab", name="Run").click()
    expect(window.get_by_role("gridcell", name="4 of 4")).to_be_visible()
    expect(window.locator("canvas:visible, svg.marks:visible").first).to_be_visible()
    expect(window.get_by_text("step 4", exact=True)).to_be_visible()
    window.get_by_label("range slider for Samples on the way").press("Home")
    expect(window.get_by_text("step 2", exact=True)).to_be_visible()
    expect(window.get_by_alt_text("Samples on the way")).to_be_visible()


REACHABLE = "a, button, input, textarea, select, [tabindex]:not([tabindex='-1'])"
"""What the keyboard is to reach."""


MISSED = f"""() => [...document.querySelectorAll("{REACHABLE}")].filter(one => !window.reached.has(one))
    .filter(one => one.checkVisibility({{ visibilityProperty: true }}))
    .filter(one => !one.closest("[aria-hidden=true], .selection-button")).map(one => one.outerHTML)"""
"""What is seen and has not had the focus. gradio measures the tabs by copies that nobody sees, and a cell of a table
that has the focus has buttons to mark its row or column, which are for the mouse."""


def go_through(window, visit=lambda: None):
    """Presses Tab until every control that is there has had the focus; `visit` does something at each."""
    window.evaluate("window.reached = new Set()")
    window.evaluate("document.addEventListener('focusin', event => window.reached.add(event.target))")
    for _ in range(80):
        window.keyboard.press("Tab")
        visit()
        if not window.evaluate(MISSED):
            break
    assert window.evaluate(MISSED) == []
    assert window.evaluate("window.reached.size") > 5


def test_the_keyboard_alone_reaches_every_control_and_draws(window):
    steps, button = window.get_by_label("Steps", exact=True), window.get_by_role("button", name="Draw")

    def visit():
        if steps.evaluate("one => one == document.activeElement"):
            window.keyboard.press("ControlOrMeta+a")
            window.keyboard.type("5")
        if button.evaluate("one => one == document.activeElement"):
            window.keyboard.press("Enter")
            expect(window.get_by_text("10 pictures, 5 steps")).to_be_visible()

    go_through(window, visit)
    expect(window.get_by_role("listbox")).to_have_count(0)  # which open when they have the focus
    for tab, there in (("Routing", "Show"), ("Run", "Read again")):
        window.get_by_role("tab", name=tab).press("Enter")
        expect(window.get_by_role("button", name=there, exact=True)).to_be_visible()
        go_through(window)


def told_to_screen_readers(window):
    """Role and name of whatever can have the focus."""
    nodes = window.context.new_cdp_session(window).send("Accessibility.getFullAXTree")["nodes"]
    there = [node for node in nodes if not node["ignored"]]
    able = [node for node in there if any(each["name"] == "focusable" for each in node.get("properties", ()))]
    return [(node["role"]["value"], node["name"]["value"].strip()) for node in able]


def on_each_tab(window):
    """Goes through the tabs, with something on each of them."""
    draw(window, "10 pictures, 2 steps", Steps=2)
    window.get_by_role("tab", name="Routing").click()
    window.get_by_role("button", name="Show").click()
    expect(window.get_by_alt_text("Several steps")).to_be_visible()
    for tab, there in (("Sample", "Draw"), ("Routing", "Show"), ("Run", "Read again")):
        window.get_by_role("tab", name=tab).click()
        expect(window.get_by_role("button", name=there, exact=True)).to_be_visible()
        yield


def test_every_control_has_a_name(window):
    for _ in on_each_tab(window):
        controls = [(role, name) for role, name in told_to_screen_readers(window) if role != "generic"]
        assert len(controls) > 10
        assert [role for role, name in controls if not name] == []


WIDER = """() => [...document.body.querySelectorAll("*")].filter(one => one.checkVisibility()).filter(one => {
    const { left, right } = one.getBoundingClientRect()
    return left < -0.5 || right > innerWidth + 0.5
}).map(one => one.outerHTML)"""
"""What is seen in part only."""


@pytest.mark.parametrize("window", [PHONE], indirect=True, ids=["phone"])
def test_nothing_is_wider_than_a_phone(window):
    for _ in on_each_tab(window):
        assert window.evaluate(WIDER) == []
        assert window.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
