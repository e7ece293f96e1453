"""The pages in a real browser: what they show, what keys and clicks do, and that nothing leaves this machine."""

import gzip
import re

import pytest

from tests.browser.reading import NARROW, ROOT, everybody_can_read, expect, fit_a_narrow_screen, opened, rows
from tests.browser.sample import COMPONENTS, HOSTILE


@pytest.fixture
def run(page) -> str:
    """The hash of the finished run's dictionary."""
    return page.get_by_role("link", name="specimen-8").get_attribute("href")


def first(page, column: int) -> str:
    return rows(page).first.locator("td").nth(column).inner_text()


def test_the_token_leaves_the_address_bar(page, address: str) -> None:
    assert page.url in (address + "/", address + "/#/")


def test_the_runs_with_their_figures_and_what_is_missing(page) -> None:
    expect(page.get_by_role("heading", name="Runs")).to_be_visible()
    expect(page.get_by_text("89.3%").first).to_be_visible()
    for baseline in ("PCA", "Neurons", "Random"):
        expect(page.get_by_text(baseline).first).to_be_visible()
    expect(page.get_by_text("Stopped while harvesting activations")).to_be_visible()
    expect(page.get_by_text("Its run.json cannot be read")).to_be_visible()


def test_the_dictionary_with_its_figures_training_and_components(page, run: str) -> None:
    opened(page, run)
    expect(page.get_by_role("heading", name="specimen-8")).to_be_visible()
    expect(page.get_by_role("img", name=re.compile("Explained variance over 4,000 steps"))).to_be_visible()
    expect(page.get_by_role("img", name=re.compile("Scatter of density against score for 288 live"))).to_be_visible()
    expect(page.get_by_role("status").first).to_have_text("300 components")
    assert rows(page).count() < 60, "only the rows in view are in the document"
    page.locator(".scroller").evaluate("it => it.scrollTo(0, it.scrollHeight)")
    expect(page.get_by_text("Never fired").first).to_be_visible()


def test_sorting_goes_both_ways_and_stands_in_the_address(page, run: str) -> None:
    opened(page, run)
    page.get_by_role("button", name="Index").click()
    expect(page.get_by_role("columnheader", name="Index")).to_have_attribute("aria-sort", "ascending")
    assert (first(page, 0), "sort=index" in page.url) == ("0", True)
    page.get_by_role("button", name="Index").click()
    expect(rows(page).first.locator("td").first).to_have_text(str(COMPONENTS - 1))
    page.reload()
    expect(rows(page).first.locator("td").first).to_have_text(str(COMPONENTS - 1))
    page.get_by_role("button", name="Fires").click()
    expect(rows(page).first.locator("td").nth(3)).to_have_text("1 in 5")


def test_search_by_words_and_by_token(page, run: str) -> None:
    opened(page, run)
    expect(rows(page).first).to_be_visible()
    page.keyboard.press("/")
    page.keyboard.type("keywor")
    expect(page.get_by_text(re.compile(r"^4\d of 300 components"))).to_be_visible()
    assert "keyword" in first(page, 1) and "words=keywor" in page.url
    page.get_by_label("Words of the explanation").fill("zebra")
    expect(page.get_by_text("No component answers to this.")).to_be_visible()
    page.get_by_label("Words of the explanation").fill("")
    page.get_by_label("Token it peaks on").fill("↵")
    expect(rows(page).first.locator(".token")).to_have_text("↵")
    page.get_by_role("button", name="Show all").click()
    expect(page.get_by_text("300 components", exact=True)).to_be_visible()
    expect(page.get_by_label("Token it peaks on")).to_have_value("")


def test_brushing_the_scatter_narrows_the_table(page, run: str) -> None:
    opened(page, run)
    box = page.locator("canvas").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.55, box["y"] + 8)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.95, box["y"] + 60, steps=4)
    page.mouse.up()
    expect(page.get_by_text(re.compile(r"^\d\d of 300 components"))).to_be_visible()
    assert "box=" in page.url
    assert float(first(page, 2)) > 0.9
    page.reload()
    expect(page.get_by_text(re.compile(r"^\d\d of 300 components"))).to_be_visible()


