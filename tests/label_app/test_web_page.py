"""The page's own tools in a real browser: how the image is shown, changes to the whole mask, lists, keys, phones."""

import dataclasses
import io
import json
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.label_app.conftest import in_process
from tests.label_app.test_web_client import WAIT, Client, ask

LINE = np.zeros((50, 70), bool)
LINE[29:32, 8:52] = LINE[29:48, 49:52] = True
MIDDLE = np.zeros_like(LINE)
MIDDLE[30, 9:51] = MIDDLE[30:47, 50] = True


@pytest.fixture(scope="module")
def server(browser, adapter, tmp_path_factory):
    """Five images, one of 12 bits, one in a folder, beside another file; an adapter of one class, and one of two.

    In ``im10`` a dark line goes to the right, then down.
    """
    from tests.release.test_release import write_run

    folder = tmp_path_factory.mktemp("page")
    studies = folder / "studies"
    studies.mkdir()
    for number, name in enumerate(("im1", "im2", "im10")):
        picture = np.random.default_rng(number).integers(100, 200, (50, 70, 3), dtype=np.uint8)
        picture[..., 1] //= 2
        if name == "im10":
            picture[LINE], picture[MIDDLE] = 25, 10
        Image.fromarray(picture).save(studies / f"{name}.png")
    deep = np.linspace(1000, 0, 3500).reshape(50, 70).astype(np.uint16)
    deep[0, :10] = 4095
    Image.fromarray(deep).save(studies / "deep.png")
    (studies / "notes.txt").write_text("no image")
    (studies / "left").mkdir()
    Image.fromarray(picture).save(studies / "left/im3.png")
    two = write_run(folder / "two", classes=2, labels=["background", "artery", "vein"]) / "adapter.safetensors"
    with in_process(studies, folder / "work", adapters={"tuned": str(adapter), "two": str(two)}) as url:
        yield SimpleNamespace(url=url)


@pytest.fixture
def make_client(browser, server):
    contexts = []

    def make(**options):
        settings = {"viewport": {"width": 1280, "height": 800}, "reduced_motion": "reduce"} | options
        contexts.append(browser.new_context(**settings))
        contexts[-1].set_default_timeout(WAIT)
        return Client(contexts[-1].new_page(), server)

    yield make
    for context in contexts:
        context.close()


def bens_label(server, image="im1"):
    """A bar with a hole, and an island, as Ben submits them."""
    mask = np.zeros((50, 70), np.uint8)
    mask[10:30, 10:60] = 1
    mask[20, 20:23] = 0
    mask[40, 40] = 1
    ask(server, f"/datastore/label?image={image}", method="PUT", **upload(mask, user="Ben"))
    return mask


def upload(mask, **params):
    stream = io.BytesIO()
    Image.fromarray(mask).save(stream, "PNG")
    return {"files": {"label": ("mask.png", stream.getvalue())}, "data": {"params": json.dumps(params)}}


@pytest.fixture
def label(server):
    return bens_label(server)


def colours(client, x, y):
    """What the screen shows in the middle of a pixel of the image."""
    places = client.__dict__.setdefault("places", {})  # all images have one size
    place = places[x, y] = places.get((x, y)) or client.at(x, y)
    client.page.mouse.move(2, 2)
    client.page.wait_for_timeout(100)
    shown = np.asarray(Image.open(io.BytesIO(client.page.screenshot())).convert("RGB")).astype(int)
    return shown[round(place[1]), round(place[0])]


