"""What many tests share: a seed, a network of known weights, a model's folder, some text, real material."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from microtome.models.hooked import HookedModel
from tests import toys

CONTEXT = 32


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    """Every test begins from the same random state, and leaves that of others alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def network() -> HookedModel:
    """The residual network of `tests/toys.py`."""
    return toys.residual()


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer Llama with a tokenizer of bytes, as a folder."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    tokenizer = byte_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=64, bos_token_id=0, eos_token_id=1, initializer_range=0.3,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def byte_tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = ["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    inner = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(alphabet)}, merges=[]))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>")


@pytest.fixture(scope="session")
def stories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of sixty short texts, some of them held out."""
    path = tmp_path_factory.mktemp("text") / "stories.jsonl"
    words = [
        "the",
        "cat",
        "sat",
        "on",
        "a",
        "mat",
        "and",
        "then",
        "it",
        "ran",
        "to",
        "see",
        "what",
        "was",
        "in",
        "the",
        "box",
    ]
    generator = torch.Generator().manual_seed(0)

    def story() -> str:
        chosen = torch.randint(len(words), (40,), generator=generator).tolist()
        return " ".join(words[i] for i in chosen) + "."

    path.write_text("".join(json.dumps({"text": story()}) + "\n" for _ in range(60)))
    return path


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real material, where the environment variable MICROTOME_DATA says that there is some."""
    given = os.environ.get("MICROTOME_DATA")
    if not given or not Path(given).is_dir():
        pytest.skip("MICROTOME_DATA names no folder of real material")
    return Path(given)
