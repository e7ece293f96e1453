"""Looking inside attention changes nothing: not a bit, under the kernel that the model has."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from microtome.core.edit import function, zero
from microtome.models import attention
from microtome.models.attention import PREFIX, attending, attention_configs
from microtome.models.load import load
from tests.models.zoo import NAMES, batch, model, module

DISPATCHED = [n for n in NAMES if n not in ("bloom", "gpt_neo", "gptj")]


@contextmanager
def kernel(name: str, implementation: str) -> Iterator[None]:
    config = module(name).config
    before = config._attn_implementation
    config._attn_implementation = implementation
    try:
        yield
    finally:
        config._attn_implementation = before


@pytest.mark.parametrize("name", DISPATCHED)
@pytest.mark.parametrize("padded", [False, True])
def test_reading_scores_and_patterns_is_bitwise_the_eager_kernel(name: str, padded: bool) -> None:
    m, rows = model(name), batch(name, ragged=padded)
    with kernel(name, "eager"):
        plain = rows.call(m.module).logits
        trace = m.run(rows, read=[*m.sites("scores.*"), *m.sites("pattern.*"), "logits"])
    assert torch.equal(trace["logits"], plain)


@pytest.mark.parametrize("name", [n for n in DISPATCHED if n != "gemma2"])
@pytest.mark.parametrize("padded", [False, True])
def test_reading_queries_keys_and_values_is_bitwise_the_models_own_kernel(name: str, padded: bool) -> None:
    m, rows = model(name), batch(name, ragged=padded)
    with kernel(name, "sdpa"):
        plain = rows.call(m.module).logits
        trace = m.run(rows, read=[*m.sites("q.*"), *m.sites("k.*"), *m.sites("v.*"), "logits"])
    assert torch.equal(trace["logits"], plain)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "opt", "bert"])
def test_bitwise_in_bfloat16_too(name: str) -> None:
    m, rows = model(name, torch.bfloat16), batch(name)
    m.module.config._attn_implementation = "eager"  # this module is no other test's
    plain = rows.call(m.module).logits
    assert torch.equal(m.run(rows, read=[*m.sites("pattern.*"), *m.sites("q.*"), "logits"])["logits"], plain)


def test_patterns_are_transformers_own() -> None:
    for name in ("gpt_neo", "gptj", "bloom", "llama"):
        m, rows = model(name), batch(name)
        with kernel(name, "eager"):
            theirs = m.module(input_ids=rows.ids, output_attentions=True).attentions
        ours = m.run(rows, read=m.sites("pattern.*"))
        assert all(torch.equal(ours[f"pattern.{i}"], theirs[i]) for i in (0, 1))


def hooks_of(root: torch.nn.Module) -> list[int]:
    """transformers keeps hooks of its own once attentions have been asked for."""
    return [key for x in root.modules() for key in (*x._forward_hooks, *x._forward_pre_hooks)]


def test_nothing_stays_behind() -> None:
    m, rows = model("llama"), batch("llama")
    before, hooks = m.module.config._attn_implementation, hooks_of(m.module)

    def fails(x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("on purpose")

    for site in ("pattern.0", "q.1", "resid_mid.0", "mlp_in.1"):
        with pytest.raises(RuntimeError, match="on purpose"):
            m.run(rows, edit=[function(m.site(site), fails)])
        assert m.module.config._attn_implementation == before
        assert hooks_of(m.module) == hooks
    assert not attention._visits


def test_two_models_may_share_a_config_and_run_inside_each_other() -> None:
    one, config = module("llama"), module("llama").config
    other = type(one)(config).eval()
    a, b, rows = load(one), load(other), batch("llama")
    alone_a, alone_b = a.run(rows)["logits"], b.run(rows, read=["q.0", "logits"])["logits"]
    inner = []

    def look(x: torch.Tensor) -> torch.Tensor:
        inner.append(b.run(rows, read=["q.0", "logits"])["logits"])
        inner.append(b.run(rows, read=["pattern.0", "logits"])["logits"])
        return x

    outer = a.run(rows, read=["logits", "k.1"], edit=[function(a.site("q.0"), look)])["logits"]
    assert torch.equal(outer, alone_a) and torch.equal(inner[0], alone_b)
    torch.testing.assert_close(inner[1], alone_b)
    assert not config._attn_implementation.startswith(PREFIX)


def test_the_kernel_is_switched_for_scores_and_patterns_only() -> None:
    root = module("mistral")
    for roles, kernel_name in (({"q", "v"}, "sdpa"), ({"q", "pattern"}, "eager")):
        with attending(root, roles):
            assert {c._attn_implementation for c in attention_configs(root)} == {PREFIX + kernel_name}


def test_zeroed_queries_look_everywhere_alike() -> None:
    m, rows = model("llama"), batch("llama")
    pattern = m.run(rows, read=["pattern.0"], edit=[zero(m.site("q.0"))])["pattern.0"]
    even = torch.ones(6, 6).tril() / torch.arange(1, 7)[:, None]
    torch.testing.assert_close(pattern, even.expand_as(pattern))


def test_a_key_value_head_serves_its_group_of_queries() -> None:
    m, rows = model("llama"), batch("llama")
    z = m.run(rows, read=["z.0"], edit=[zero(m.site("v.0").at(head=1))])["z.0"]
    assert not z[:, :, 2:].any() and z[:, :, :2].all()


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_a_pattern_can_be_patched(name: str) -> None:
    """Freezing the pattern keeps a head's mixture whatever the queries say."""
    m, rows = model(name), batch(name)
    plain = m.run(rows, read=["pattern.1", "z.1"])
    pinned = function(m.site("pattern.1"), lambda x: plain["pattern.1"])
    z = m.run(rows, read=["z.1"], edit=[pinned, function(m.site("q.1"), lambda x: -x)])["z.1"]
    assert torch.equal(z, plain["z.1"])
