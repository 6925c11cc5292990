"""The picture of the player in README.md, taken in a browser: `python docs/make_player_picture.py`, extra `browser`."""

import os
import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

import microgrid as mg
import viz

PICTURE = Path(__file__).parent / "pictures" / "player.png"
EVENTS_BEFORE_THE_END = 12


def neuron() -> mg.Unrolled:
    u, w = mg.parameter(0.8, name="u"), mg.parameter(0.5, name="w")
    x, h = mg.input(0.0, name="x"), mg.state(0.0, name="h")
    h.next = mg.tanh(u * h + w * x)
    dag = mg.Graph(loss=mg.last(mg.square(h.next - 0.6))).unroll(x=[1.0, 0.5, 0.0, -0.5])
    dag.backward()
    return dag


def main() -> None:
    browser = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page_file = viz.play(neuron()).save(Path(folder) / "bptt.html")
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1600, "height": 1000})
        page.goto(page_file.as_uri())
        page.get_by_role("button", name="Fit").click()
        page.keyboard.press("End")
        for _ in range(EVENTS_BEFORE_THE_END):
            page.keyboard.press("ArrowLeft")
        page.wait_for_timeout(900)  # until what moves has arrived
        page.screenshot(path=PICTURE)
        chromium.close()
    print(PICTURE.name)


if __name__ == "__main__":
    main()
