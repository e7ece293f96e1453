"""Train the specimen: a four-layer transformer on the standard library's source, shipped inside the package.

    python scripts/train_specimen.py --into microtome/models/specimen --steps 6000

Writes a Hugging Face-format folder (float16 safetensors, tokenizer, manifest of the modules it saw) and, beside it,
`training.jsonl` with the loss curve. Stops and resumes: the state is saved every few minutes under --state.
"""

import argparse
import json
import platform
import random
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, Starcoder2Config, Starcoder2ForCausalLM

from microtome.data import stdlib
from microtome.data.text import Document

CONTEXT, VOCABULARY, BOUNDARY = 256, 4096, "<|endoftext|>"

# One word, one digit, one bracket, one line break with the indentation after it, or a run of other marks.
WORDS = r""" ?[A-Za-z]+| ?\d|_+|[\r\n]+[ \t]*| ?[()\[\]{}]| ?["'`]+| ?[^\s\w()\[\]{}"'`]+|[^\S\r\n]+|[^\s]"""


def train_tokenizer(texts: Iterator[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE whose words respect Python: indentation, brackets, digits and underscores stand alone."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[BOUNDARY], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOUNDARY, eos_token=BOUNDARY, model_max_length=CONTEXT
    )


def new_model() -> Starcoder2ForCausalLM:
    """Rotary positions, layer norm, a plain GELU MLP, tied embeddings: 4.2 M parameters."""
    config = Starcoder2Config(
        vocab_size=VOCABULARY, hidden_size=256, intermediate_size=1024, num_hidden_layers=4, num_attention_heads=8,
        num_key_value_heads=8, max_position_embeddings=CONTEXT, sliding_window=None, residual_dropout=0.0,
        embedding_dropout=0.0, attention_dropout=0.0, tie_word_embeddings=True, bos_token_id=0, eos_token_id=0,
        use_cache=True, initializer_range=0.02,
    )  # fmt: skip
    return Starcoder2ForCausalLM(config)


def token_stream(tokenizer: PreTrainedTokenizerFast, documents: list[Document]) -> list[Tensor]:
    return [
        torch.tensor(ids, dtype=torch.long)
        for ids in tokenizer([d.text for d in documents], add_special_tokens=False)["input_ids"]
    ]


def windows(streams: list[Tensor], order: random.Random) -> Iterator[Tensor]:
    """Contexts without end: every epoch joins the modules in a new order and cuts at a new offset. Each begins with BOS."""
    body = CONTEXT - 1
    while True:
        order.shuffle(streams)
        joined = torch.cat([torch.cat([s, torch.zeros(1, dtype=s.dtype)]) for s in streams])[order.randrange(body) :]
        rows = joined[: len(joined) // body * body].view(-1, body)
        rows = torch.cat([torch.zeros(len(rows), 1, dtype=rows.dtype), rows], 1)
        yield from rows[torch.tensor(order.sample(range(len(rows)), len(rows)))]


def new_optimisers(model: nn.Module) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of attention, AdamW for all others, as most models people study were trained.

    Where Muon trains everything, all directions of the residual stream come out nearly alike, which real models' do
    not; but heads that match and copy any token, induction heads, form much sooner with it. Norms and biases do not
    decay.
    """
    attention = [p for name, p in model.named_parameters() if p.ndim == 2 and "self_attn" in name]
    matrices = [p for p in model.parameters() if p.ndim == 2 and not any(p is a for a in attention)]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    return [
        torch.optim.AdamW(groups, lr=2e-3, betas=(0.9, 0.98), fused=True),
        torch.optim.Muon(attention, lr=0.02, momentum=0.95, weight_decay=0.01),
    ]


def schedule(step: int, steps: int) -> float:
    """Warm up over 200 steps, hold, then fall linearly to zero over the last half."""
    return min(1.0, (step + 1) / 200, 2.0 * (1 - step / steps))


@torch.no_grad()
def induction_scores(model: Starcoder2ForCausalLM, length: int = 100, rows: int = 8) -> Tensor:
    """Attention from each token of a repeated random sequence to the one after its earlier copy: (layer, head)."""
    generator = torch.Generator().manual_seed(0)
    half = torch.randint(300, VOCABULARY, (rows, length), generator=generator)
    ids = torch.cat([torch.zeros(rows, 1, dtype=torch.long), half, half], 1)
    model.set_attn_implementation("eager")
    patterns = model(ids, output_attentions=True).attentions
    model.set_attn_implementation("sdpa")
    return torch.stack([p.diagonal(offset=1 - length, dim1=2, dim2=3)[..., 1:].mean((0, 2)) for p in patterns])


def save(model: Starcoder2ForCausalLM, tokenizer: PreTrainedTokenizerFast, into: Path, manifest: dict) -> None:
    weights = Starcoder2ForCausalLM(model.config)
    weights.load_state_dict(model.state_dict())
    weights.half().save_pretrained(into)
    tokenizer.save_pretrained(into)
    (into / "manifest.json").write_text(json.dumps(manifest, indent=1))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--into", type=Path, required=True)
    arguments.add_argument("--state", type=Path, default=Path("specimen-training"))
    arguments.add_argument("--steps", type=int, default=6000)
    arguments.add_argument("--batch", type=int, default=8)
    arguments.add_argument("--seed", type=int, default=0)
    given = arguments.parse_args()
    given.state.mkdir(parents=True, exist_ok=True)

    documents = {"train": list(stdlib.modules("train", test_suites=True)), "held_out": list(stdlib.modules("held_out"))}
    held_out_bytes = sum(len(d.text.encode()) for d in documents["held_out"])
    tokenizer = train_tokenizer(d.text for d in stdlib.modules("train"))
    streams = {part: token_stream(tokenizer, d) for part, d in documents.items()}
    tokens = {part: sum(map(len, s)) for part, s in streams.items()}
    print(f"{tokens} tokens; held out {held_out_bytes / tokens['held_out']:.2f} bytes a token", flush=True)

    torch.manual_seed(given.seed)
    model, order = new_model(), random.Random(given.seed)
    batches, optimisers = windows(streams["train"], order), new_optimisers(model)
    rates = [[group["lr"] for group in o.param_groups] for o in optimisers]
    first, seconds, checkpoint = 0, 0.0, given.state / "state.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        [o.load_state_dict(s) for o, s in zip(optimisers, state["optimisers"], strict=True)]
        first, seconds = state["step"], state["seconds"]
    log, begun = (given.state / "training.jsonl").open("a"), time.monotonic()
    for step in range(given.steps):
        ids = torch.stack([next(batches) for _ in range(given.batch)])
        if step < first:
            continue
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(ids, use_cache=False).logits
        loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser, peaks in zip(optimisers, rates, strict=True):
            for group, peak in zip(optimiser.param_groups, peaks, strict=True):
                group["lr"] = peak * schedule(step, given.steps)
            optimiser.step()
            optimiser.zero_grad()
        last = step == given.steps - 1
        if step % 250 == 0 or last:
            row = {"step": step, "loss": loss.item(), "seconds": seconds + time.monotonic() - begun}
            row["held_out_loss"] = sample_loss(model, streams["held_out"])
            row["induction"] = induction_scores(model).max().item()
            print(json.dumps(row), file=log, flush=True)
            print(row, flush=True)
        if step % 250 == 249 or last:
            spent = seconds + time.monotonic() - begun
            state = {"model": model.state_dict(), "optimisers": [o.state_dict() for o in optimisers]}
            torch.save(state | {"step": step + 1, "seconds": spent}, checkpoint)
            save(model, tokenizer, given.into, {
                "modules": {part: [d.name for d in ds] for part, ds in documents.items()}, "tokens": tokens,
                "python": platform.python_version(), "machine": f"{torch.get_num_threads()} threads", "seconds": spent,
                "steps": step + 1, "tokens_seen": (step + 1) * given.batch * CONTEXT, "seed": given.seed,
            })  # fmt: skip
    print("scripts/judge_specimen.py says how good it is")


@torch.no_grad()
def sample_loss(model: nn.Module, streams: list[Tensor]) -> float:
    rows = torch.stack(list(zip(*[windows(list(streams), random.Random(1))] * 32, strict=False).__next__()))
    return nn.functional.cross_entropy(model(rows).logits[:, :-1].flatten(0, 1), rows[:, 1:].flatten()).item()


if __name__ == "__main__":
    main()
