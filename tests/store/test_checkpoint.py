"""A training state comes back as it went, whatever it holds; after a failed write the old one is still there."""

import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from microtome.core.errors import Refusal
from microtome.store.checkpoint import load_state, save_state

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool]
tensors = st.builds(
    lambda shape, dtype: (torch.arange(1, 1 + torch.Size(shape).numel()) % 7).reshape(shape).to(dtype),
    st.lists(st.integers(0, 3), max_size=3), st.sampled_from(DTYPES),
)  # fmt: skip
leaves = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False), st.text(max_size=5), tensors
)
states = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.one_of(st.text(max_size=4), st.integers(-5, 5)), inner, max_size=3),
    ),
    max_leaves=12,
)  # fmt: skip


def same(one: object, other: object) -> bool:
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and list(one) == list(other) and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(st.text(max_size=4), states, max_size=4))
def test_any_nested_state_comes_back_as_it_went(state: dict) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.safetensors"
        save_state(state, path)
        assert same(load_state(path), state)
        assert [f.name for f in Path(folder).iterdir()] == ["state.safetensors"]


def test_views_of_one_tensor_and_transposed_ones_are_written_as_they_look(tmp_path: Path) -> None:
    x = torch.arange(6.0).view(2, 3)
    save_state({"whole": x, "row": x[1], "turned": x.T}, tmp_path / "s")
    assert torch.equal(load_state(tmp_path / "s")["turned"], x.T) and torch.equal(
        load_state(tmp_path / "s")["row"], x[1]
    )


def test_a_write_that_fails_leaves_the_old_state(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    save_state({"step": 1}, path)
    with pytest.raises(TypeError):
        save_state({"step": {1, 2}}, path)
    assert load_state(path) == {"step": 1} and [f.name for f in tmp_path.iterdir()] == ["state.safetensors"]


def test_a_damaged_or_missing_state_is_answered_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="state is missing; delete it to begin anew"):
        load_state(tmp_path / "state")
    (tmp_path / "state").write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    with pytest.raises(Refusal, match="state is damaged; delete it to begin anew"):
        load_state(tmp_path / "state")
