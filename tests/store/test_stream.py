"""The activation stream: every row once, from all sites at once, well mixed; and one that was stopped goes on bit for bit."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from microtome.core.errors import NoSuchSite, NotFinite, Refusal
from microtome.core.fit import Batch, fit
from microtome.core.inputs import Arrays, Tokens
from microtome.core.rows import Rows
from microtome.core.site import Site
from microtome.data.windows import Window
from microtome.models.hooked import HookedModel
from microtome.store.checkpoint import load_state, save_state
from microtome.store.filters import HighNorm, Positions, SpecialTokens
from microtome.store.stream import SPREAD, Stream, stream
from tests import toys
from tests.store.echo import Echo, origins, windows


def echoes(count: int = 40, sites: object = "echo", batch: int = 16, buffer: int = 64, **settings: object) -> Stream:
    return stream(Echo(), lambda: windows(count), sites, batch, buffer, at_once=4, **settings)


def served(found: Stream) -> list[tuple[int, int]]:
    return [origin for batch in found for origin in origins(batch)]


def same(one: Batch, other: Batch) -> bool:
    if isinstance(one, Rows) and isinstance(other, Rows):
        return all(torch.equal(one.values[name], other.values[name]) for name in one.values)
    return isinstance(one, Tensor) and isinstance(other, Tensor) and torch.equal(one, other)


# ---------------------------------------------------------------- what comes out


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_every_row_but_those_of_position_0_comes_once(ahead: int) -> None:
    found = served(echoes(ahead=ahead))
    assert sorted(found) == [(w, p) for w in range(40) for p in range(1, 9)]


def test_one_site_gives_tensors_and_several_give_aligned_rows() -> None:
    assert all(isinstance(batch, Tensor) and batch.shape == (16, 2) for batch in echoes())
    seen = []
    for batch in echoes(sites=["twice", "echo"]):
        assert isinstance(batch, Rows) and len(batch) == 16 and list(batch.values) == ["twice", "echo"]
        assert torch.equal(batch["twice"][:, :2], 2 * batch["echo"])
        seen += origins(batch["echo"])
    assert len(set(seen)) == len(seen) == 320


def test_the_same_seed_gives_the_same_batches_and_another_gives_others() -> None:
    one, two, other = echoes(seed=1, ahead=0), echoes(seed=1, ahead=2), echoes(seed=2)
    first = [next(each) for each in (one, two, other)]
    assert same(first[0], first[1]) and not same(first[0], first[2])
    assert all(same(a, b) for a, b in zip(one, two, strict=True))
    other.close()


def test_each_epoch_serves_every_row_once_in_an_order_of_its_own() -> None:
    found = echoes(epochs=3)
    each = [[origin for _ in range(20) for origin in origins(next(found))] for _ in range(3)]
    assert list(found) == [] and found.served == 960
    assert all(len(set(epoch)) == 320 for epoch in each) and len({tuple(epoch) for epoch in each}) == 3


def test_sizes_are_exact_in_tokens() -> None:
    found = echoes(tokens=100)
    assert len(served(found)) == 96  # whole batches of the 100
    assert sorted(served(echoes(tokens=96, spread=0))) == [(w, p) for w in range(12) for p in range(1, 9)]
    assert echoes(buffer=64).buffer.size == 64 and len(echoes(buffer=64).buffer.pages) == 4


@pytest.mark.parametrize(
    ("batch", "context", "pages"), [(10, 9, 64), (10, 300, 150), (4096, 300, 128), (2**14, 300, 64)]
)
def test_where_no_size_is_given_the_buffer_has_room_for_two_rows_of_a_window_and_batch(
    batch: int, context: int, pages: int
) -> None:
    rows = list(windows(3, context))
    for text in (rows, iter(rows), lambda: iter(rows), [Tokens.of(torch.zeros(2, context, dtype=torch.long))]):
        assert len(stream(Echo(), text, "echo", batch).buffer.pages) == pages


def test_a_look_at_the_text_takes_nothing_from_it() -> None:
    each = [served(stream(Echo(), text, "echo", 8)) for text in (windows(30), list(windows(30)), lambda: windows(30))]
    assert sorted(each[0]) == [(w, p) for w in range(30) for p in range(1, 9)] and each[0] == each[1] == each[2]


def test_no_more_rows_wait_in_the_buffer_than_it_has_room_for() -> None:
    found = echoes(count=200, buffer=160)
    for _ in found:
        waiting = sum(page.rows for page in found.buffer.pages)
        assert waiting <= 160
        assert found.epoch or found.rows_read == found.served + waiting + 16 * len(found.buffer.ready)


def test_padding_is_never_served() -> None:
    for left in (False, True):
        ragged = [toys.rows(ragged=True, left=left) for _ in range(4)]
        rows = served(stream(Echo(), ragged, "echo", 1, 8, filters=[]))
        expected = [(t, p) for row in toys.RAGGED for p, t in enumerate(row)]
        assert sorted(rows) == sorted(expected * 4)


def test_pictures_stream_channels_last() -> None:
    pictures = torch.arange(2 * 6 * 4 * 4.0).view(6, 2, 4, 4)
    found = stream(Echo(), [Arrays((p,)) for p in pictures.split(2)], "picture", 8, 16)
    rows = torch.cat(list(found))
    assert sorted(rows.tolist()) == sorted(pictures.movedim(1, -1).reshape(-1, 2).tolist())


def test_filters_are_counted() -> None:
    found = echoes(filters=[Positions(2), SpecialTokens((3, 5)), HighNorm(1000.0)])
    assert len(served(found)) == 38 * 7 // 16 * 16
    assert list(found.dropped.values()) == [80, 14, 0]


# ---------------------------------------------------------------- how well it mixes, and at what cost


def distinct(batches: list[Tensor]) -> float:
    """Mean number of distinct windows in a batch."""
    return sum(len(x[:, 0].unique()) for x in batches) / len(batches)


def test_batches_mix_as_many_windows_as_a_global_shuffle_would() -> None:
    context, batch, count = 9, 64, 1500
    found = stream(Echo(), windows(count, context), "echo", batch, 2 * batch * context, at_once=16)
    shuffled = torch.arange(count).repeat_interleave(context - 1)[torch.randperm(count * (context - 1))][:, None]
    assert distinct(list(found)) >= 0.95 * distinct(list(shuffled.split(batch)[:-1]))


def test_by_default_batches_show_as_many_documents_as_a_global_shuffle_would() -> None:
    sizes, context, batch = [4 + 100 * 3 // (i + 3) for i in range(60)], 129, 256  # some long documents, many short
    owners = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    text = [
        window._replace(tokens=np.full(context, i), document=str(i))
        for i, window in zip(owners.tolist(), windows(len(owners)), strict=True)
    ]
    mixed, plain = (stream(Echo(), text, "echo", batch, at_once=16, spread=room) for room in (SPREAD, 0))
    rows = owners.repeat_interleave(context - 1)
    shuffled = list(rows[torch.randperm(len(rows))][:, None].split(batch)[:-1])
    assert distinct(list(mixed)) >= 0.95 * distinct(shuffled) >= 2 * distinct(list(plain))


@pytest.mark.parametrize("pages", [2, 8])
def test_a_small_buffer_mixes_as_well_as_a_shuffle_of_as_many_rows(pages: int) -> None:
    context, batch, count = 9, 64, 800
    found = stream(Echo(), windows(count, context), "echo", batch, batch * pages, at_once=16)
    owners = torch.arange(count).repeat_interleave(context - 1)
    shuffled = [part[torch.randperm(len(part))][:, None] for part in owners.split(batch * pages)]
    expected = distinct([x for part in shuffled for x in part.split(batch) if len(x) == batch])
    assert distinct(list(found)) >= 0.95 * expected


def test_no_more_than_a_fifth_of_the_rows_are_copied_twice() -> None:
    for sites in ("echo", ["echo", "twice"]):
        found = stream(
            Echo(), windows(300), sites, 16, 1024, at_once=8, filters=[Positions(3, -1)], precision=torch.float32
        )
        assert sum(map(len, found)) == found.served == 300 * 5 // 16 * 16
        assert 1 <= found.copies_per_row <= 1.2


def test_one_forward_pass_for_all_sites_and_none_that_is_not_needed() -> None:
    model = Echo()
    found = stream(model, windows(1000), ["echo", "twice"], 16, 32, at_once=4, ahead=0)
    for _ in range(4):
        next(found)
    assert model.passes == 3  # 8 rows until the pages stand at their heights, then 64: of 32 rows a pass


def test_it_is_what_fit_learns_from_and_several_learn_from_one(network: HookedModel) -> None:
    def mean_of(learned: nn.Module, batch: Batch) -> dict[str, Tensor]:
        x = batch["resid_post.0"] if isinstance(batch, Rows) else batch
        return {"distance": (x - next(learned.parameters())).pow(2).mean()}

    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean = nn.Parameter(torch.zeros(toys.WIDTH))

    ids = torch.randint(toys.VOCAB, (60, 9))
    text = [Tokens.of(part) for part in ids.split(10)]
    alone = Mean()
    steps = list(fit(alone, stream(network, text, "resid_post.0", 32, 64), mean_of, lr=0.01))
    assert len(steps) == 15 and steps[-1].rows == 480
    both = [fit(Mean(), [], mean_of, lr=0.01), fit(Mean(), [], mean_of, lr=0.1)]
    for batch in stream(network, text, ["resid_post.0", "embed"], 32, 64):
        for learning in both:
            learning.step(batch)
    assert torch.equal(next(both[0].learned.parameters()), alone.mean)


# ---------------------------------------------------------------- stopped and resumed


@pytest.mark.parametrize("ahead", [0, 2])
@pytest.mark.parametrize("stop", [0, 1, 7, 19, 20, 33, 40])
def test_a_stream_that_was_stopped_goes_on_bit_for_bit(stop: int, ahead: int, tmp_path: Path) -> None:
    def make() -> Stream:
        return echoes(sites=["echo", "twice"], epochs=2, ahead=ahead, seed=3, buffer=160)

    whole, begun = list(make()), make()
    for _ in range(stop):
        next(begun)
    save_state({"stream": begun.state_dict()}, tmp_path / "state")
    rest = list(begun)
    resumed = make()
    resumed.load_state_dict(load_state(tmp_path / "state")["stream"])
    again = list(resumed)
    assert len(whole) == 40 and len(rest) == len(again) == 40 - stop
    assert all(same(a, b) and same(a, c) for a, b, c in zip(whole[stop:], rest, again, strict=True))
    assert (resumed.served, resumed.copies_per_row, resumed.dropped) == (
        begun.served,
        begun.copies_per_row,
        begun.dropped,
    )


def test_a_real_network_goes_on_bit_for_bit_too(network: HookedModel) -> None:
    ids = torch.randint(toys.VOCAB, (90, 9))
    text = [Window(row.numpy(), "a text", torch.zeros(9, 0, dtype=torch.bool).numpy()) for row in ids]

    def make() -> Stream:
        return stream(network, text, ["resid_post.0", "mlp_act.1"], 32, 128, at_once=8)

    whole, begun, resumed = list(make()), make(), make()
    for _ in range(5):
        next(begun)
    resumed.load_state_dict(begun.state_dict())
    begun.close()
    assert all(same(a, b) for a, b in zip(resumed, whole[5:], strict=True))


def test_the_state_of_another_stream_is_refused() -> None:
    state = echoes().state_dict()
    with pytest.raises(Refusal, match="that state has batch 16, and here it is 8; give the same"):
        echoes(batch=8).load_state_dict(state)
    with pytest.raises(Refusal, match="that state has seed 0, and here it is 1; give the same"):
        echoes(seed=1).load_state_dict(state)
    with pytest.raises(Refusal, match=r"that state has sites \['echo'\], and here it is \['twice'\]"):
        echoes(sites="twice").load_state_dict(state)


def test_a_text_shorter_than_where_it_was_left_is_refused() -> None:
    begun, shorter = echoes(), echoes(count=2)
    for _ in range(12):
        next(begun)
    shorter.load_state_dict(begun.state_dict())
    begun.close()
    with pytest.raises(Refusal, match="windows before the place where this was left; give the same text again"):
        list(shorter)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: echoes(count=0),
            "the text is empty, or shorter than one context; give more text or a smaller context",
        ),
        (lambda: echoes(count=1), "8 rows are fewer than one batch of 16; give more text or lower the batch"),
        (lambda: echoes(filters=[Positions(9)]), r"dropped every place of 40 windows \(Positions.*: 360\); loosen one"),
        (
            lambda: echoes(sites="constant"),
            "rows of constant are the same, so there is nothing to learn; choose another",
        ),
        (lambda: echoes(tokens=15), "tokens is 15, fewer than one batch of 16"),
        (lambda: echoes(buffer=65), "buffer is 65 rows, which is no multiple of the batch of 16; give 64"),
        (lambda: echoes(epochs=0), "epochs is 0; give at least 1"),
        (lambda: echoes(ahead=-1), "ahead is -1; give at least 0"),
        (lambda: echoes(spread=-1), "spread is -1; give at least 0"),
        (lambda: echoes(sites="pattern"), "choose a site with one vector for each position, such as resid_post"),
        (
            lambda: stream(Echo(), windows(9), "echo", 8, 16, epochs=2),
            "gone through only once, not 2 times; give a list",
        ),
    ],
)
@pytest.mark.parametrize("threaded", [False, True])
def test_bad_input_is_answered_in_a_sentence(make: Callable[[], Stream], words: str, threaded: bool) -> None:
    with pytest.raises(Refusal, match=words):
        found = make()
        found.ahead = int(threaded)
        list(found)


def test_a_site_that_the_model_lacks_is_refused_at_once(network: HookedModel) -> None:
    for site in ("resid_pots.0", Site("resid_pots.0")):
        with pytest.raises(NoSuchSite, match="did you mean 'resid_post.0'"):
            stream(network, [], site)


@pytest.mark.parametrize("ahead", [0, 2])
def test_what_is_not_finite_comes_through_after_the_batches_before_it(ahead: int) -> None:
    found, seen = stream(Echo(spoil=25), windows(40), "echo", 16, 32, at_once=4, ahead=ahead, spread=0), 0
    with pytest.raises(NotFinite, match="echo holds values that are not finite in window 25, place 1"):
        for _ in found:
            seen += 1
    assert seen == (24 * 8 - 8) // 16


def test_closing_a_stream_ends_its_thread_and_it_can_still_be_gone_on_with() -> None:
    def workers() -> int:
        return sum(thread.name == "prefetch" for thread in threading.enumerate())

    before, whole = workers(), list(echoes())
    with echoes(ahead=2) as found:
        first = next(found)
        assert workers() == before + 1
    assert workers() == before
    assert all(same(a, b) for a, b in zip([first, *found], whole, strict=True)) and workers() == before


@pytest.mark.parametrize("spread", [0, 900])
def test_the_text_is_read_no_faster_than_it_is_needed(spread: int) -> None:
    taken = []

    def text() -> Iterator[Window]:
        for window in windows(10**6):
            taken.append(1)
            yield window

    with stream(Echo(), text(), "echo", 16, 64, at_once=4, ahead=2, spread=spread) as found:
        for _ in range(10):
            next(found)
    assert len(taken) <= (10 * 16 + 64) // 8 + 4 * 4 + spread // 9
