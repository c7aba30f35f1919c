"""The page as a visitor uses it, in a browser without a window; and the command's mistakes."""

import contextlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from flax import nnx
from PIL import Image

from ruac_jax import demo
from ruac_jax.data.shapes import ShapesSource
from ruac_jax.demo_pictures import draw_mask, draw_uncertainty, draw_waiting
from ruac_jax.demo_state import Click, Session, Settings, answer
from ruac_jax.errors import UserError
from ruac_jax.hub import shipped_names
from ruac_jax.weights import ModelMetadata, create_model, save_model
from tests.demo_server import fresh_predictor

ROOT = Path(__file__).parents[1]
SIZE = (60, 110)  # height and width of the visitor's image
PATIENCE = 240  # seconds
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
MISSING = [name for name in ("gradio", "selenium") if importlib.util.find_spec(name) is None]
MISSING += [name for name, path in (("chromium", CHROMIUM), ("chromedriver", DRIVER)) if path is None]

in_browser = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)).save(path)
    return path


class Server:
    """A page in a process of its own."""

    def __init__(self, folder, *command):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url, self.file = f"http://127.0.0.1:{port}/", folder / "asked.jsonl"
        words = [word.format(port=port, file=self.file) for word in command]
        self.file.touch()
        with (folder / "log.txt").open("w") as log:
            self.process = subprocess.Popen([sys.executable, *words], env=environment(), stdout=log, stderr=log)
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            assert self.process.poll() is None, (folder / "log.txt").read_text()
            with contextlib.suppress(OSError), urllib.request.urlopen(self.url):
                return
            time.sleep(0.5)
        pytest.fail((folder / "log.txt").read_text())

    def asked(self):
        """What the first network was asked so far, since `forget`."""
        return [json.loads(line) for line in self.file.read_text().splitlines()]

    def forget(self):
        self.file.write_text("")

    def close(self):
        self.process.kill()
        self.process.wait()


