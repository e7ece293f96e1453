"""Codecs keep to the error they promise, whatever the rows, and to the bytes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.core.errors import Refusal
from microtome.store.quantised import CODECS, Bfloat16, Codec, Float32, Int8, codec_named


@pytest.mark.parametrize("codec", CODECS.values(), ids=list(CODECS))
@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.integers(0, 6), st.integers(1, 9), st.floats(-20, 20), st.booleans())
def test_no_number_comes_back_further_off_than_promised(
    codec: Codec, seed: int, rows: int, width: int, magnitude: float, outlier: bool
) -> None:
    x = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)) * 10**magnitude
    if outlier:
        x[:, 0] *= 1000
    parts = codec.encode(x)
    back = codec.decode(parts, torch.arange(rows))
    assert ((back - x).abs() <= codec.error_bound(x)).all()
    assert back.dtype == torch.float32
    assert sum(t.numel() * t.element_size() for t in parts.values()) == rows * codec.bytes_per_row(width)


@pytest.mark.parametrize("codec", CODECS.values(), ids=list(CODECS))
def test_rows_are_found_by_number_and_nought_stays_nought(codec: Codec) -> None:
    x = torch.randn(5, 3)
    x[2] = 0
    parts, which = codec.encode(x), torch.tensor([4, 2, 2])
    assert torch.equal(codec.decode(parts, which), codec.decode(parts, torch.arange(5))[which])
    assert not codec.decode(parts, which)[1].any()


def test_the_bound_of_int8_is_half_a_step_of_the_largest_number_in_the_row() -> None:
    x = torch.tensor([[127.0, 1.4, -0.6], [254.0, 1.4, -0.6]])
    assert torch.equal(Int8().decode(Int8().encode(x), torch.arange(2)), torch.tensor([[127.0, 1, -1], [254, 2, 0]]))


def test_codecs_are_found_by_name() -> None:
    assert [type(codec_named(n)) for n in ("bfloat16", "int8", "float32")] == [Bfloat16, Int8, Float32]
    with pytest.raises(Refusal, match="no way of storing rows is called 'int4'; there are bfloat16, int8, float32"):
        codec_named("int4")