def test_a_click_on_a_point_opens_it(page, run: str) -> None:
    opened(page, run + "?words=keyword")
    canvas = page.locator("canvas")
    box = canvas.bounding_box()
    for share in (0.94, 0.95, 0.96, 0.97):
        canvas.hover(position={"x": box["width"] * share, "y": 16})
        if page.locator(".hint").count():
            page.mouse.down()
            page.mouse.up()
            break
    expect(page).to_have_url(re.compile("component/0"))


def test_the_keys_walk_the_same_list_on_both_pages(page, run: str) -> None:
    opened(page, run + "?sort=density&order=down")
    expect(rows(page).first).to_be_visible()
    page.keyboard.press("j")
    page.keyboard.press("j")
    expect(page.locator("tr[aria-current]")).to_contain_text("1 in 16")
    page.keyboard.press("k")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Component 1", exact=True)).to_be_visible()
    expect(page.get_by_text("2 of 300")).to_be_visible()
    page.keyboard.press("j")
    expect(page.get_by_text("3 of 300")).to_be_visible()
    page.keyboard.press("k")
    page.keyboard.press("k")
    expect(page.get_by_text("Component 0", exact=True)).to_be_visible()
    page.keyboard.press("u")
    expect(page).to_have_url(re.compile("sort=density"))
    expect(rows(page).first).to_be_visible()


def test_one_component_with_all_that_is_known(page, run: str) -> None:
    opened(page, f"{run}/component/42")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Fires on the token “def”")
    expect(page.get_by_role("img", name=re.compile(r"Score 0\.\d\d from .* chance 0.50"))).to_be_visible()
    for part in ("Examples", "Try a text", "Activity", "What it writes", "Neighbours", "Where the sentence comes from"):
        expect(page.get_by_role("heading", name=part)).to_be_visible()
    for group in ("Strongest", "Weakest fifth"):
        expect(page.get_by_role("region", name=group, exact=True)).to_be_visible()
    expect(page.get_by_text("token is 'def'")).to_be_visible()
    assert page.locator(".near a").count() == 10


def test_examples_show_values_newlines_and_the_whole_window(page, run: str) -> None:
    opened(page, f"{run}/component/42")
    example = page.locator(".code").first
    token = example.locator(".fires.peak")
    token.hover()
    expect(page.get_by_role("tooltip")).to_have_text(re.compile(r"def\s+\d+\.\d+"))
    token.focus()
    page.keyboard.press("ArrowRight")
    expect(example.locator(".fires").nth(1)).to_be_focused()
    assert "↵\n" in example.text_content()
    short = len(example.text_content())
    page.get_by_role("button", name="Whole window").first.click()
    expect(page.get_by_role("button", name="Shorter")).to_be_visible()
    assert len(example.text_content()) > short
    page.get_by_role("button", name="Compact").click()
    expect(page.locator(".code.compact").first).to_be_visible()
    assert "layout=compact" in page.url and "\n" not in example.text_content()


def test_what_others_wrote_is_text_and_never_markup(page, run: str) -> None:
    opened(page, f"{run}/component/{HOSTILE}")
    expect(page.get_by_role("heading", level=1)).to_have_text("<img src=x onerror=alert(1)> in a tag")
    opened(page, f"{run}?words=onerror")
    expect(rows(page).first).to_contain_text("<img src=x onerror=alert(1)>")
    assert page.locator("img[src=x]").count() == 0


def test_a_typed_text_fires_live(page, run: str) -> None:
    opened(page, f"{run}/component/42")
    page.get_by_label("Text to try").fill("x\ndef area(width):\n    return width")
    page.get_by_role("button", name="Run").click()
    expect(page.locator(".answer .fires").first).to_have_text(re.compile("def"))
    expect(page.get_by_text(re.compile(r"Strongest 3.00, \d+% of its maximum"))).to_be_visible()
    page.get_by_label("Text to try").fill("nothing")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_text("It does not fire here.")).to_be_visible()


