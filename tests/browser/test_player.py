"""The player in a browser, opened from disk as a student opens it: every control, every number, nobody left out.

`make test-browser` runs these; they need Playwright and a Chromium.
"""

import itertools
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import expect, sync_playwright

import microgrid as mg
from viz.labels import number_text
from viz.play import play

HOSTILE = '</script><script>window.hacked = 1</script><img src=x onerror="window.hacked = 2">'

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="session")
def browser():
    names = ("chromium", "chromium-browser", "google-chrome")
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.fail(
            "no browser was found: install Chromium, as by apt-get install chromium, or name one in the environment "
            "variable CHROMIUM"
        )
    as_root = hasattr(os, "geteuid") and os.geteuid() == 0
    settings = ["--disable-gpu", *(["--no-sandbox"] if as_root else [])]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=settings)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def page_with(browser):
    """The page for such settings, kept from test to test: one of its own would take each of them a second."""
    pages, complaints = {}, []

    def find(**settings):
        key = repr(settings)
        if key not in pages:
            page = pages[key] = browser.new_context(**settings).new_page()
            page.context.set_default_timeout(4000)
            page.on("console", lambda message: complaints.append(message.text))
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("request", lambda request: complaints.append(request.url))
        return pages[key]

    find.complaints = complaints
    yield find
    for page in pages.values():
        page.context.close()


@pytest.fixture
def visit(page_with):
    """Open a file; afterwards, nothing may have been said on the console or asked of any address but the file's."""
    opened, complaints = [], page_with.complaints

    def open_page(path, **settings):
        page = page_with(**{"viewport": {"width": 1280, "height": 800}, "reduced_motion": "reduce", **settings})
        page.mouse.move(0, 0)
        opened.extend([(page, path.as_uri()), (page, "about:blank")])
        page.goto(path.as_uri())
        return page

    complaints.clear()
    yield open_page
    for page in {page for page, _ in opened}:
        page.goto("about:blank")  # it may complain until it is left, and leaves nothing to the next test
    assert set(complaints) - {address for _, address in opened} == set()


def scalar_rnn(steps=4):
    u, w = mg.parameter(0.8, name="u"), mg.parameter(0.5, name="w")
    x, target = mg.input(1.0, name="x"), mg.input(0.0, name="target")
    h = mg.state(0.0, name="h")
    h.next = mg.tanh(u * h + w * x)
    dag = mg.Graph(loss=mg.last(mg.square(h.next - target))).unroll(
        x=np.linspace(1, -0.5, steps).tolist(), target=[0.2] * steps
    )
    dag.backward()
    return dag


def wait_for(page, event):
    expect(page.locator("html")).to_have_attribute("data-at", str(event))


def lstm(steps, units):
    rng = np.random.default_rng(0)

    def weight(name, *shape):
        return mg.parameter(rng.normal(size=shape) / 2, name=name)

    x = mg.input(np.zeros((1, 3)), name="x")
    h, c = (mg.state(np.zeros((1, units)), name=name) for name in "hc")
    z = (x @ weight("W", 3, 4 * units) + h @ weight("U", units, 4 * units) + weight("b", 4 * units)).named("z")
    i, f, o = (mg.sigmoid(z[:, k * units : (k + 1) * units]).named(name) for k, name in enumerate("ifo"))
    c.next = f * c + i * mg.tanh(z[:, 3 * units :]).named("g")
    h.next = o * mg.tanh(c.next)
    dag = mg.Graph(loss=mg.time_mean(mg.mean(mg.square(h.next)))).unroll(x=rng.normal(size=(steps, 1, 3)))
    dag.backward()
    return dag


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pages")


@pytest.fixture(scope="session")
def rnn(folder):
    dag = scalar_rnn()
    player = play(dag, folder / "rnn.html")
    return dag, player.story, folder / "rnn.html"


@pytest.fixture(scope="session")
def large(folder):
    player = play(lstm(9, 16), folder / "lstm.html")
    return player.story, folder / "lstm.html"


def at(page):
    return int(page.locator("html").get_attribute("data-at"))


