"""The web client in a real browser against a real server, from the first image to a better adapter."""

import hashlib
import io
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.label_app.conftest import Server, draw_studies

ROOT = Path(__file__).parents[2]
WEB, BUILT = ROOT / "web", ROOT / "topolora_monai/label_app/static"
SIZE = (70, 50)
WAIT = 240_000
"""Milliseconds for an answer; the machine may be busy."""


class TestBuild:
    def record(self):
        return json.loads((BUILT / "build.json").read_text())

    def test_is_of_the_present_sources(self):
        places = ["index.html", "package.json", "package-lock.json", "tsconfig.json", "vite.config.ts"]
        files = [WEB / place for place in places] + [path for path in (WEB / "src").rglob("*") if path.is_file()]
        found = {path.relative_to(WEB).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
        assert found == self.record()["sources"], "run `make web`"

    def test_was_not_changed_by_hand(self):
        files = [path for path in BUILT.rglob("*") if path.is_file() and path.name != "build.json"]
        found = {path.relative_to(BUILT).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
        assert found == self.record()["files"], "run `make web`"

    def test_is_small_and_whole(self):
        text = (BUILT / "index.html").read_text()
        assert "<style" not in text
        assert "script>" not in text.replace("></script>", "").replace("<noscript>", "").replace("</noscript>", "")
        assert "http" not in text
        assert sum(path.stat().st_size for path in BUILT.iterdir()) < 600_000
        assert not list(BUILT.glob("*.map"))
        assert "openseadragon" in (BUILT / "licences.md").read_text()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("web")


@pytest.fixture(scope="module")
def server(browser, adapter, folder):
    draw_studies(folder / "studies")
    command = [sys.executable, "-m", "topolora_monai.cli", "label"]
    arguments = ["--studies", str(folder / "studies"), "--adapter", f"tuned={adapter}"]
    made = Server([*command, *arguments], folder / "server.log")
    yield made.wait()
    made.kill()


class Client:
    """The page, as somebody uses it."""

    def __init__(self, page, server):
        self.page = page
        self.server = server
        self.requested, self.said = [], []
        page.set_default_timeout(WAIT)
        page.on("request", lambda request: self.requested.append(request.url))
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))

    def open(self):
        self.page.goto(f"{self.server.url}/topolora/")
        self.page.locator("#images button").first.wait_for(state="attached", timeout=WAIT)
        return self.settle()

    def settle(self):
        """Until the server has answered; the last answer may be about to be asked for."""
        self.page.wait_for_timeout(150)
        self.page.locator("#busy").wait_for(state="hidden", timeout=WAIT)
        return self

    def image(self, name):
        self.page.locator(f"#images button[data-image='{name}']").click()
        return self.settle()

    def name(self):
        return self.page.locator("#image-name").inner_text()

    def at(self, x, y):
        """A place on the page in a pixel of the image, found by what the page says of the pointer's place."""
        frame = self.page.locator("#viewer").bounding_box()
        starts, sides = (frame["x"], frame["y"]), (frame["width"], frame["height"])
        place = [start + side / 2 for start, side in zip(starts, sides, strict=True)]
        first, second = self.pointed(place), self.pointed([at + 90 for at in place])
        steps = [90 / max(1, after - before) for before, after in zip(first, second, strict=True)]  # for a pixel
        told = first
        for _ in range(20):
            place = [
                min(max(at + step * (wanted - found), start + 2), start + side - 2)
                for at, step, wanted, found, start, side in zip(place, steps, (x, y), told, starts, sides, strict=True)
            ]
            told = self.pointed(place)
            if told == [x, y]:
                return place
            steps = [max(1, step / 1.5) for step in steps]  # small ones cannot overshoot
        raise AssertionError(f"pixel {x}, {y} is not to be seen; {told} is at {place}")

    def pointed(self, place):
        self.page.mouse.move(*place)
        return [int(number) for number in self.page.locator("#place").inner_text().split(",")]

    def click(self, x, y):
        self.page.mouse.click(*self.at(x, y))
        return self.settle()

    def stroke(self, start, end):
        """Draw a line between the centres of two pixels."""
        first, last = self.at(*start), self.at(*end)
        self.page.mouse.move(*first)
        self.page.mouse.down()
        self.page.mouse.move(*last, steps=8)
        self.page.mouse.up()
        return self

    def submit(self):
        self.page.locator("#submit").click()
        self.page.get_by_text(f"Submitted {self.name()} as version").first.wait_for(timeout=WAIT)
        return self.settle()

    def label(self, name):
        import requests

        response = requests.get(f"{self.server.url}/topolora/api/label", params={"image": name}, timeout=60)
        assert response.status_code == 200, response.text
        return np.asarray(Image.open(io.BytesIO(response.content)))

    def ask(self, path, **options):
        return ask(self.server, path, **options)