@pytest.mark.usefixtures("label")
class TestLook:
    def test_outline_leaves_the_inside_to_be_seen(self, make_client):
        client = make_client().open().image("im1")
        client.page.keyboard.press("h")
        plain = colours(client, 40, 15)
        client.page.keyboard.press("h")
        filled = colours(client, 40, 15)
        client.page.keyboard.press("u")
        assert np.abs(filled - plain).max() > 20
        assert np.abs(colours(client, 40, 15) - plain).max() <= 2
        client.page.reload()
        client.settle()
        assert client.page.locator("#outline").get_attribute("aria-pressed") == "true"

    def test_red_free_contrast_and_window(self, make_client):
        client = make_client().open().image("im1")
        page = client.page
        page.keyboard.press("h")
        red, green, _ = colours(client, 15, 5)
        page.keyboard.press("v")
        grey = colours(client, 15, 5)
        assert red > green + 20 and np.abs(grey - green).max() <= 3
        page.locator("#view").click()
        page.locator("#contrast").fill("2")
        assert colours(client, 15, 5)[0] < grey[0] - 10
        page.locator("#plain").click()
        assert np.abs(colours(client, 15, 5)[0] - red) <= 3
        client.image("deep")  # 12 bits in 16, and few pixels use the last two
        assert colours(client, 40, 3).min() > 200
        page.locator("#window").select_option("0,100")
        client.settle()
        assert colours(client, 40, 3).max() < 80

    def test_palettes_and_magnifier(self, make_client):
        client = make_client().open().image("im1")
        page = client.page
        before = colours(client, 40, 15)
        page.locator("#view").click()
        page.get_by_label("Tol, high contrast").check()
        assert np.abs(colours(client, 40, 15) - before).max() > 40
        page.keyboard.press("w")
        client.at(40, 15)
        page.locator(".glass").wait_for()
        page.keyboard.press("w")
        assert not page.locator(".glass").is_visible()


class TestWholeMask:
    def test_threshold_follows_the_slider_without_requests_and_leaves_what_was_drawn(self, make_client, label):
        client = make_client().open().image("im1")
        page = client.page
        page.keyboard.press("a")
        client.settle()
        page.keyboard.press("e")
        client.stroke((20, 35), (40, 35))
        page.keyboard.press("t")
        slider = page.locator("#threshold")
        assert slider.input_value() == "128"
        slider.press("ArrowLeft")
        client.settle()
        page.wait_for_timeout(500)
        client.requested.clear()
        slider.evaluate("e => { for (const v of [90, 30, 1]) { e.value = v; e.dispatchEvent(new Event('input')); } }")
        page.wait_for_timeout(300)
        assert client.requested == []
        slider.dispatch_event("change")
        assert "threshold 0.00" in page.locator("#undo").get_attribute("title")
        client.submit()
        kept = client.label("im1")
        assert not kept[35, 20:41].any() and kept.sum() > 0.9 * kept.size
        page.keyboard.press("z")
        assert page.locator("#threshold").input_value() in ("127", "128")

    def test_holes_are_filled_and_islands_removed(self, make_client, label):
        client = make_client().open().image("im1")
        client.page.keyboard.press("f")
        client.page.keyboard.press("Shift+F")
        client.submit()
        kept = client.label("im1")
        assert kept[20, 20:23].all() and not kept[40, 40]
        assert (kept != label).sum() == 4


class TestBreaks:
    def test_of_a_reopened_image_the_most_probable_first(self, make_client, label):
        client = make_client()
        page = client.page
        page.route("**/api/breaks?**", lambda route: route.fulfill(json=[[60, 20, 0.9], [12, 40, 0.3]]))
        client.open().image("im1")
        page.get_by_role("button", name="2 possible breaks").wait_for(timeout=WAIT)
        page.keyboard.press("g")
        page.get_by_text("Break 1 of 2: 90 %").wait_for()
        page.keyboard.press("g")
        page.get_by_text("Break 2 of 2: 30 %").wait_for()
        page.locator("#refine").click()
        page.locator("#breaks").uncheck()
        assert not page.locator("#gap").is_visible()
        page.keyboard.press("g")
        assert "Break 2" not in page.locator("#announce").inner_text()

    def test_of_the_server(self, server, label):
        files = upload(label)["files"]
        found = ask(server, "/topolora/api/breaks?image=im1&model=tuned", method="POST", files=files)
        rates = [rate for _, _, rate in found]
        assert rates == sorted(rates, reverse=True)