def last(page):
    return int(page.locator("#slider").get_attribute("max"))


def go(page, event):
    page.locator("#slider").evaluate(
        "(slider, at) => { slider.value = at; slider.dispatchEvent(new Event('input')); }", event
    )


SNAPSHOT = """[...document.querySelectorAll("#panel, #shared, .box, .wire, .sum")].map(
  (e) => [e.getAttribute("class"), e.getAttribute("aria-label"), e.textContent].join("|")).join("\\n")"""
"""All that a step may change, as one text."""

BOXES = """Object.fromEntries([...document.querySelectorAll(".layer:not(.rolled) .box")].map((e) => [e.dataset.id, {
  classes: [...e.classList], value: e.dataset.value, gradient: e.dataset.gradient, text: e.textContent }]))"""
"""What each box says of itself."""


def snapshot(page):
    return page.evaluate(SNAPSHOT)


def boxes(page):
    return page.evaluate(BOXES)


PRESS_RIGHT = 'document.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }))'


def walk(page, what, press=PRESS_RIGHT):
    """Press the right arrow key until the end; an expression's value at every step, the present one included."""
    is_over = 'document.documentElement.dataset.at === document.getElementById("slider").max'
    return page.evaluate(
        f"() => {{ const all = [{what}]; while (!({is_over})) {{ {press}; all.push({what}); }} return all; }}"
    )


# --- every step, by every control -------------------------------------------------------------------