def environment():
    """One device, as at home."""
    return {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"} | {"PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    page = Server(tmp_path_factory.mktemp("page"), str(ROOT / "tests/demo_server.py"), "{port}", "{file}")
    yield page
    page.close()


@pytest.fixture
def browser():
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield browser
    browser.quit()


class Visitor:
    """Looks at the page and clicks on it."""

    def __init__(self, browser, url, window=(1280, 900)):
        self.browser = browser
        width, height = window
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get(url)
        self.until(lambda: self.find("#view img") and self.find("#mask0 img") and self.find("input[type=file]"))

    def until(self, condition):
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.ui import WebDriverWait

        waiting = WebDriverWait(self.browser, PATIENCE, 0.2, ignored_exceptions=[StaleElementReferenceException])
        return waiting.until(lambda _: condition())

    def find(self, selector):
        return self.browser.find_elements("css selector", selector)

    def source(self, name):
        return self.find(f"#{name} img")[0].get_attribute("src")

    def picture(self, name):
        with urllib.request.urlopen(self.source(name)) as answer:
            return np.asarray(Image.open(BytesIO(answer.read())).convert("RGB"))

    def changing(self, action, *names):
        """Acts, and waits until the pictures of these names are others."""
        before = {name: self.source(name) for name in names}
        action()
        self.until(lambda: all(self.source(name) != before[name] for name in names))

    def open(self, path):
        self.changing(lambda: self.find("input[type=file]")[0].send_keys(str(path)), "view")

    def press(self, name):
        element = self.find(f"button#{name}")[0]
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def choose(self, name, value):
        self.browser.execute_script("arguments[0].click()", self.find(f"#{name} input[value='{value}']")[0])

    def click(self, fraction):
        """Clicks at a fraction of the picture's sides; returns the fraction that the browser's whole pixels allow."""
        from selenium.webdriver.common.action_chains import ActionChains

        image = self.find("#view img")[0]
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", image)
        box = self.browser.execute_script("return arguments[0].getBoundingClientRect().toJSON()", image)
        x, y = round(box["left"] + fraction[0] * box["width"]), round(box["top"] + fraction[1] * box["height"])
        chain = ActionChains(self.browser)
        chain.w3c_actions.pointer_action.move_to_location(x, y)
        chain.w3c_actions.pointer_action.click()
        chain.w3c_actions.perform()
        return (x - box["left"]) / box["width"], (y - box["top"]) / box["height"]

    def requested(self):
        """Addresses that the browser asked for."""
        messages = [json.loads(entry["message"])["message"] for entry in self.browser.get_log("performance")]
        return {
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        }


def on_image(fraction, size=SIZE):
    return np.array([fraction[0] * size[1] - 0.5, fraction[1] * size[0] - 0.5])


@in_browser
@pytest.mark.parametrize("window", [(1280, 900), (820, 900), (400, 800)])
def test_a_click_reaches_the_network_where_it_was_made(browser, page, photo, window):
    visitor = Visitor(browser, page.url, window)
    visitor.open(photo)
    page.forget()
    made = []
    for fraction in ((0.3, 0.8), (0.97, 0.06)):
        visitor.changing(lambda at=fraction: made.append(visitor.click(at)), "view", "mask0", "uncertainty0", "mask1")
    assert len(page.asked()) == 2
    # A pixel of the window is at most a third of a pixel of this image, whose sides it shows at 340 px or more.
    np.testing.assert_allclose(page.asked()[1]["point_coords"], [on_image(at) for at in made], atol=0.5)
    np.testing.assert_allclose(made, [(0.3, 0.8), (0.97, 0.06)], atol=0.01)
    assert list(page.asked()[1]["point_labels"]) == [1, 1]


@in_browser
def test_the_page_shows_the_answers_of_both_networks(browser, page, photo):
    image = np.asarray(Image.open(photo))
    visitor = Visitor(browser, page.url)
    visitor.open(photo)
    np.testing.assert_array_equal(visitor.picture("mask0"), draw_waiting(Session(image)))
    page.forget()
    visitor.changing(lambda: visitor.click((0.4, 0.5)), "view", "mask0", "uncertainty0", "mask1", "uncertainty1")
    session = Session(image, (Click("object", *map(float, page.asked()[0]["point_coords"][0])),))
    masks = []
    for number, model in enumerate((fresh_predictor(0), fresh_predictor(1))):
        model.set_image(image)
        found = answer(model, session.prompt(), Settings())
        np.testing.assert_array_equal(visitor.picture(f"mask{number}"), draw_mask(session, found, 0.5))
        np.testing.assert_array_equal(visitor.picture(f"uncertainty{number}"), draw_uncertainty(session, found))
        assert f"{max(found.ious):.2f}" in visitor.find(f"#facts{number}")[0].text
        masks.append(found.mask)
    assert (masks[0] != masks[1]).any()


@in_browser
def test_labels_boxes_undo_clear_and_settings(browser, page, photo):
    visitor = Visitor(browser, page.url)
    visitor.open(photo)
    first = visitor.source("mask0")
    page.forget()
    visitor.changing(lambda: visitor.click((0.2, 0.3)), "view", "mask0")
    visitor.choose("kind", "background")
    visitor.changing(lambda: visitor.click((0.6, 0.6)), "view", "mask0")
    assert [list(asked["point_labels"]) for asked in page.asked()] == [[1], [1, 0]]
    visitor.choose("kind", "corner")
    corners = []
    visitor.changing(lambda: corners.append(visitor.click((0.8, 0.2))), "view")
    visitor.changing(lambda: corners.append(visitor.click((0.5, 0.9))), "view", "mask0")
    (right, top), (left, bottom) = map(on_image, corners)
    np.testing.assert_allclose(page.asked()[-1]["box"], [left, top, right, bottom], atol=0.5)
    visitor.choose("shown", "single")
    visitor.until(lambda: "a single mask" in visitor.find("#facts0")[0].text)
    assert page.asked()[-1]["multimask_output"] is False
    visitor.choose("method", "monte_carlo")
    visitor.until(lambda: page.asked()[-1]["uncertainty"] == "monte_carlo")
    for _ in range(2):
        visitor.changing(lambda: visitor.press("undo"), "view")
    assert "box" not in page.asked()[-1]
    visitor.changing(lambda: visitor.press("clear"), "view", "mask0")
    assert visitor.source("mask0") == first  # names follow from contents
    asked = len(page.asked())
    visitor.changing(lambda: visitor.find("#examples button.thumbnail-lg")[3].click(), "view")
    assert len(page.asked()) == asked


@in_browser
def test_nothing_is_fetched_from_elsewhere(browser, page, photo):
    visitor = Visitor(browser, page.url)
    visitor.open(photo)
    visitor.changing(lambda: visitor.click((0.5, 0.5)), "view", "mask0")
    addresses = {url for url in visitor.requested() if not url.startswith(("data:", "blob:", "about:"))}
    assert any(url.startswith(page.url) for url in addresses)
    assert [url for url in addresses if not url.startswith(page.url)] == []


@in_browser
def test_a_file_that_is_no_image_is_said_to_be_none(browser, page, tmp_path):
    visitor = Visitor(browser, page.url)
    (tmp_path / "text.png").write_text("no image")
    visitor.find("input[type=file]")[0].send_keys(str(tmp_path / "text.png"))
    visitor.until(lambda: "not a readable image" in visitor.find("body")[0].text)


@in_browser
@pytest.mark.skipif("nano" not in shipped_names(), reason="no checkpoint comes with this version")
def test_the_shipped_checkpoint_covers_what_is_clicked(browser, tmp_path):
    (model,) = demo.load_models(["nano"])
    page = Server(tmp_path, "-m", "ruac_jax.demo", "--port={port}")
    try:
        record = ShapesSource("source", "validation", size=256)[1]  # the example that the page begins with
        sizes = record["masks"].sum(axis=(1, 2))
        ys, xs = np.nonzero(record["masks"][sizes.argmax()])
        nearest = np.hypot(xs - xs.mean(), ys - ys.mean()).argmin()
        x, y = float(xs[nearest]), float(ys[nearest])
        visitor = Visitor(browser, page.url)
        visitor.changing(lambda: visitor.click(((x + 0.5) / 256, (y + 0.5) / 256)), "view", "mask0")
        picture = visitor.picture("mask0").astype(int)
        waiting = draw_waiting(Session(record["image"])).astype(int)
        red, _, blue = picture[round((y + 0.5) * 3), round((x + 0.5) * 3)]
        assert waiting.shape == picture.shape
        assert abs(red - blue) > 20  # blue: the mask, orange: the mask in doubt; else grey
        found = model.answer(record["image"], Session(record["image"], (Click("object", x, y),)).prompt(), Settings())
        assert found.mask[int(y), int(x)]
    finally:
        page.close()


def run(*arguments, cwd):
    command = [sys.executable, "-m", "ruac_jax.demo", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=PATIENCE)


def test_without_gradio_the_command_says_what_to_install(tmp_path):
    # A finder that knows no gradio, on the path before all others.
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'gradio' else find(name, *rest)\n"
    )
    command = [sys.executable, "-m", "ruac_jax.demo"]
    blind = environment() | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run(command, cwd=tmp_path, env=blind, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "pip install" in done.stderr


@pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="not installed: gradio")
def test_a_model_that_is_not_there_is_one_line(tmp_path):
    done = run("--checkpoint=nowhere/model", cwd=tmp_path)
    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if line.startswith("error: nowhere/model: ")]
    assert "Traceback" not in done.stderr


def test_models_are_named_after_their_runs_and_given_once(tmp_path):
    for name, head in (("ruac", "weibull"), ("sam2", "hypernetwork")):
        metadata = ModelMetadata("nano", head)
        save_model(tmp_path / name / "model", create_model("nano", head, rngs=nnx.Rngs(0)), metadata)
    paths = [str(tmp_path / name / "model") for name in ("ruac", "sam2")]
    models = demo.load_models(paths)
    assert [model.name for model in models] == ["ruac", "sam2"]
    assert "Bayesian" in models[0].description
    assert "SAM2's own head" in models[1].description
    with pytest.raises(UserError, match="another model"):
        demo.load_models([paths[0], paths[0] + "/"])


@pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="not installed: gradio")
def test_a_port_in_use_is_one_line(tmp_path):
    save_model(tmp_path / "m", create_model("nano", "weibull", rngs=nnx.Rngs(0)), ModelMetadata("nano", "weibull"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run("--checkpoint=m", f"--port={port}", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"error: --port {port}: ")
