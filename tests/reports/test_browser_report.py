"""The report in a real browser: sorting, filtering, switching, blending, keys, both colour schemes, 1,000 images."""

import io
import time
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tests.browsers import chromium
from tests.reports.fake_runs import SIZE, masks, write_fake_run
from topolora_monai.reports.html import write_report


@pytest.fixture(scope="module")
def browser():
    with chromium("pip install playwright") as started:
        yield started


@pytest.fixture(scope="module")
def twenty(tmp_path_factory):
    folder = tmp_path_factory.mktemp("twenty")
    names = [
        "<script>window.hacked=1</script>",
        '"><img src=x onerror=window.hacked=1>',
        *(f"im{n}" for n in range(3, 21)),
    ]
    rows = [write_fake_run(folder / run, names, seed) for seed, run in enumerate(("plain", "topology"))]
    return SimpleNamespace(
        path=write_report([folder / "plain", folder / "topology"], folder / "out"), rows=rows, names=names
    )


@pytest.fixture
def opened(browser, twenty):
    """The page of twenty images in two runs; whatever it asks for and says is kept."""
    page = browser.new_page(viewport={"width": 1200, "height": 900}, reduced_motion="reduce")
    page.requested, page.said = [], []
    page.on("request", lambda request: page.requested.append(request.url))
    page.on("console", lambda message: page.said.append(message.text))
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.goto(twenty.path.as_uri())
    yield page
    assert page.said == []
    page.close()


def names_shown(page):
    return page.locator("#table tbody tr:not([hidden]) th").all_inner_texts()


def column(page, number):
    return [
        float(text) for text in page.locator(f"#table tbody tr:not([hidden]) td:nth-child({number})").all_inner_texts()
    ]


def heading(page, title):
    return page.get_by_role("columnheader", name=title, exact=True)


class TestTable:
    def test_sorts_by_a_click_both_ways(self, opened, twenty):
        head = heading(opened, "Dice")
        assert head.get_attribute("aria-sort") == "none"
        head.get_by_role("button").click()
        assert head.get_attribute("aria-sort") == "ascending"
        expected = sorted(round(float(row["dice"]), 4) for rows in twenty.rows for row in rows)
        assert column(opened, 3) == pytest.approx(expected, abs=1e-4)
        head.get_by_role("button").click()
        assert head.get_attribute("aria-sort") == "descending"
        assert column(opened, 3) == pytest.approx(expected[::-1], abs=1e-4)

    def test_sorts_numbers_in_names_and_by_keyboard(self, opened):
        heading(opened, "clDice").get_by_role("button").press("Enter")
        assert heading(opened, "clDice").get_attribute("aria-sort") == "ascending"
        heading(opened, "Image").get_by_role("button").press("Space")
        assert heading(opened, "clDice").get_attribute("aria-sort") == "none"
        plain = [name for name in names_shown(opened) if name.startswith("im")]
        assert plain == [f"im{n}" for n in range(3, 21) for _ in range(2)]

    def test_filters_by_name_run_and_score(self, opened, twenty):
        opened.get_by_label("Name contains").fill("IM1")
        assert sorted(set(names_shown(opened))) == [f"im{n}" for n in range(10, 20)]
        opened.locator("#filter-run").select_option("1")
        opened.locator("#filter-score").select_option(label="Dice")
        opened.get_by_label("at most").fill("0.75")
        expected = [row["name"] for row in twenty.rows[1] if "im1" in row["name"] and float(row["dice"]) <= 0.75]
        assert expected
        assert names_shown(opened) == expected
        assert opened.locator("#shown").inner_text() == f"{len(expected)} of 40 rows"
        opened.get_by_role("button", name="Clear").click()
        opened.locator("#shown", has_text="40 of 40 rows").wait_for()


