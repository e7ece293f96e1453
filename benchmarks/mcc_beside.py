"""How much of a known truth is found, beside SAELens trained on the same samples. Run by hand.

    python -m venv peers/saelens && peers/saelens/bin/pip install sae-lens
    python benchmarks/mcc_beside.py --saelens peers/saelens/bin/python [--steps 2000] [--width 512]

Synthetic activations of 512 features in 64 dimensions (microtome.data.synthetic.small). Every recipe learns from the
same batches in the same order, with Adam, a rate that falls to 0 over the last fifth, and each of the rates below;
recipes with a penalty are given several weights of it. The k is the true number of active features. Latents count as
dead for the auxiliary losses of both libraries after 50 steps. MCC is the mean absolute cosine of latents and features
paired one to one; dead are latents that never fire on 20,000 fresh rows. The best of each library is named at the end.
This file runs in both Pythons, so at its top it imports nothing but torch.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

ROWS, JUDGED, PATIENCE = 512, 20_000, 50  # rows in a batch, rows judged on, steps after which a silent latent is dead
TRUTH = 1234  # another seed than dictionaries begin with: both are normal directions, and one seed draws the same
RATES = (3e-3, 1e-2)
WEIGHTS = {"standard": (0.2, 0.5, 1.0), "jumprelu": (0.05, 0.2, 0.5)}  # of SAELens' penalties; it has no target


# ---------------------------------------------------------------- SAELens, where it is


def saelens_recipes(d: int, n: int, k: int) -> Iterator[tuple[str, Any]]:
    """Each with its name."""
    from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
    from sae_lens.saes.jumprelu_sae import JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig
    from sae_lens.saes.standard_sae import StandardTrainingSAE, StandardTrainingSAEConfig
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig

    yield "SAELens TopK", lambda: TopKTrainingSAE(TopKTrainingSAEConfig(d_in=d, d_sae=n, k=k))
    yield "SAELens BatchTopK", lambda: BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(d_in=d, d_sae=n, k=k))
    for weight in WEIGHTS["standard"]:
        settings = StandardTrainingSAEConfig(d_in=d, d_sae=n, l1_coefficient=weight, l1_warm_up_steps=200)
        yield f"SAELens standard {weight:g}", lambda settings=settings: StandardTrainingSAE(settings)
    for weight in WEIGHTS["jumprelu"]:
        jump = JumpReLUTrainingSAEConfig(d_in=d, d_sae=n, l0_coefficient=weight, l0_warm_up_steps=200)
        yield f"SAELens JumpReLU {weight:g}", lambda settings=jump: JumpReLUTrainingSAE(settings)


def saelens(folder: Path, n: int, k: int) -> None:
    """Train every recipe at every rate, and leave its decoder and its firing on the judged rows."""
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    data = torch.load(folder / "data.pt", weights_only=True)
    batches, judged = data["batches"], data["judged"]
    found = {}
    for name, make in saelens_recipes(judged.shape[1], n, k):
        for rate in RATES:
            torch.manual_seed(0)
            settings: Any = SAETrainerConfig(
                total_training_samples=batches.shape[0] * ROWS, train_batch_size_samples=ROWS, lr=rate, lr_end=0.0,
                lr_decay_steps=len(batches) // 5, dead_feature_window=PATIENCE,
            )  # fmt: skip
            sae = SAETrainer(settings, make(), iter(batches)).fit()
            with torch.no_grad():
                fired = torch.stack([(sae.encode(x) > 0).sum(0) for x in judged.split(ROWS)]).sum(0)
            found[f"{name}, lr {rate:g}"] = {"write": sae.W_dec.detach().clone(), "fired": fired}
    torch.save(found, folder / "saelens.pt")


# ---------------------------------------------------------------- Microtome


def microtome(batches: torch.Tensor, judged: torch.Tensor, n: int, k: int) -> dict[str, dict[str, torch.Tensor]]:
    """The same of our recipes."""
    from microtome.core.fit import fit
    from microtome.core.schedule import Linear
    from microtome.core.site import Site
    from microtome.dictionaries import recipes
    from microtome.dictionaries.objectives import AuxK, Reconstruction

    site, first, steps = Site("synthetic"), batches[:20].flatten(0, 1), len(batches)
    revived = AuxK(n, dead_after=PATIENCE * ROWS, k_aux=k)  # half of d is meant for far more dimensions than 64
    makers = {
        "TopK without AuxK": lambda g: (recipes.topk(site, first, n, k, g).dictionary, Reconstruction()),
        "TopK": lambda g: (recipes.topk(site, first, n, k, g).dictionary, Reconstruction() + revived),
        "BatchTopK": lambda g: (recipes.batch_topk(site, first, n, k, g).dictionary, Reconstruction() + revived),
        "Matryoshka": lambda g: recipes.matryoshka(site, first, n, k, g),
        "JumpReLU": lambda g: recipes.jump_relu_target(site, first, n, k, g),
    }
    found = {}
    for name, make in makers.items():
        for rate in RATES:
            revived.silent.zero_()
            learned, objective = make(torch.Generator().manual_seed(0))
            for _ in fit(learned, batches, objective, lr=rate, schedule=Linear(steps - steps // 5, steps)):
                pass
            with torch.no_grad():
                fired = sum((learned.encode(x).dense() > 0).sum(0) for x in judged.split(ROWS))
            write = learned.directions().write[:, 0].detach()
            found[f"{name}, lr {rate:g}"] = {"write": write, "fired": fired}
    return found


# ---------------------------------------------------------------- beside each other


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--saelens", metavar="PYTHON")
    for name, default in (("steps", 2000), ("width", 512)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compare(asked, Path(folder))


def compare(asked: argparse.Namespace, folder: Path) -> None:
    from microtome.data.synthetic import small

    source, generator = small(torch.Generator().manual_seed(TRUTH)), torch.Generator().manual_seed(TRUTH + 1)
    batches, k = torch.stack(list(source.batches(ROWS, asked.steps, generator))), round(source.l0)
    judged = source.draw(JUDGED, generator).x
    print(f"{len(batches) * ROWS:,} samples, {asked.width} latents for {len(source.truth.directions)} features, k {k}")
    found = {"Microtome": microtome(batches, judged, asked.width, k)}
    if asked.saelens:
        torch.save({"batches": batches, "judged": judged}, folder / "data.pt")
        command = [asked.saelens, __file__, "--work", json.dumps([str(folder), asked.width, k])]
        subprocess.run(command, check=True, capture_output=True)
        found["SAELens"] = torch.load(folder / "saelens.pt", weights_only=True)
    for library, made in found.items():
        show(library, made, source.truth.directions)


def show(library: str, made: dict[str, dict[str, torch.Tensor]], truth: torch.Tensor) -> None:
    """A line for each fit, and the best of all."""
    from microtome.core.pairing import best_pairs

    scores = {}
    for name, one in made.items():
        cosines = (torch.nn.functional.normalize(one["write"], dim=1) @ truth.T).abs()
        pairs = best_pairs(cosines)
        scores[name] = cosines[pairs.rows, pairs.columns].mean().item()
        dead, l0 = (one["fired"] == 0).double().mean().item(), one["fired"].sum().item() / JUDGED
        print(f"{name:36} MCC {scores[name]:.3f}   dead {dead:6.2%}   L0 {l0:.1f}")
    best = max(scores, key=scores.__getitem__)
    print(f"best of {library}: {best}, MCC {scores[best]:.3f}\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        where, width, active = json.loads(sys.argv[2])
        saelens(Path(where), width, active)
    else:
        main()