@pytest.fixture
def sees_the_line(server, monkeypatch):
    """The network answers what is dark; the label of ``im10`` is the line as given."""
    from topolora_monai.annotation import AnnotationSegmenter

    embedding = AnnotationSegmenter._embedding

    def dark(self, image, model):
        grey = np.asarray(Image.open(image["image"]).convert("L"))
        seen = torch.from_numpy(np.select([grey < 15, grey < 30], [0.95, 0.6], 0.01)).float()[None]
        return dataclasses.replace(embedding(self, image, model), probability=seen)

    monkeypatch.setattr(AnnotationSegmenter, "_embedding", dark)

    def begin(mask):
        ask(server, "/datastore/label?image=im10", method="PUT", **upload(mask.astype(np.uint8), user="Ben"))

    return begin


class TestLines:
    def test_a_live_wire_follows_the_line_and_each_part_is_a_step(self, make_client, sees_the_line):
        corner = np.zeros_like(LINE)
        corner[:3, :3] = True
        sees_the_line(corner)
        client = make_client().open().image("im10")
        page = client.page
        plain = shown_at(client, (50, 40))
        page.keyboard.press("l")
        client.click(9, 30)
        assert page.locator("#wire-end").is_visible()
        client.at(50, 46)
        changes = (np.abs(shown_at(client, (50, 40)) - plain).max() > 20 for _ in range(200))
        assert any(changes)  # before it is drawn
        assert page.locator("#undo").is_disabled()
        client.click(30, 30)
        page.mouse.dblclick(*client.at(50, 46))
        client.settle()
        assert not page.locator("#wire-end").is_visible()
        client.submit()
        drawn = client.label("im10") > 0
        assert (drawn & ~corner & ~LINE).sum() == 0
        assert drawn[MIDDLE].all() and drawn[29:32, 20].all()
        page.keyboard.press("z")
        client.submit()
        assert client.label("im10")[30, 9:31].all() and not client.label("im10")[33:, :].any()
        page.mouse.dblclick(*client.at(9, 30))  # nothing begins and ends
        assert not page.locator("#wire-end").is_visible()
        page.wait_for_timeout(500)
        client.click(9, 30)
        page.mouse.click(*client.at(30, 30), button="right")
        client.settle()
        page.keyboard.press("Escape")
        client.submit()
        np.testing.assert_array_equal(client.label("im10") > 0, corner)

    def test_a_live_wire_without_a_pointer_and_without_the_server(self, make_client, sees_the_line):
        sees_the_line(np.eye(50, 70))
        client = make_client().open().image("im10")
        page = client.page
        page.keyboard.press("l")
        for key in ("Enter", "ArrowRight", "Enter", "Enter"):
            page.keyboard.press(key)
            page.wait_for_timeout(500)
            client.settle()
        assert page.locator("#undo[title*=live-wire]").is_enabled()
        assert not page.locator("#wire-end").is_visible()
        page.keyboard.press("z")
        assert page.locator("#undo").is_disabled()
        client.click(9, 30)
        page.context.set_offline(True)
        client.at(30, 30)
        page.get_by_role("alert").get_by_text("The server cannot be reached").wait_for()
        page.mouse.click(*client.at(40, 30))
        client.settle()
        assert page.locator("#undo").is_disabled()
        page.context.set_offline(False)
        client.click(40, 30)
        assert page.locator("#undo[title*=live-wire]").is_enabled()

    def test_a_bridge_joins_the_break_that_is_shown_or_pointed_at(self, make_client, sees_the_line):
        broken = LINE.copy()
        broken[:, 24:30] = broken[40:44] = False
        sees_the_line(broken)
        client = make_client().open().image("im10")
        page = client.page
        page.get_by_role("button", name="2 possible breaks").wait_for(timeout=WAIT)
        page.keyboard.press("g")
        page.keyboard.press("q")
        page.get_by_role("button", name="1 possible break").wait_for(timeout=WAIT)
        assert "bridge" in page.locator("#undo").get_attribute("title")
        page.keyboard.press("0")
        client.at(40, 36)
        page.keyboard.press("q")
        page.locator("#gap").wait_for(state="hidden", timeout=WAIT)
        client.submit()
        np.testing.assert_array_equal(client.label("im10") > 0, LINE)
        page.keyboard.press("q")
        page.get_by_text("There is no break within reach here.").wait_for(timeout=WAIT)
        page.keyboard.press("z")
        page.keyboard.press("z")
        assert page.locator("#undo").is_disabled()