class TestColumns:
    @pytest.fixture
    def wide(self, browser, tmp_path):
        """A run with many scores on a narrow screen."""
        write_fake_run(tmp_path / "run", ["a", "b", "c"], further=True)
        page = browser.new_page(viewport={"width": 800, "height": 900})
        page.goto(write_report([tmp_path / "run"], tmp_path / "out").as_uri())
        yield page
        page.close()

    def heads(self, page):
        return [text.strip() for text in page.locator("#table thead th:visible").all_inner_texts()]

    def test_few_are_shown_and_the_page_is_no_wider_than_the_screen(self, wide):
        assert self.heads(wide) == ["Image", "Dice", "clDice", "Betti-0 error", "Betti-1 error", "Boundary F1", "HD95",
                                    "Precision", "Recall", "Broken links", "False links", "False parts"]  # fmt: skip
        assert wide.evaluate("document.documentElement.scrollWidth") <= 800
        wide.locator("#columns summary").click()
        wide.get_by_role("button", name="All", exact=True).click()
        assert len(self.heads(wide)) == 21
        assert wide.evaluate("document.documentElement.scrollWidth") <= 800

    def test_one_can_be_added_and_sorted_by(self, wide):
        wide.locator("#columns summary").click()
        wide.get_by_role("checkbox", name="ASSD").check()
        assert wide.locator("#columns-shown").inner_text() == "12 of 20 scores"
        head = heading(wide, "ASSD")
        place = 1 + head.evaluate("head => head.cellIndex")
        head.get_by_role("button").click()
        values = column(wide, place)
        assert values == sorted(values)
        wide.get_by_role("checkbox", name="ASSD").uncheck()
        assert not head.is_visible()
        assert wide.locator(f"#table tbody tr td:nth-child({place}):visible").count() == 0
        wide.get_by_role("button", name="As at first").click()
        assert wide.locator("#columns-shown").inner_text() == "11 of 20 scores"

    def test_scripts_off_shows_all(self, browser, wide):
        context = browser.new_context(java_script_enabled=False)
        page = context.new_page()
        page.goto(wide.url)
        assert page.locator("#table thead th:visible").count() == 21
        context.close()


def look(page):
    """What is really painted where the picture is, as (SIZE, SIZE, 3)."""
    page.evaluate("""async () => {
        const shown = [...document.querySelectorAll('#frame img')].filter(image => !image.hidden);
        await Promise.all(shown.map(image => image.decode()));
        for (let frame = 0; frame < 3; frame++) await new Promise(requestAnimationFrame);
    }""")
    shot = Image.open(io.BytesIO(page.locator("#frame").screenshot())).convert("RGB")
    return np.asarray(shot.resize((SIZE, SIZE), Image.Resampling.BOX)).astype(int)


