"""Every noun shows itself: as plain text, and as HTML that is escaped, fetches nothing and reads without colour."""

import itertools
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

import microtome as mt
from microtome.core.codes import DenseCodes, TopCodes
from microtome.core.effects import Grid
from microtome.core.inputs import Arrays
from microtome.core.linear import Linear
from microtome.core.site import Site
from microtome.core.trace import Trace
from microtome.notebook import as_html, cards, describe
from microtome.notebook.page import Cell, Page, Sentence, Strip, Table, cell
from microtome.store.catalog import Catalog
from microtome.store.records import Checked, CheckedSite
from tests import toys
from tests.browser import sample

HOSTILE = "<script>alert(1)</script>"
SITE = Site("resid_post.1", "batch pos d")


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    folder = tmp_path_factory.mktemp("shown") / "catalog"
    sample.write_catalog(folder)
    return Catalog(folder)


def directions(count: int, generator: torch.Generator) -> Linear:
    read = torch.randn(count, toys.WIDTH, generator=generator)
    return Linear(SITE, SITE, read, read)


def nouns(network, catalog: Catalog) -> dict[str, object]:
    """One of each."""
    generator = torch.Generator().manual_seed(0)
    inputs, dictionary = mt.Tokens.of(toys.RAGGED), directions(6, generator)
    sites = network.sites("resid_post.*")
    trace = network.run(inputs, read=sites)
    shown, measure = directions(sample.COMPONENTS, generator), mt.activity(dictionary[1])
    cards.remember(shown, catalog)
    edits = [mt.zero(site.at(pos=pos)) for site in sites for pos in (0, 1)]
    effects = mt.effects(network, inputs, edits, mt.cross_entropy())
    checked = Checked(
        model="m", family="f", ok=False, lacking={"q.0": "why"},
        sites=[CheckedSite(site="z.0", shape=[1, 2], identity="a = b", error=0.5, ok=False, reason="off by half")],
    )  # fmt: skip
    return {
        "model": network, "site": SITE.at(pos=-1), "sites": sites, "trace": trace, "tokens": inputs,
        "arrays": Arrays((torch.ones(2, 3),)), "component": dictionary[2], "explained": shown[3], "dictionary": shown,
        "codes": trace.codes(dictionary), "edit": mt.ablate(dictionary[1]), "edits": edits, "measure": measure,
        "effects": effects, "effect": effects[0], "grid": effects.grid("layer", "pos"), "catalog": catalog,
        "summary": sample.summary(), "checked": checked,
    }  # fmt: skip


def test_every_noun_has_a_page_of_its_own(network, catalog) -> None:
    for name, thing in nouns(network, catalog).items():
        assert str(describe(thing)).strip() and " object at 0x" not in str(describe(thing)), name


TAGS = {
    "style", "div", "h4", "p", "code", "table", "caption", "thead", "tbody", "tr", "th", "td", "span", "mark", "small",
}  # fmt: skip
ATTRIBUTES = {"class", "style", "title", "scope"}


class Seen(HTMLParser):
    """The tags and attributes of a page, and everything that is style."""

    def __init__(self) -> None:
        super().__init__()
        self.tags, self.attributes, self.styles = set(), set(), []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.styles += [value for name, value in attrs if name == "style"]

    def handle_data(self, data: str) -> None:
        if self.rawdata[: self.rawdata.find("</style>")].endswith(data):
            self.styles.append(data)


def seen(drawn: str) -> Seen:
    parser = Seen()
    parser.feed(drawn)
    return parser


def test_a_page_has_no_script_and_fetches_nothing(network, catalog) -> None:
    for name, thing in nouns(network, catalog).items():
        page = seen(as_html(thing))
        assert page.tags <= TAGS and page.attributes <= ATTRIBUTES, name
        assert page.styles and not re.search(r"url\(|@import|expression", " ".join(page.styles)), name


def test_whatever_a_text_holds_is_escaped() -> None:
    everywhere = Page.of(
        Sentence(HOSTILE), Sentence(f"`{HOSTILE}`"), Strip([Cell(HOSTILE, 0.5, f'"{HOSTILE}')], 0, HOSTILE),
        Table((HOSTILE,), [[Cell(HOSTILE, -1.0, f'"{HOSTILE}')]], HOSTILE),
    )  # fmt: skip
    drawn = everywhere._repr_html_()
    assert "<script" not in drawn and drawn.count("&lt;script&gt;") == 9
    assert 'title="&quot;' in drawn


def test_names_that_come_from_elsewhere_are_escaped() -> None:
    site = Site(HOSTILE, "batch d")
    trace = Trace(Arrays((torch.ones(2, 3),)), {HOSTILE: torch.ones(2, 3)}, {HOSTILE: site})
    for thing in (site, trace, mt.zero(site), mt.Measure(lambda t: t[site], (site,), HOSTILE)):
        assert "<script" not in as_html(thing)