def test_keys_buttons_and_slider_reach_the_same_steps(visit, rnn):
    page = visit(rnn[2])
    count = last(page)
    seen = walk(page, SNAPSHOT)
    assert len(set(seen)) == count + 1
    page.click("#to-start")
    assert at(page) == 0
    assert walk(page, SNAPSHOT, "document.getElementById('forward').click()") == seen
    back = f"(document.getElementById('back').click(), {SNAPSHOT})"
    assert page.evaluate(f"() => Array({count}).fill(0).map(() => {back})") == seen[-2::-1]
    for event in [7, count, 0, count // 2, 3]:
        go(page, event)
        assert snapshot(page) == seen[event]
    page.keyboard.press("Home")
    for event in range(1, 6):
        page.keyboard.press("ArrowRight")
        assert at(page) == event
    page.click("#forward")
    page.click("#back")
    assert at(page) == 5
    page.click("#to-end")
    page.keyboard.press("ArrowRight")
    assert at(page) == count
    page.click("#to-start")
    page.keyboard.press("ArrowLeft")
    assert at(page) == 0
    page.keyboard.press("End")
    assert at(page) == count
    page.click("#to-backward-pass")
    assert page.locator("html").get_attribute("data-pass") == "backward"
    page.keyboard.press("ArrowLeft")
    assert page.locator("html").get_attribute("data-pass") == "forward"
    page.click("#to-forward-pass")
    assert at(page) == 1
    page.keyboard.press("Home")
    assert snapshot(page) == seen[0]


def test_it_plays_by_itself_until_the_end_and_stops_when_asked(visit, rnn):
    page = visit(rnn[2])
    page.select_option("#speed", "10")
    page.locator("body").press(" ")
    expect(page.locator("#play")).to_have_attribute("aria-label", "Pause")
    wait_for(page, 2)
    page.click("#play")
    stopped = at(page)
    page.wait_for_timeout(350)
    assert at(page) == stopped
    go(page, last(page) - 1)
    page.click("#play")
    wait_for(page, last(page))
    expect(page.locator("#play")).to_have_attribute("aria-label", "Play")


# --- the numbers on the page are the engine's -------------------------------------------------------


def test_values_appear_on_their_nodes_as_they_are_computed(visit, rnn):
    _, story, path = rnn
    page = visit(path)
    ids = {box.tensor: id for id, box in story.scene.boxes.items()}
    known = set(story.recording.given)
    result = 'document.querySelector("#panel .result")?.dataset.exact'
    steps = walk(page, f"[{BOXES}, {result}]")
    for node, (found, shown) in zip(story.recording.forward, steps[1:], strict=False):
        known.add(node)
        for other, id in ids.items():
            assert ("known" in found[id]["classes"]) == (other in known)
            assert number(found[id]["value"]) == (other.value if other in known else None)
        assert [id for id, box in found.items() if "active" in box["classes"]] == [ids[node]]
        sources = {id for id, box in found.items() if "source" in box["classes"]}
        assert sources == {ids[operand] for operand in node.operands if operand in ids}
        assert number_text(node.value) in found[ids[node]]["text"]
        assert number(shown) == node.value


def number(text):
    return None if text is None else float(text)


def test_gradients_grow_on_their_nodes_as_they_arrive(visit, rnn):
    dag, story, path = rnn
    page = visit(path)
    ids = {box.tensor: id for id, box in story.scene.boxes.items()}
    page.click("#to-backward-pass")
    totals = {story.recording.root: story.recording.seed}
    results = '[...document.querySelectorAll("#panel .card .result")].map((e) => Number(e.dataset.exact))'
    steps = walk(page, f"[{BOXES}, {results}]")
    assert len(steps) == len(story.recording.backward) + 2
    for (node, contributions), (found, shown) in zip(story.recording.backward, steps[1:], strict=False):
        totals |= {each.operand: each.total for each in contributions}
        assert {id: float(box["gradient"]) for id, box in found.items() if box["gradient"] is not None} == {
            ids[tensor]: total for tensor, total in totals.items() if tensor in ids
        }
        assert [id for id, box in found.items() if "active" in box["classes"]] == [ids[node]]
        assert shown == [each.added for each in contributions]
    found, _ = steps[-1]
    for id, box in found.items():
        assert number(box["gradient"]) == story.scene.boxes[id].tensor.grad
    assert number(found[ids[dag.graph["u"]]]["gradient"]) == dag.graph["u"].grad


def test_the_gradient_of_a_shared_weight_grows_by_one_term_per_timestep(visit, rnn):
    dag, _, path = rnn
    page = visit(path)
    row = """((row) => [[...row.querySelectorAll(".bar.arrived .amount")].map((e) => Number(e.dataset.exact)),
      Number(row.querySelector(".sum").dataset.exact)])(document.querySelector('.shared-row[data-node="u"]'))"""
    steps = walk(page, row)
    assert all(shown == pytest.approx(sum(terms)) for terms, shown in steps)
    assert [count for count, _ in itertools.groupby(len(terms) for terms, _ in steps)] == [0, 1, 2, 3, 4]
    assert steps[-1][1] == dag.graph["u"].grad
    assert page.locator('.shared-row[data-node="u"] .terms').text_content().count("(t = ") == 4


def test_numbers_are_written_as_in_the_pictures(visit, folder):
    values = [0.1, -0.25, 1e-5, -3.14159e-7, 1234567.0, 99999.5, 12345.678, 0.00012345, 1 / 3, 1e6, 5.0]
    path = folder / "numbers.html"
    play(mg.Graph(mg.stack([mg.tensor(v, name=f"v{i}") for i, v in enumerate(values)])), path)
    page = visit(path)
    texts = {box["value"]: box["text"] for box in boxes(page).values() if box["value"] is not None}
    for value in values:
        written = [text for exact, text in texts.items() if float(exact) == value]
        expected = number_text(value) if abs(value) >= 1e6 or value != int(value) else f"{value:.0f}"
        assert [text for text in written if text.endswith(expected)], (value, expected, written)


# --- names, tooltips, looks -------------------------------------------------------------------------


def test_hostile_names_are_shown_as_text(visit, folder):
    h = mg.state(0.0, name=HOSTILE)
    h.next = mg.tanh(h * mg.parameter(0.5, name="u<b>"))
    dag = mg.Graph(mg.last(h.next)).unroll(steps=2)
    dag.backward()
    play(dag, folder / "hostile.html", title=HOSTILE)
    page = visit(folder / "hostile.html")
    walk(page, "0")
    assert page.evaluate("window.hacked") is None
    assert page.locator("h1").text_content() == HOSTILE
    assert page.locator("img, iframe, #panel b, #shared b").count() == 0
    assert "</script><script>window.ha" in page.locator(".box .name").first.locator("xpath=../../..").text_content()


def test_a_tooltip_tells_name_operation_value_and_gradient_as_of_now(visit, rnn):
    _, story, path = rnn
    page = visit(path)
    copy = next(box for box in story.scene.boxes.values() if box.content.kind == "next" and box.timestep == 2)
    tip = page.locator("#tip")
    page.locator(f'[data-id="{copy.id}"]').hover()
    expect(tip).to_contain_text("h′₂ = tanh(u × h₂ + w × x₂)")
    expect(tip).to_contain_text("not computed yet")
    page.mouse.move(0, 0)
    expect(tip).to_be_hidden()
    page.keyboard.press("End")
    page.locator(f'[data-id="{copy.id}"]').focus()
    expect(tip).to_contain_text(f"value {number_text(copy.tensor.value)}")
    expect(tip).to_contain_text(f"gradient {number_text(copy.tensor.grad)}")
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()


def test_a_click_on_a_node_goes_to_its_step(visit, rnn):
    _, story, path = rnn
    page = visit(path)
    copy = next(box for box in story.scene.boxes.values() if box.content.kind == "next" and box.timestep == 1)
    page.locator(f'[data-id="{copy.id}"]').click()
    assert page.locator("#panel h2").text_content() == "h′₁"
    assert page.locator("html").get_attribute("data-pass") == "forward"
    page.keyboard.press("End")
    page.locator(f'[data-id="{copy.id}"]').click()
    assert page.locator("html").get_attribute("data-pass") == "backward"
    assert page.locator("#panel h2").text_content() == "h′₁"


def test_rolled_and_unrolled_morph_into_each_other(visit, rnn):
    page = visit(rnn[2], reduced_motion="no-preference")
    go(page, 8)
    before = snapshot(page)
    unrolled, rolled = page.locator(".layer:not(.rolled) .box").first, page.locator(".rolled .box").first
    expect(unrolled).to_be_visible()
    expect(rolled).to_be_hidden()
    page.click("#morph")
    expect(page.locator("#morph")).to_have_text("Unroll")
    expect(rolled).to_be_visible()
    expect(unrolled).to_be_hidden()
    expect(page.locator(".rolled .wire-delay-back")).to_have_count(1)
    page.wait_for_timeout(700)
    ids = page.evaluate(
        """() => { const place = (e) => {
               const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; };
             const rolled = Object.fromEntries([...document.querySelectorAll(".rolled .box")].map((e) =>
               [e.dataset.id, place(e.querySelector(".shape"))]));
             return [...document.querySelectorAll(".layer:not(.rolled) .box")].map((e) =>
               [rolled[e.dataset.id.replace(/t\\d+$/, "t0")], place(e.querySelector(".shape"))]); }"""
    )
    assert all(there == pytest.approx(here, abs=2) for there, here in ids)
    page.keyboard.press("ArrowRight")
    expect(page.locator(".rolled .box.active")).to_have_count(1)
    page.keyboard.press("ArrowLeft")
    page.click("#morph")
    expect(unrolled).to_be_visible()
    expect(rolled).to_be_hidden()
    assert snapshot(page) == before


def test_light_and_dark_follow_the_system_and_the_button(visit, rnn):
    page = visit(rnn[2], color_scheme="dark")

    def ground():
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    dark = ground()
    page.click("#theme")
    light = ground()
    assert light == "rgb(255, 255, 255)" != dark
    page.click("#theme")
    assert ground() == dark


def contrasts(page):
    """The contrast ratio of each text of the page outside the graph with what lies behind it."""
    return page.evaluate(
        """() => {
          const parts = (c) => c.match(/[\\d.]+/g).map(Number);
          const light = (c) => { const [r, g, b] = parts(c).map((v) => v / 255).map((v) =>
            v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
          const behind = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
            if (/^rgb\\(/.test(c)) return c; } return "rgb(255, 255, 255)"; };
          const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
          const found = [];
          for (let text; (text = walker.nextNode()); ) {
            const e = text.parentElement;
            if (!text.data.trim() || !e.checkVisibility()) continue;
            if (e.closest("svg, script, style, noscript, [aria-disabled=true]")) continue;
            const [a, b] = [light(getComputedStyle(e).color), light(behind(e))].sort((x, y) => y - x);
            found.push([(a + 0.05) / (b + 0.05), text.data]);
          }
          return found;
        }"""
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_from_what_lies_behind_them(visit, rnn, scheme):
    page = visit(rnn[2], color_scheme=scheme)
    for event in (0, 9, 45, last(page)):
        go(page, event)
        assert [(ratio, text) for ratio, text in contrasts(page) if ratio < 4.5] == []


# --- everybody --------------------------------------------------------------------------------------


def test_the_keyboard_alone_is_enough(visit, rnn):
    page = visit(rnn[2])
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    order = []
    for _ in range(60):
        page.keyboard.press("Tab")
        order.append(page.evaluate("(({ id, dataset }) => id || dataset.id || '')(document.activeElement)"))
    nodes = [id for id in order if id.startswith("n")]
    assert len(nodes) == page.locator(".layer:not(.rolled) .box").count()
    assert order.index("morph") < order.index(nodes[0]) < order.index("to-start") < order.index("slider")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "none" or outline == "solid"
    page.locator("#forward").focus()
    page.keyboard.press("Enter")
    assert at(page) == 1
    page.keyboard.press(" ")
    assert at(page) == 2
    page.locator("#slider").focus()
    page.keyboard.press("ArrowRight")
    assert at(page) == 3
    page.locator(f'.layer:not(.rolled) [data-id="{nodes[-1]}"]').focus()
    page.keyboard.press("Enter")
    assert at(page) > 3


def test_each_step_is_said_once_in_a_sentence(visit, rnn):
    page = visit(rnn[2])
    live = page.locator("#live")
    expect(live).to_have_attribute("aria-live", "polite")
    said = walk(page, "document.getElementById('live').textContent")[1:]
    assert all(text.endswith(".") and len(text) < 200 for text in said)
    assert len(set(said)) == len(said)
    assert "Forward, t = 2: h′₂ = tanh(u × h₂ + w × x₂) is 0.4143." in said
    assert any(text.startswith("Backward, t = 2: h′₂ has gradient ") for text in said)


def test_every_control_has_a_name_and_the_page_a_language_and_title(visit, rnn):
    page = visit(rnn[2])
    assert page.locator("html").get_attribute("lang") == "en"
    assert page.title() == "Backpropagation through time: 4 steps"
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, .box, canvas")].filter((e) =>
             e.checkVisibility() && !(e.getAttribute("aria-label") || e.textContent.trim() || e.labels?.length)
           ).map((e) => e.id)"""
    )
    assert unnamed == []
    assert "JavaScript" in Path(rnn[2]).read_text(encoding="utf-8").split("<noscript>")[1].split("</noscript>")[0]


@pytest.mark.parametrize("width", [320, 390])
def test_on_a_phone_nothing_is_wider_than_the_screen_and_buttons_can_be_hit(visit, rnn, large, width):
    for path in (rnn[2], large[1]):
        page = visit(path, **{**PHONE, "viewport": {"width": width, "height": 800}})
        for event in (0, 12, last(page) - 6, last(page)):
            go(page, event)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        small = page.evaluate(
            """() => [...document.querySelectorAll("button, select, #slider")].filter((e) => e.checkVisibility()).map(
                 (e) => [e.id, e.getBoundingClientRect()]
               ).filter(([, r]) => r.width < 40 || r.height < 40).map(([id]) => id)"""
        )
        assert small == []
        page.tap("#back")


def test_what_happens_now_stays_in_view_while_one_steps(visit, rnn):
    page = visit(rnn[2], **PHONE)
    inside = walk(
        page,
        """(() => { const v = document.getElementById("view").getBoundingClientRect();
             const b = document.querySelector(".box.active .shape")?.getBoundingClientRect();
             return !b || b.left >= v.left && b.right <= v.right && b.top >= v.top && b.bottom <= v.bottom; })()""",
    )
    assert all(inside)


def test_a_node_that_the_keyboard_reaches_comes_into_view(visit, large):
    page = visit(large[1], **PHONE)
    page.keyboard.press("ArrowRight")
    first, *_, final = page.locator(".layer:not(.rolled) .box").all()
    page.locator("#theme").focus()
    page.keyboard.press("Tab")
    for node, key in ((first, "ArrowRight"), (final, "Shift+Tab")):
        if node is final:
            page.locator("#to-start").focus()
            page.keyboard.press(key)
        expect(page.locator(":focus")).to_have_attribute("data-id", node.get_attribute("data-id"))
        box, view = node.locator(".shape").first.bounding_box(), page.locator("#view").bounding_box()
        assert view["x"] <= box["x"]
        assert box["x"] + box["width"] <= view["x"] + view["width"]
        assert view["y"] <= box["y"]
        assert box["y"] + box["height"] <= view["y"] + view["height"]


def test_zoom_and_pan_by_wheel_drag_and_buttons(visit, rnn):
    page = visit(rnn[2])
    world = page.locator(".world")

    def place():
        return world.get_attribute("transform")

    fitted = place()
    view = page.locator("#view").bounding_box()
    middle = (view["x"] + view["width"] / 2, view["y"] + view["height"] / 2)
    page.mouse.move(*middle)
    page.mouse.wheel(0, -300)
    expect(world).not_to_have_attribute("transform", fitted)
    zoomed = place()
    page.mouse.down()
    page.mouse.move(middle[0] + 80, middle[1] + 30)
    page.mouse.up()
    assert place() != zoomed
    for button in ("#zoom-in", "#zoom-out"):
        before = place()
        page.click(button)
        assert place() != before
    page.click("#fit")
    expect(world).to_have_attribute("transform", fitted)


def test_nothing_moves_by_itself_where_that_is_not_wanted(visit, rnn):
    page = visit(rnn[2])
    go(page, 10)
    page.click("#morph")
    expect(page.locator(".rolled .box").first).to_be_visible(timeout=100)
    assert page.evaluate("document.getAnimations().length") == 0


def test_without_gradients_the_page_plays_forward_and_says_what_to_call(visit, folder):
    h = mg.state(0.0, name="h")
    h.next = mg.tanh(h + mg.input(1.0, name="x"))
    play(mg.Graph(h.next).unroll(x=[1.0, 2.0]), folder / "forward.html")
    page = visit(folder / "forward.html")
    expect(page.locator("#panel")).to_contain_text("dag.backward()")
    expect(page.locator("#to-backward-pass")).to_be_hidden()
    page.keyboard.press("End")
    assert page.locator("html").get_attribute("data-pass") == "forward"


def test_a_notebook_frame_shows_it_without_any_right(visit, folder):
    """Inside a sandboxed frame, as `_repr_html_` writes it."""
    path = folder / "notebook.html"
    path.write_text(f"<!doctype html><title>notebook</title>{play(scalar_rnn())._repr_html_()}", encoding="utf-8")
    page = visit(path)
    frame = page.frame_locator("iframe")
    frame.locator("#to-end").click()
    expect(frame.locator("#panel h2")).to_have_text("Every gradient is known")


# --- speed ------------------------------------------------------------------------------------------


def test_a_step_in_a_graph_of_200_nodes_takes_less_than_50_milliseconds(visit, large):
    story, path = large
    page = visit(path)
    assert len(story.scene.boxes) >= 200
    times = page.evaluate(
        """() => { const times = [];
             for (const pass of ["to-forward-pass", "to-backward-pass"]) {
               document.getElementById(pass).click();
               for (let i = 0; i < 75; i += 1) {
                 const start = performance.now();
                 document.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }));
                 document.querySelector(".box.active").getBoundingClientRect();
                 times.push(performance.now() - start);
               }
             }
             return times; }"""
    )
    print(f"median step {np.median(times):.2f} ms, slowest {max(times):.2f} ms", file=sys.stderr)
    assert np.median(times) < 50