def shown_at(client, pixel):
    """What the screen shows there, without moving the pointer."""
    place = client.__dict__.setdefault("seen", {})
    if pixel not in place:
        place[pixel] = client.at(*pixel)
        client.at(9, 30)
    client.page.wait_for_timeout(100)
    shown = np.asarray(Image.open(io.BytesIO(client.page.screenshot())).convert("RGB")).astype(int)
    return shown[round(place[pixel][1]), round(place[pixel][0])]


class TestImages:
    def test_natural_order_and_search(self, make_client):
        client = make_client().open()
        page = client.page
        names = "#images .name"
        assert page.locator(names).all_inner_texts() == ["deep", "im1", "im2", "im10", "left--im3"]
        page.keyboard.press("/")
        page.keyboard.type("M1")
        assert page.locator(names).all_inner_texts() == ["im1", "im10"]
        page.keyboard.press("Control+a")
        page.keyboard.type("nothing")
        assert page.get_by_text("No image is like this.").is_visible()

    def test_what_is_left_out_is_told_with_the_reason(self, make_client):
        page = make_client().open().page
        page.get_by_text("1 file is left out").click()
        assert page.locator("#left-out li").all_inner_texts() == ["notes.txt: it is no kind of image that is read"]

    def test_the_address_names_the_image(self, make_client):
        client = make_client().open().image("im2").image("im10")
        assert client.page.url.endswith("#im10")
        client.page.reload()
        client.page.locator("#image-name:text-is('im10')").wait_for()
        client.settle().page.go_back()
        client.page.locator("#image-name:text-is('im2')").wait_for()
        client.page.goto(f"{client.server.url}/topolora/#no-such")
        client.page.reload()
        client.page.get_by_role("alert").get_by_text("There is no image “no-such” here.").wait_for()

    def test_classes_have_colours_and_keys(self, make_client):
        client = make_client().open().image("im2")
        page = client.page
        page.locator("#model").select_option("two")
        buttons = page.locator("#classes button")
        assert buttons.all_inner_texts() == ["artery", "vein"]
        shades = page.locator("#classes .swatch").evaluate_all(
            "all => all.map(e => getComputedStyle(e).backgroundColor)"
        )
        assert len(set(shades)) == 2
        page.keyboard.press("Shift+Digit2")
        assert buttons.nth(1).get_attribute("aria-pressed") == "true"
        page.keyboard.press("b")
        client.stroke((5, 45), (25, 45))
        page.keyboard.press("c")
        client.stroke((30, 45), (50, 45))
        client.submit()
        kept = client.label("im2")
        assert (kept[45, 5:26] == 2).all() and (kept[45, 30:51] == 1).all()


class TestLongWork:
    def test_a_slow_answer_is_not_waited_for(self, make_client):
        client = make_client().open().image("im10")
        held = []
        client.page.route("**/infer/**", lambda route: held.append(route))  # noqa: PLW0108 - a list cannot be marked
        client.page.keyboard.press("a")
        client.page.locator("#busy-text").get_by_text(" s").wait_for()  # after two of them
        client.page.locator("#busy-stop").click()
        client.settle()
        assert client.page.locator("#automatic").is_enabled()
        assert not client.page.get_by_role("alert").is_visible()

    def test_progress_and_end_of_a_job_over_all_images(self, make_client):
        client = make_client().open()
        page, state = client.page, {"status": "RUNNING"}
        entries = ask(client.server, "/topolora/api/images")

        def job(route):
            if route.request.method == "DELETE":
                state["status"] = "STOPPED"
            if route.request.method == "POST":
                entries[0]["labels"].pop("final", None)
                entries[0]["labels"]["original"] = {"version": 77, "time": "2026-01-01T00:00:00+00:00", "user": None}
            route.fulfill(json=state)

        page.route("**/batch/infer**", job)
        page.route("**/api/images", lambda route: route.fulfill(json=entries))
        page.get_by_text("All images without label").click()
        page.locator("#batch").click()
        page.locator("#batch-progress[value]").wait_for()
        assert page.locator("#batch-state").inner_text().startswith("1 of ")
        page.locator("#batch-stop").click()
        page.get_by_text("Stopped; what was done stays.").wait_for()
        assert page.locator("#batch").is_visible()

    def test_what_chose_an_image_is_shown(self, make_client):
        client = make_client()
        entries = ask(client.server, "/topolora/api/images")
        score = {"score": 12.25, "adapter": "tuned", "version": 3, "ts": 1}
        told = [entry | {"scores": {"topology": score}} for entry in entries]
        client.page.route("**/api/images", lambda route: route.fulfill(json=told))
        client.open().image("im10")
        text = client.page.locator("#image-scores").inner_text()
        assert text == "This image: uncertainty about topology 12.3 (version 3)."


