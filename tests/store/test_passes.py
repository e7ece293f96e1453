"""How activations become rows: what numbers them is read off the site's axes, and padding never comes through."""

import pytest
import torch

from microtome.core.errors import NoSuchSite, NotFinite, Refusal
from microtome.core.inputs import Arrays, Tokens
from microtome.core.rows import Rows
from microtome.core.site import Site
from microtome.models.hooked import HookedModel
from microtome.store.filters import Positions
from microtome.store.passes import Inspection, Reader, after, batched, rows_of
from tests import toys
from tests.store.echo import Echo, windows

ALL = ()


@pytest.mark.parametrize("left", [False, True])
def test_rows_are_the_real_tokens_in_the_order_of_the_batch(left: bool) -> None:
    inputs = toys.rows(ragged=True, left=left)
    x = torch.randn(3, 7, 4)
    expected = [x[row, column] for row in range(3) for column in range(7) if inputs.mask[row, column]]
    assert torch.equal(rows_of(Site("a"), x, inputs), torch.stack(expected))


def test_heads_are_joined_and_channels_come_last() -> None:
    heads, picture = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 4, 5)
    tokens = Tokens.of([[1] * 5] * 2)
    joined = rows_of(Site("z", "batch head pos d"), heads, tokens)
    assert torch.equal(joined[7], heads[1, :, 2].flatten())
    assert torch.equal(rows_of(Site("z", "batch pos head d"), heads.transpose(1, 2), tokens), joined)
    places = rows_of(Site("conv", "batch d y x"), picture, Arrays((picture,)))
    assert torch.equal(places[1 * 20 + 2 * 5 + 3], picture[1, :, 2, 3]) and places.shape == (40, 3)
    flat = torch.randn(6, 3)
    assert torch.equal(rows_of(Site("fc", "batch d"), flat, Arrays((flat,))), flat)


@pytest.mark.parametrize(
    ("site", "words"),
    [
        (Site("p", "batch head query key"), "has the axes 'batch head query key'; choose a site with one vector"),
        (Site("p", "batch pos"), "has the axes 'batch pos'"),
        (Site("p", "pos d"), "has the axes 'pos d'"),
        (Site("p").at(pos=-1), "is a part of 'p'; give the whole site, and choose positions by a filter"),
    ],
)
def test_what_holds_no_rows_is_refused(site: Site, words: str) -> None:
    with pytest.raises(Refusal, match=words):
        rows_of(site, torch.zeros([2] * len(site.axes.split())), toys.rows())


@pytest.mark.parametrize("left", [False, True])
def test_a_pass_is_what_a_run_gives_without_padding_and_position_0(network: HookedModel, left: bool) -> None:
    inputs, names = toys.rows(ragged=True, left=left), ["resid_post.0", "mlp_act.1"]
    rows = Reader(network, names, precision=torch.float32).read(inputs).rows()
    trace = network.run(inputs, read=network.sites("*"))
    for name in names:
        alone = [trace.rows(slice(i, i + 1))[network.site(name).at(pos=slice(1, None))][0] for i in range(3)]
        torch.testing.assert_close(rows[name], torch.cat(alone))


def test_one_forward_pass_serves_all_sites_and_the_layers_after_the_last_are_never_run() -> None:
    network, calls = toys.residual(), []
    network.module.layers[0].register_forward_hook(lambda *_: calls.append(0))
    network.module.layers[1].register_forward_hook(lambda *_: calls.append(1))
    Reader(network, ["resid_post.0", "mlp_in.0", "embed"]).read(toys.rows())
    assert calls == [0]


def test_a_pass_copies_nothing_where_the_layout_allows_it(network: HookedModel) -> None:
    assert Reader(network, ["resid_post.0"], precision=torch.float32).read(toys.rows()).copied == 0
    assert Reader(Echo(), "heads", ALL, precision=torch.float32).read(toys.rows()).copied == 15


def test_sites_that_cannot_be_read_together_are_refused(network: HookedModel) -> None:
    with pytest.raises(NoSuchSite, match="no site 'resid_pots.0'; did you mean 'resid_post.0'"):
        Reader(network, "resid_pots.0")
    with pytest.raises(NoSuchSite, match="resid_pots.0"):
        Reader(network, Site("resid_pots.0"))
    with pytest.raises(Refusal, match="give one site or several, each once, not none"):
        Reader(network, [])
    with pytest.raises(Refusal, match="each once, not embed, embed"):
        Reader(network, ["embed", "embed"])
    with pytest.raises(
        Refusal, match=r"do not stand for the same places: echo \(batch pos d\), picture \(batch d y x\)"
    ):
        Reader(Echo(), ["echo", "picture"])
    picture = torch.randn(2, 3, 4, 4)
    with pytest.raises(Refusal, match=r"same places \(picture: 2 x 4 x 4, small: 2 x 2 x 2\); read them apart"):
        Reader(Echo(), ["picture", "small"]).read(Arrays((picture,)))


def test_what_is_not_finite_is_named_with_its_window_but_where_it_is_dropped_it_does_not_matter() -> None:
    reader = Reader(Echo(spoil=5), ["twice", "echo"])
    with pytest.raises(NotFinite, match="twice holds values that are not finite in window 5, place 1; choose another"):
        list(reader.passes(windows(9), 3))
    inputs = Tokens.of([[5, 1, 2]])
    assert len(reader.read(inputs).kept) == 2
    with pytest.raises(NotFinite, match="window 0, place 0"):
        Reader(Echo(spoil=5), "echo", [Positions(0)]).read(inputs)


def test_windows_are_gathered_and_batches_of_inputs_go_as_they_are() -> None:
    ragged = toys.rows(ragged=True)
    found = [*windows(3), ragged, *windows(2)]
    assert [len(inputs) for inputs in batched(found, 2)] == [2, 1, 3, 2]
    assert list(batched(found, 2))[2] is ragged
    assert [len(inputs) for inputs in batched(after(found, 6), 2)] == [2]
    with pytest.raises(Refusal, match="the text ends 4 windows before the place where this was left"):
        list(after(found, 12))


def test_rows_that_are_all_the_same_are_refused_and_others_are_not() -> None:
    inspection = Inspection()
    for each in Reader(Echo(), ["echo", "constant"]).passes(windows(4), 2):
        inspection.see(each)
    with pytest.raises(Refusal, match="all 32 rows of constant are the same, so there is nothing to learn"):
        inspection.finish()
    inspection = Inspection()
    for each in Reader(Echo(), ["echo"], [Positions(1, 2)]).passes(windows(2), 1):  # the second row is another
        inspection.see(each)
    inspection.finish()
    with pytest.raises(Refusal, match="the same, so there is nothing to learn"):  # noticed before the end, too
        inspection = Inspection()
        for each in Reader(Echo(), "constant").passes(windows(1000), 100):
            inspection.see(each)


def test_filters_that_drop_everything_are_refused_with_what_each_dropped() -> None:
    inspection = Inspection()
    for each in Reader(Echo(), "echo", [Positions(), Positions(0, 1)]).passes(windows(3), 2):
        inspection.see(each)
    with pytest.raises(
        Refusal,
        match=r"every place of 3 windows \(Positions\(start=1, stop=None\): 3, Positions\(start=0, stop=1\): 24\)",
    ):
        inspection.finish()
    with pytest.raises(Refusal, match="the text is empty, or shorter than one context"):
        Inspection().finish()


def test_rows_of_several_sites_are_aligned() -> None:
    rows = Rows(next(Reader(Echo(), ["echo", "twice"]).passes(windows(4), 4)).rows())
    assert torch.equal(rows["twice"][:, :2], 2 * rows["echo"])