class TestViewer:
    def test_switches_what_is_painted(self, opened):
        truth, prediction = (mask[0] for mask in masks())
        opened.locator("#top").select_option("")
        opened.locator("#marks").uncheck()
        opened.get_by_role("radio", name="truth").check()
        assert (look(opened)[..., 0] > 127).tolist() == truth.tolist()
        opened.get_by_role("radio", name="prediction").check()
        assert (look(opened)[..., 0] > 127).tolist() == prediction.tolist()
        assert opened.locator("#below").get_attribute("alt").startswith("prediction of ")
        assert opened.locator("#above").is_hidden()

    def test_blends_two_by_the_amount(self, opened):
        truth, prediction = (mask[0] for mask in masks())
        opened.locator("#marks").uncheck()
        opened.get_by_role("radio", name="truth").check()
        opened.locator("#top").select_option("prediction")
        missed = truth & ~prediction
        for amount in (0, 40, 100):
            opened.locator("#amount").fill(str(amount))
            assert look(opened)[missed].mean() == pytest.approx(255 * (1 - amount / 100), abs=12)
        assert opened.locator("#amount-value").inner_text() == "100 %"
        opened.locator("#amount").press("ArrowLeft")
        assert opened.locator("#amount-value").inner_text() == "95 %"

    def test_marks_stand_out_on_the_break_and_the_false_part(self, opened):
        opened.locator("#top").select_option("")
        opened.get_by_role("radio", name="errors").check()
        marked = look(opened)
        opened.get_by_label("Mark broken and false links").uncheck()
        changed = np.abs(marked - look(opened)).max(axis=2) > 60
        rows, columns = np.nonzero(changed)
        assert changed[:, 8:24].any()
        assert changed[22:29, 18:26].any()  # around the false part
        near = (np.abs(rows - 10) < 9) & (np.abs(columns - 15.5) < 9)
        spot = (np.abs(rows - 25) < 5) & (np.abs(columns - 21.5) < 5)
        assert near.any()
        assert (near | spot).all()  # and nowhere else
        assert opened.locator("#marking").is_hidden()

    def test_keys_do_all_of_it(self, opened, twenty):
        heading(opened, "clDice").get_by_role("button").click()
        order = [twenty.names.index(name) for name in names_shown(opened)]
        stage = opened.locator("#stage")
        stage.focus()
        first = opened.locator("#image").input_value()
        opened.keyboard.press("ArrowRight")
        opened.keyboard.press("ArrowRight")
        opened.locator("#status", has_text="3 of 40").wait_for()
        place = int(opened.locator("#image").input_value())
        assert place % 20 == order[2]
        opened.keyboard.press("ArrowLeft")
        opened.keyboard.press("ArrowLeft")
        assert opened.locator("#image").input_value() == first
        opened.keyboard.press("3")
        assert opened.get_by_role("radio", name="prediction").is_checked()
        opened.keyboard.press("b")
        assert opened.get_by_role("radio", name="errors").is_checked()
        assert opened.locator("#top").input_value() == "prediction"
        opened.keyboard.press("-")
        assert opened.locator("#amount").input_value() == "65"
        opened.keyboard.press("m")
        assert not opened.locator("#marks").is_checked()
        assert stage.evaluate("stage => stage === document.activeElement")

    def test_focus_stays_on_the_layer_chosen_by_arrow_keys(self, opened):
        opened.get_by_role("radio", name="input").focus()
        opened.keyboard.press("ArrowDown")
        opened.keyboard.press("ArrowDown")
        assert opened.evaluate("document.activeElement.value") == "prediction"
        assert opened.locator("#below").get_attribute("src").endswith("prediction.png")

    def test_name_in_the_table_opens_its_image(self, opened):
        opened.get_by_role("button", name="im7", exact=True).nth(1).click()
        assert opened.locator("#status").inner_text().startswith("im7 \u2013 topology")
        assert opened.locator("#below").get_attribute("src").startswith("report_files/1/0006/")
        assert opened.evaluate("document.activeElement.id") == "stage"

    def test_other_run_can_be_chosen_and_laid_over(self, opened):
        opened.get_by_role("button", name="im7", exact=True).first.click()
        opened.locator("#top").select_option(label="prediction of topology")
        assert opened.locator("#above").get_attribute("src") == "report_files/1/0006/prediction.png"
        opened.locator("#run").select_option(label="topology")
        assert opened.locator("#below").get_attribute("src").startswith("report_files/1/0006/")
        opened.locator("#next").click()
        assert opened.locator("#status").inner_text().startswith("im8 \u2013 topology")

    def test_sizes(self, opened):
        opened.locator("#zoom").select_option("4")
        assert opened.locator("#frame").bounding_box()["width"] == 4 * SIZE


class TestGallery:
    def test_worst_are_first_by_any_score_and_run(self, opened, twenty):
        cards = opened.locator("#gallery li:not([hidden]) .card-score")
        worst = sorted(float(row["cldice"]) for rows in twenty.rows for row in rows)
        assert cards.all_text_contents() == [f"clDice {value:.4f}" for value in worst[:24]]
        opened.locator("#worst-by").select_option("betti_0_error")
        most = sorted((int(row["betti_0_error"]) for rows in twenty.rows for row in rows), reverse=True)
        assert cards.all_text_contents() == [f"Betti-0 error {value}" for value in most[:24]]
        opened.locator("#worst-run").select_option("1")
        of_run = sorted((int(row["betti_0_error"]) for row in twenty.rows[1]), reverse=True)
        assert cards.all_text_contents() == [f"Betti-0 error {value}" for value in of_run]
        opened.locator("#worst-run").select_option("")
        opened.get_by_role("button", name="Show all 40").click()
        assert cards.count() == 40