@pytest.fixture
def make_client(browser, server):
    contexts = []

    def make(**options):
        context = browser.new_context(
            **{"viewport": {"width": 1280, "height": 800}, "reduced_motion": "reduce"} | options
        )
        contexts.append(context)
        return Client(context.new_page(), server)

    yield make
    for context in contexts:
        context.close()


def ask(server, path, method="GET", **options):
    import requests

    response = requests.request(method, server.url + path, timeout=120, **options)
    assert response.status_code == 200, response.text
    return response.json()


def put_labels(server, names, user):
    """Labels of the images' lines, as another annotator submits them."""
    for name in names:
        mask = np.zeros(SIZE[::-1], np.uint8)
        number = int(name[2:])
        mask[20 + number : 24 + number, 10:60] = 1
        stream = io.BytesIO()
        Image.fromarray(mask).save(stream, "PNG")
        ask(
            server,
            f"/datastore/label?image={name}",
            method="PUT",
            files={"label": ("mask.png", stream.getvalue())},
            data={"params": json.dumps({"user": user})},
        )


def automatic_mask(client, name):
    import requests

    return requests.post(f"{client.server.url}/infer/tuned?image={name}&output=image", timeout=120).content


def test_from_the_first_image_to_a_better_adapter(make_client, server, folder):  # noqa: PLR0915 - one course of work
    client = make_client().open()
    page = client.page
    assert client.name() == "im0"
    page.locator("#user").fill("Ann")
    automatic = np.asarray(Image.open(io.BytesIO(automatic_mask(client, "im0"))))
    assert page.locator("#undo").is_disabled()

    # Three clicks: two on what the mask missed, one on what it has too much.
    missed, spurious = np.argwhere(automatic == 0), np.argwhere(automatic == 1)
    wanted = [*missed[[len(missed) // 3, 2 * len(missed) // 3]]]
    unwanted = spurious[len(spurious) // 2]
    for row, column in wanted:
        client.click(column, row)
    page.keyboard.press("n")
    client.click(unwanted[1], unwanted[0])
    assert "click" in page.locator("#undo").get_attribute("title")

    # The mask is nearly everywhere: a stroke of the eraser, one of the brush into it that is taken back and made again,
    # and one of the eraser that is taken back for good.
    page.keyboard.press("e")
    for _ in range(5):
        page.keyboard.press("[")
    client.stroke((5, 45), (25, 45))
    page.keyboard.press("b")
    client.stroke((10, 45), (15, 45))
    page.keyboard.press("6")
    client.stroke((30, 45), (40, 45))
    for key in ("z", "z", "y"):
        page.keyboard.press(key)
    assert page.locator("#redo").is_enabled()
    assert page.locator("#image-state").inner_text() == "Draft, not submitted"

    client.submit()
    kept = client.label("im0")
    assert all(kept[row, column] == 1 for row, column in wanted)
    assert kept[unwanted[0], unwanted[1]] == 0
    assert kept[45, 5:26].tolist() == 5 * [0] + 6 * [1] + 10 * [0]
    np.testing.assert_array_equal(kept[45, 30:41], automatic[45, 30:41])
    with Image.open(next(folder.rglob("labels/final/im0.png"))) as file:
        assert file.mode == "L"
    assert page.locator("#image-state").inner_text() == "Submitted by Ann"
    assert page.locator("#images button[data-image=im0] .state").inner_text() == "Submitted by Ann"

    # Scores of the others, and the most uncertain next.
    page.locator("#strategy").select_option("entropy")
    page.locator("#score").click()
    page.get_by_text("All images are scored.").wait_for(timeout=WAIT)
    page.keyboard.press("x")
    page.locator("#image-name:not(:text-is('im0'))").wait_for(timeout=WAIT)
    client.settle()
    scores = {name: client.ask(f"/datastore/image/info?image={name}")["scores"] for name in ("im1", "im2", "im3")}
    assert client.name() == max(scores, key=lambda name: scores[name]["entropy"]["score"])

    # Somebody else labels the rest; then the adapter is trained.
    put_labels(server, ["im0", "im1", "im2", "im3"], "Ben")
    page.locator("#epochs").fill("15")
    page.locator("#train").click()
    page.locator("#train-progress[value]").wait_for(timeout=WAIT)
    assert page.get_by_role("button", name="Stop").is_visible()
    page.locator("#train-state.finished").wait_for(timeout=2 * WAIT)
    # On one image, which is too few to put it into use for everybody: that is for somebody to decide.
    told = page.locator("#train-state").inner_text()
    assert told.startswith("Version 2 was kept, and the old one stays in use: Dice ")
    assert "on 1 image, too few images" in told
    assert "in use" not in page.locator("#versions li").first.inner_text()
    assert "Ann" in page.locator("#versions li").first.inner_text()
    assert client.ask("/topolora/api/adapters")[0]["current"] == 1
    page.get_by_role("button", name="Use version 2").click()
    page.get_by_role("button", name="Use it").click()
    page.get_by_text("Version 2 is in use.").wait_for(timeout=WAIT)
    assert client.ask("/topolora/api/adapters")[0]["log"][-1]["author"] == "Ann"

    # It is used, and can be taken back.
    page.get_by_role("button", name="Automatic mask with it").click()
    client.settle()
    page.locator("#undo[title*='automatic mask']").wait_for(timeout=WAIT)
    assert client.ask("/infer/tuned?image=im1&output=json", method="POST")["version"] == 2
    page.get_by_role("button", name="Use version 1").click()
    page.get_by_role("button", name="Use it").click()
    page.get_by_text("Version 1 is in use.").wait_for(timeout=WAIT)
    assert client.ask("/topolora/api/adapters")[0]["current"] == 1
    page.reload()  # what others did is seen
    client.settle()
    assert page.locator("#images button[data-image=im3] .state").inner_text() == "Submitted by Ben"
    assert page.locator("#images-count").inner_text() == "4 of 4 submitted"

    assert client.said == []
    assert {url.split("/topolora/")[0] for url in client.requested if "/topolora/" in url} == {client.server.url}
    assert all(url.startswith((client.server.url, "blob:")) for url in client.requested)


def near(found, expected):
    return all(abs(one - other) <= 1 for one, other in zip(found, expected, strict=True))


@pytest.fixture
def labelled(server):
    """All images have labels, of a line each."""
    put_labels(server, ["im0", "im1", "im2", "im3"], "Ben")


@pytest.mark.usefixtures("labelled")
class TestChangesAreNotLost:
    def test_draft_is_back_after_leaving_the_page(self, make_client):
        client = make_client().open().image("im2")
        page, asked = client.page, []
        page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))
        page.keyboard.press("b")
        client.stroke((5, 45), (25, 45))
        page.locator("#image-state.draft").wait_for()
        page.reload()
        client.settle()
        assert asked == ["beforeunload"]
        assert page.locator("#images button[data-image=im2] .state").inner_text() == "Draft, not submitted"
        client.image("im2")
        page.get_by_text("are back").wait_for()
        assert page.locator("#image-state").inner_text() == "Draft, not submitted"
        page.get_by_role("button", name="Discard").click()
        client.settle()
        page.locator("#image-state:not(.draft)").wait_for()
        page.reload()
        client.settle()
        assert asked == ["beforeunload"]

    def test_going_to_another_image_and_back(self, make_client):
        client = make_client().open().image("im2")
        client.page.keyboard.press("b")
        client.stroke((5, 45), (25, 45))
        client.image("im3").image("im2")
        client.page.get_by_text("are back").wait_for()
        client.submit()
        assert (client.label("im2")[45, 5:26] == 1).all()

    def test_server_out_of_reach(self, make_client):
        client = make_client().open().image("im1")
        before = client.page.locator("#undo").get_attribute("title")
        client.page.context.set_offline(True)
        client.click(20, 30)
        client.page.get_by_role("alert").get_by_text("The server cannot be reached").wait_for()
        assert client.page.locator("#undo").get_attribute("title") == before
        client.page.context.set_offline(False)
        client.click(20, 30)
        assert "click" in client.page.locator("#undo").get_attribute("title")

    def test_refusal_of_the_server_in_its_words(self, make_client):
        client = make_client().open().image("im1")
        refusal = {"status": 413, "json": {"detail": "image is larger than 1 pixel"}}
        client.page.route("**/infer/**", lambda route: route.fulfill(**refusal))
        client.page.locator("#automatic").click()
        client.page.get_by_role("alert").get_by_text("Image is larger than 1 pixel").wait_for()


@pytest.mark.usefixtures("labelled")
class TestKeyboard:
    def test_an_image_without_a_pointer(self, make_client):
        client = make_client().open().image("im1")
        page = client.page
        frame = page.locator("#viewer").bounding_box()
        column, row = client.pointed([frame["x"] + frame["width"] / 2, frame["y"] + frame["height"] / 2])
        assert client.label("im1")[row, column] == 0
        page.keyboard.press("b")
        page.keyboard.press("Enter")
        assert "brush" in page.locator("#undo").get_attribute("title")
        page.keyboard.press("s")
        page.get_by_text("Submitted im1 as version").wait_for(timeout=WAIT)
        client.settle()
        assert client.label("im1")[row, column] == 1
        page.keyboard.press("n")
        page.keyboard.press("Enter")
        client.settle()
        assert "click" in page.locator("#undo").get_attribute("title")
        page.keyboard.press("Control+s")
        client.settle()
        assert client.label("im1")[row, column] == 0
        page.keyboard.press("j")
        client.settle()
        assert client.name() == "im2"

    def test_help_lists_the_keys(self, make_client):
        client = make_client().open()
        client.page.keyboard.press("?")
        keys = client.page.locator("#help-dialog dt").all_inner_texts()
        assert len(keys) > 25
        client.page.keyboard.press("b")  # nothing happens behind the dialog
        client.page.keyboard.press("Escape")
        assert client.page.locator("#tool-add").get_attribute("aria-pressed") == "true"

    def test_letters_in_a_field_and_letters_switched_off(self, make_client):
        client = make_client().open()
        client.page.locator("#user").fill("")
        client.page.locator("#user").press_sequentially("beh")
        assert client.page.locator("#user").input_value() == "beh"
        assert client.page.locator("#tool-add").get_attribute("aria-pressed") == "true"
        client.page.locator("#help").click()
        client.page.locator("#single-keys").uncheck()
        client.page.keyboard.press("Escape")
        client.page.locator("#viewer .openseadragon-canvas").focus()
        client.page.keyboard.press("b")
        assert client.page.locator("#tool-add").get_attribute("aria-pressed") == "true"

    def test_every_control_has_a_name(self, make_client):
        page = make_client().open().page
        for role in ("button", "combobox", "slider", "checkbox", "spinbutton", "textbox"):
            for control in page.get_by_role(role).all():
                name = control.get_attribute("aria-label") or control.inner_text()
                labelled = control.evaluate("element => element.labels && element.labels.length > 0")
                assert name.strip() or labelled, control.evaluate("element => element.outerHTML")


@pytest.mark.usefixtures("labelled")
class TestPointers:
    def test_clicks_of_two_classes_while_the_server_is_busy(self, make_client):
        """Each class is asked for by itself, with its own clicks."""
        client = make_client()
        page, held, asked = client.page, [], []

        def two_classes(route):
            told = route.fetch().json()
            for model in told["models"].values():
                model["labels"] = {"artery": 1, "vein": 2}
            route.fulfill(json=told)

        def hold(route):
            params = json.loads(re.search(rb'name="params"\r\n\r\n(.*?)\r\n', route.request.post_data_buffer)[1])
            asked.append((params["class"], params["foreground"]))
            route.continue_() if held else held.append(route)

        page.route("**/info/", two_classes)
        page.route("**/infer/tuned_clicks*", hold)
        client.open().image("im1")
        for name, (x, y) in (("artery", (20, 10)), ("vein", (30, 10)), ("artery", (40, 10))):
            page.locator("#classes").get_by_role("button", name=name).click()
            page.mouse.click(*client.at(x, y))
        held[0].continue_()
        client.settle()
        assert asked == [(1, [[20, 10]]), (2, [[30, 10]]), (1, [[20, 10], [40, 10]])]

    def test_a_finger_clicks_on_a_tablet(self, make_client):
        client = make_client(viewport={"width": 820, "height": 1180}, has_touch=True).open()
        page = client.page
        page.locator("#toggle-images").tap()
        page.locator("#images button[data-image=im3]").tap()
        client.settle()
        frame = page.locator("#viewer").bounding_box()
        page.touchscreen.tap(frame["x"] + frame["width"] / 2, frame["y"] + frame["height"] / 2)
        client.settle()
        assert "click" in page.locator("#undo").get_attribute("title")
        assert not page.locator("#images-panel").is_visible()
        small = page.locator("header button, #tools button").evaluate_all(
            "all => all.map(e => e.getBoundingClientRect()).filter(e => e.width < 44 || e.height < 44).length"
        )
        assert small == 0

    def test_a_box_is_segmented_again(self, make_client):
        client = make_client().open().image("im3")
        client.page.keyboard.press("r")
        client.stroke((20, 10), (39, 29)).settle()
        assert "'roi': [20, 10, 39, 29]" in client.server.log.read_text()
        assert "box" in client.page.locator("#undo").get_attribute("title")

    def test_the_right_button_takes_away(self, make_client):
        client = make_client().open().image("im3")
        client.page.mouse.click(*client.at(30, 40), button="right")
        client.settle()
        assert "'background': [[30, 40]]" in client.server.log.read_text()

    def test_the_wheel_zooms_and_a_drag_moves(self, make_client):
        client = make_client().open().image("im3")
        place = client.at(30, 40)
        client.page.mouse.wheel(0, -300)
        client.page.wait_for_timeout(300)
        assert near(client.pointed(place), (30, 40))
        assert client.pointed([place[0] + 40, place[1]])[0] < 30 + 40 / 9
        client.page.mouse.move(*place)
        client.page.mouse.down()
        client.page.mouse.move(place[0] + 80, place[1], steps=4)
        client.page.mouse.up()
        assert near(client.pointed([place[0] + 80, place[1]]), (30, 40))
        assert client.page.locator("#undo").is_disabled()