def test_the_page_says_that_the_model_is_loading_or_why_it_did_not(page, run: str) -> None:
    page.route("**/session", lambda route: route.fulfill(json={"state": "loading", "message": ""}))
    page.route("**/fire", lambda route: None)
    opened(page, f"{run}/component/42")
    page.get_by_label("Text to try").fill("def")
    page.get_by_role("button", name="Run").click()
    expect(page.get_by_text("The model is being loaded.")).to_be_visible()
    page.unroute("**/fire")
    page.route(
        "**/fire",
        lambda route: route.fulfill(status=503, json={"detail": "The model of this run cannot be loaded: no."}),
    )
    page.reload()
    page.get_by_label("Text to try").fill("def")
    page.get_by_role("button", name="Run").click()
    expect(page.get_by_text("The model of this run cannot be loaded: no.")).to_be_visible()


def test_from_a_text_to_its_components(page, run: str) -> None:
    opened(page, f"{run}/text")
    page.get_by_role("button", name="Take an example").click()
    page.get_by_role("button", name="Run").click()
    expect(page.get_by_role("heading", name=re.compile("components on the whole text"))).to_be_visible()
    page.get_by_role("button", name=re.compile(r"^·width, ")).click()
    expect(page.get_by_role("heading", name=re.compile("on ·width"))).to_be_visible()
    assert "at=" in page.url
    page.reload()
    expect(page.get_by_role("heading", name=re.compile("on ·width"))).to_be_visible()
    page.get_by_role("region", name="Components").get_by_role("link").first.hover()
    assert 0 < page.locator(".tokens .fires").count() < 8
    page.get_by_role("region", name="Components").get_by_role("link").first.click()
    expect(page).to_have_url(re.compile("component/"))


@pytest.mark.parametrize(
    ("hash", "sentence"),
    [
        ("#/run/nothing", "There is no run 'nothing'"), ("#/run/nothing/text", "There is no run 'nothing'"),
        ("#/run/nothing/component/3", "There is no run 'nothing'"), ("#/elsewhere", "There is no such page"),
        ("{run}/component/300", "component 300 is outside 0..299"), ("{run}/component/24", "Never fired on this text"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_told(page, run: str, hash: str, sentence: str) -> None:
    opened(page, hash.format(run=run))
    expect(page.get_by_text(sentence).first).to_be_visible()


def test_an_unfinished_run_is_shown_as_far_as_it_is(page, address: str) -> None:
    cards = page.evaluate("fetch('api/runs').then(answer => answer.json())")["runs"]
    id = next(card["id"] for card in cards if card["state"] == "unfinished")
    opened(page, f"#/run/{id}")
    expect(page.get_by_text("There are no components to look at yet.")).to_be_visible()


def test_a_server_that_is_gone_is_told(page, run: str) -> None:
    page.route("**/api/runs/**", lambda route: route.fulfill(status=500, body=""))
    opened(page, run)
    expect(page.get_by_text("The server answered 500.")).to_be_visible()


PAGES = (
    "#/",
    "{run}",
    "{run}?words=keyword",
    "{run}/component/42",
    "{run}/component/24",
    "{run}/text?text=def+area%28self%29",
)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_everybody_can_read_every_page(page, run: str, theme: str) -> None:
    everybody_can_read(page, [hash.format(run=run) for hash in PAGES], theme)


def test_a_narrow_screen_is_not_scrolled_sideways(page, run: str) -> None:
    fit_a_narrow_screen(page, [hash.format(run=run) for hash in PAGES])


def test_a_narrow_table_keeps_its_explanations_readable(page, run: str) -> None:
    page.set_viewport_size(NARROW)
    opened(page, run)
    assert rows(page).first.locator(".what").bounding_box()["width"] > 120


def test_the_theme_is_chosen_and_remembered(page) -> None:
    page.get_by_role("button", name=re.compile("Theme: auto")).click()
    page.get_by_role("button", name=re.compile("Theme: light")).click()
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")


def test_the_first_page_is_small(built: None) -> None:
    scripts = (ROOT / "microtome" / "browser" / "static" / "assets").glob("*.js")
    assert sum(len(gzip.compress(script.read_bytes())) for script in scripts) < 150_000