class TestPage:
    def test_untrusted_names_run_nothing(self, opened, twenty):
        opened.get_by_role("button", name=twenty.names[0], exact=True).first.click()
        assert twenty.names[0] in opened.locator("#status").inner_text()
        opened.get_by_role("button", name=twenty.names[1], exact=True).first.click()
        assert opened.evaluate("window.hacked") is None

    def test_asks_for_nothing_but_files_beside_it(self, opened, twenty):
        opened.evaluate("scrollTo(0, document.body.scrollHeight)")
        opened.wait_for_timeout(200)
        home = twenty.path.parent.as_uri()
        assert len(opened.requested) > 3
        assert all(url.startswith((home, "data:")) for url in opened.requested)

    def test_every_control_has_a_name(self, opened):
        unnamed = opened.evaluate(
            "[...document.querySelectorAll('button, select, input')].filter(e => !e.textContent.trim() && "
            "![...(e.labels ?? [])].some(label => label.textContent.trim())).map(e => e.id)"
        )
        assert unnamed == []

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_both_colour_schemes_can_be_read(self, opened, scheme):
        opened.emulate_media(color_scheme=scheme)
        assert min(contrast(opened)) >= 4.5
        dark = opened.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
        assert dark == (scheme == "dark")
        opened.locator("#theme").select_option("light" if dark else "dark")
        assert (opened.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)") != dark
        assert min(contrast(opened)) >= 4.5

    def test_paper_is_white_and_without_controls(self, opened):
        opened.emulate_media(media="print", color_scheme="dark")
        assert opened.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        for hidden in ("nav", "#controls", "#filter", "#all-cards"):
            assert not opened.locator(hidden).is_visible()
        assert opened.locator("#table tbody tr").last.is_visible()
        opened.set_viewport_size({"width": 688, "height": 1017})  # A4 within its margins, at 96 dots an inch
        assert opened.evaluate("document.documentElement.scrollWidth") <= 688
        cut = opened.evaluate(
            "[...document.querySelectorAll('figure, tr, #gallery li, #stage')].filter("
            "e => e.checkVisibility() && getComputedStyle(e).breakInside != 'avoid').map(e => e.outerHTML.slice(0, 80))"
        )
        assert cut == []


def contrast(page):
    """Contrast of the page's text colours with its two grounds (WCAG 2), sorted."""
    colours = page.evaluate(
        "['--text', '--quiet', '--link', '--c1', '--ground', '--panel']"
        ".map(name => getComputedStyle(document.documentElement).getPropertyValue(name).trim())"
    )

    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    *texts, ground, panel = map(luminance, colours)
    pairs = [sorted((text, back)) for text in texts for back in (ground, panel)]
    return sorted((high + 0.05) / (low + 0.05) for low, high in pairs)


def test_thousand_images_load_few_pictures(browser, tmp_path, record_property):
    names = [f"image {number}" for number in range(1000)]
    rows = write_fake_run(tmp_path / "run", names)
    path = write_report([tmp_path / "run"], tmp_path / "out")
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    requested = []
    page.on("request", lambda request: requested.append(request.url))
    start = time.perf_counter()
    page.goto(path.as_uri())
    seconds = time.perf_counter() - start
    record_property("seconds", seconds)
    print(f"1,000 images: {path.stat().st_size / 1e6:.1f} MB of page, loaded in {seconds:.2f} s (bound: 3 s)")
    pictures = [url for url in requested if url.endswith((".png", ".svg"))]
    assert 3 <= len(pictures) <= 40
    assert page.locator("#table tbody tr").count() == 1000
    heading(page, "clDice").get_by_role("button").click()
    values = column(page, 3)
    assert values == sorted(values)
    page.get_by_label("Name contains").fill("image 99")
    assert page.locator("#shown").inner_text() == "11 of 1000 rows"
    worst = min(rows, key=lambda row: float(row["cldice"]))["name"]
    assert page.locator("#gallery li:not([hidden]) .card-name").first.inner_text() == worst
    page.get_by_role("button", name="Show all 1000").click()
    page.wait_for_timeout(300)
    assert sum(url.endswith("small.png") for url in requested) < 200
    page.close()