class TestPeople:
    def test_two_people_on_one_image_are_told(self, make_client, server):
        client = make_client().open().image("im2")
        page = client.page
        page.keyboard.press("b")
        client.stroke((5, 45), (25, 45))
        label = bens_label(server, "im2")
        page.locator("#submit").click()
        page.get_by_text("Ben submitted a label of this image at").wait_for()
        page.get_by_role("button", name="Compare").click()
        page.get_by_text("White borders are Ben's label.").wait_for()
        assert colours(client, 40, 10).tolist() != colours(client, 40, 14).tolist()
        np.testing.assert_array_equal(client.label("im2"), label)
        page.locator("#submit").click()
        page.get_by_role("button", name="Submit mine anyway").click()
        page.get_by_text("Submitted im2 as version").wait_for(timeout=WAIT)
        assert client.label("im2")[45, 5:26].all()

    def test_the_server_sees_to_it_too(self, server, label):
        import requests

        url = f"{server.url}/datastore/label?image=im1"
        refused = requests.put(url, **upload(label, user="Ann", base=0), timeout=60)
        assert refused.status_code == 409
        assert refused.json()["detail"].startswith("Ben submitted version")
        newest = ask(server, "/topolora/api/labels?image=im1")["labels"]["final"][-1]["version"]
        kept = requests.put(url, **upload(label, user="Ann", base=newest), timeout=60)
        assert kept.json()["version"] == newest + 1

    def test_drafts_of_two_tabs_survive(self, make_client, server):
        bens_label(server, "im10")
        client = make_client().open().image("im10")
        other = Client(client.page.context.new_page(), client.server).open().image("im10")
        rows = ((client, 15), (other, 25))
        for one, row in rows:
            one.page.on("dialog", lambda dialog: dialog.accept())
            one.page.keyboard.press("e")
            one.stroke((20, row), (40, row))
            one.page.locator("#image-state.draft").wait_for()
        for one, row in rows:
            one.page.reload()
            one.page.get_by_text("Another tab of this browser has changes").wait_for()
            one.page.get_by_text("are back").wait_for()
            one.settle()
            shown = [colours(one, 30, line) for line in (15, 25)]
            one.page.keyboard.press("h")
            hidden = [colours(one, 30, line) for line in (15, 25)]
            erased = [line for line, with_mask, without in zip((15, 25), shown, hidden, strict=True)
                      if np.abs(with_mask - without).max() <= 2]  # fmt: skip
            assert erased == [row]

    def test_signing_out_roles_and_the_drafts_of_the_person_before(self, make_client):
        client = make_client()
        page, person, signed_out = client.page, {"username": "ann"}, []

        def who(route):
            may = {"submit": person["username"] == "ann", "score": True, "review": False, "train": False}
            route.fulfill(json={**person, "roles": [], "may": may})

        page.route("**/auth/", lambda route: route.fulfill(json={"enabled": True}))
        page.route("**/auth/token/valid", who)
        page.route("**/auth/sign_out", lambda route: (signed_out.append(1), route.fulfill(json={})))
        client.open().image("im2")
        assert page.locator("#roles").inner_text() == "Your roles let you look, submit labels, score images."
        assert page.locator("#train").is_disabled() and page.locator("#submit").is_enabled()
        page.keyboard.press("e")  # the mask is nearly everywhere
        client.stroke((5, 35), (25, 35))
        page.locator("#image-state.draft").wait_for()
        person["username"] = "bea"
        with page.expect_navigation():
            page.locator("#sign-out").click()
        client.settle().image("im2")
        assert signed_out == [1]
        assert page.locator("#user").input_value() == "bea"
        assert page.get_by_text("Draft, not submitted").count() == 0
        assert page.locator("#submit").is_disabled() and "role" in page.locator("#submit").get_attribute("title")

    def test_a_token_that_has_run_out_is_renewed_unseen(self, make_client):
        client = make_client().open()
        page, grants = client.page, []
        page.evaluate("sessionStorage.setItem('topolora.refresh', 'r1')")
        page.route(
            "**/api/images", lambda route: route.fulfill(status=401, json={}) if not grants else route.continue_()
        )

        def token(route):
            grants.append(route.request.post_data)
            route.fulfill(json={"access_token": "a2", "refresh_token": "r2", "token_type": "Bearer"})

        page.route("**/auth/token", token)
        page.reload()
        page.locator("#images button").first.wait_for(timeout=WAIT)
        assert grants == ["refresh_token=r1&grant_type=refresh_token"]
        assert page.evaluate("sessionStorage.getItem('topolora.refresh')") == "r2"
        assert not page.locator("#sign-in").is_visible()