def test_text_on_the_deepest_shade_keeps_its_contrast() -> None:
    from microtome.notebook.html import BLUE, DEEPEST, ORANGE

    for colour, (ground, ink) in itertools.product((ORANGE, BLUE), ((255, 0), (17, 255))):
        seen = [DEEPEST * c + (1 - DEEPEST) * ground for c in colour]
        assert contrast(seen, [ink] * 3) >= 4.5


def contrast(one: list[float], other: list[float]) -> float:
    """WCAG 2.2's contrast ratio."""

    def luminance(colour: list[float]) -> float:
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in (x / 255 for x in colour)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_a_grid_writes_its_numbers_and_shades_by_sign() -> None:
    grid = Grid(("layer", [0, 1]), ("pos", [0, 1]), torch.tensor([[0.5, -0.25], [torch.nan, 0.0]]))
    rows = describe(grid).pieces[0].rows
    assert [[cell(c).text for c in row] for row in rows] == [["0", "+0.50", "-0.25"], ["1", "", "+0.00"]]
    assert [cell(c).shade for c in rows[0][1:]] == [1.0, -0.5]
    assert "layer 0, pos 1: -0.25" in as_html(grid)


def test_a_grid_of_zeros_is_not_shaded() -> None:
    grid = Grid(("layer", [0]), ("pos", [0]), torch.zeros(1, 1))
    assert "background" not in as_html(grid).split("</style>")[1]


def test_a_component_without_a_catalogue_shows_its_neighbours(generator) -> None:
    read = torch.eye(toys.WIDTH)[:3]
    read[2] = read[0] + 0.1 * read[1]
    page = str(describe(Linear(SITE, SITE, read, read)[0]))
    assert "reads `resid_post.1`" in page
    assert re.search(r"\n +2 +\+1\.00|\n +2 +\+0\.99", page)


def test_a_component_that_writes_nothing_is_compared_by_what_it_reads(generator) -> None:
    assert "writes nothing" in str(describe(Linear(SITE, None, torch.eye(4))[0]))


def test_a_component_with_a_catalogue_shows_its_evidence(network, catalog) -> None:
    shown = nouns(network, catalog)["explained"]
    page, example = str(describe(shown)), next(catalog.examples(3))
    assert "balanced accuracy" in page and "promotes" in page
    assert f"«{example.tokens[example.position].strip()}" in page.replace("« ", "«")


def test_a_catalogue_of_another_size_is_refused(catalog, generator) -> None:
    with pytest.raises(mt.Refusal, match="do not belong together"):
        mt.show(directions(2, generator), catalog=catalog)


def test_a_catalogue_says_nothing_of_a_site(catalog) -> None:
    with pytest.raises(mt.Refusal, match="a dictionary or a component"):
        mt.show(SITE, catalog=catalog)


def test_show_prints_where_there_is_no_notebook(capsys, network) -> None:
    mt.show(network.sites("resid_post.*"))
    assert capsys.readouterr().out.splitlines()[1].startswith("resid_post.0")


def test_what_is_not_a_noun_is_shown_as_python_says_it(capsys) -> None:
    mt.show(3.5)
    assert capsys.readouterr().out == "3.5\n"


def test_long_tables_are_cut_and_say_so() -> None:
    page = describe([Site(f"s.{i}") for i in range(100)])
    assert str(page).rstrip().endswith("and 60 more")


def test_codes_name_the_strongest_and_leave_out_the_silent() -> None:
    codes = TopCodes(torch.tensor([[[1.0, 3.0], [0.0, 0.0]]]), torch.tensor([[[7, 2], [0, 1]]]), 9)
    assert [row[1] for row in describe(codes).pieces[1].rows] == ["2 (3), 7 (1)", "none"]
    assert "9 components at 1 × 2 places" in str(describe(codes))
    assert "1 × 2 places" in str(describe(DenseCodes(torch.ones(1, 2, 3))))


def test_masked_scores_do_not_count_in_a_trace() -> None:
    scores = torch.tensor([[2.0, torch.finfo(torch.float32).min]])
    trace = Trace(Arrays((scores,)), {"s": scores}, {"s": Site("s", "batch d")})
    assert describe(trace).pieces[1].rows[0][-1] == "2"


def test_tokens_are_read_by_a_model(llama_folder: Path, capsys) -> None:
    model = mt.load(llama_folder, verify=False)
    mt.show(model.inputs(["ab\n", "c"]), model=model)
    assert capsys.readouterr().out == "  <s>ab↵\n  <s>c\n"


def test_a_model_without_a_tokenizer_cannot_read(network) -> None:
    with pytest.raises(mt.Refusal, match="has no tokenizer"):
        mt.show(mt.Tokens.of(toys.RAGGED), model=network)