class TestReview:
    def test_verdict_agreement_consensus_and_download(self, make_client, server):
        label = bens_label(server, "left--im3")
        ask(server, "/datastore/label?image=left--im3", method="PUT", **upload(label[::-1].copy(), user="Ann"))
        client = make_client().open().image("left--im3")
        page = client.page
        page.locator("#user").fill("Dora")
        page.locator("#comment").fill("upside down")
        page.locator("#reject").click()
        page.locator("#verdict").get_by_text("Rejected by Dora, version").wait_for()
        assert page.locator("#images button[data-image='left--im3'] .state").inner_text() == "Rejected"
        page.locator("#agree").click()
        page.locator("#agreement").get_by_text("Dice").wait_for()
        page.locator("#consensus").click()
        page.locator("#undo[title*=consensus]").wait_for(timeout=WAIT)
        page.locator("#assigned").fill("Dora")
        page.locator("#assigned").press("Tab")
        page.locator("#images-filter").select_option("mine")
        page.locator("#images li >> nth=1").wait_for(state="detached")
        page.locator("#images li").wait_for()  # the one that was assigned, once the server has it
        with page.expect_download() as started:
            page.locator("#download").click()
        with zipfile.ZipFile(started.value.path()) as archive:
            assert "left--im3.png" in archive.namelist()[-1]


class TestReach:
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_a_phone_shows_the_name_and_every_control(self, make_client, scheme):
        client = make_client(viewport={"width": 390, "height": 844}, has_touch=True, color_scheme=scheme).open()
        page = client.page
        name = page.locator("#image-name").evaluate("e => [e.parentElement.clientWidth, e.scrollWidth, e.clientWidth]")
        assert name[0] > 180 and name[1] <= name[2]
        outside = page.locator("header button, #tools button, .options button:visible").evaluate_all(
            "all => all.map(e => e.getBoundingClientRect())"
            ".filter(e => e.left < 0 || e.right > innerWidth || e.height < 36)"
        )
        assert outside == []
        for toggle, menu in (("#view", "#view-menu"), ("#refine", "#mask-menu")):
            page.locator(toggle).tap()
            box = page.locator(menu).bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= 390 and box["y"] > 300

    def test_the_first_control_skips_to_the_image(self, make_client):
        page = make_client().open().page
        skip = page.locator("#skip")
        assert skip.evaluate("e => e === document.querySelector('a[href], button, input, select, [tabindex]')")
        skip.focus()
        assert skip.evaluate("e => e.getBoundingClientRect().top >= 0")
        page.keyboard.press("Enter")
        assert page.locator("#viewer .openseadragon-canvas").evaluate("e => e === document.activeElement")
