"""A slide: one site of a network, its text, and autoencoders learned there, each once for a study's folder."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.fit import fit
from microtome.core.schedule import Linear, WarmUp
from microtome.core.site import Site
from microtome.data.corpus import cut, documents
from microtome.data.labels import LABELS, label_tokens
from microtome.data.text import Part
from microtome.data.windows import Text, gather, pieces
from microtome.dictionaries.files import load_dictionary, save_dictionary
from microtome.dictionaries.recipes import Recipe
from microtome.dictionaries.sae import SAE
from microtome.models.hooked import HookedModel
from microtome.models.load import load
from microtome.store.shards import Activations
from microtome.studies.material import harvested
from microtome.studies.study import Setting, Watch

SAMPLE = 20_000  # rows from which units are taken
CONTEXT = 256  # tokens in a window, where the network takes as many

Make = Callable[[Site, Tensor, int, int, torch.Generator], Recipe]


@dataclass(frozen=True)
class Training:
    """What an autoencoder learns from, with `k` latents active on a token. The budget of `microtome dissect`."""

    tokens: int = 2_000_000
    epochs: int = 3
    k: int = 32
    batch: int = 2048
    rate: float = 4e-3


LONG = Training()
SHORT = Training(tokens=60_000, epochs=3, k=16, batch=512)


@dataclass(frozen=True)
class Slide:
    """The stream after a middle layer of the setting's model. Everything is made when first asked for."""

    setting: Setting
    training: Training
    watch: Watch

    @cached_property
    def model(self) -> HookedModel:
        return load(self.setting.model, device=self.setting.device)

    @cached_property
    def site(self) -> Site:
        return self.model.site(f"resid_post.{len(self.model.sites('mlp_act.*')) // 2}")

    @cached_property
    def activations(self) -> Activations:
        return harvested(self.model, [self.site], self.setting, "train", self.training.tokens, self.watch)

    @cached_property
    def sample(self) -> Float[Tensor, "rows d"]:
        return self.activations.sample(SAMPLE, self.setting.seed)

    @cached_property
    def vocabulary(self) -> list[str]:
        return pieces(self.model.tokenizer, range(len(self.model.tokenizer)))

    @property
    def labels(self) -> tuple[str, ...]:
        """The facts that `text` knows of each token: those of Python source, or none."""
        return LABELS if self._python else ()

    @property
    def _python(self) -> bool:
        return all(path.endswith(".py") for path in self.setting.text)

    def text(self, part: Part, tokens: int) -> Text:
        """About so many tokens of a part; of the training text those that were harvested last."""
        found = documents(self.setting.text, part, self.setting.seed)
        ordered = list(reversed(found)) if part == "train" else found
        windows = cut(self.model, ordered, label=label_tokens if self._python else None)
        context = min(CONTEXT, self.model.context or CONTEXT)
        return gather(windows, max(1, tokens // (context - 1)))

    def learned(self, name: str, make: Make, width: int, seed: int | None = None) -> SAE:
        """An autoencoder as this recipe makes it, trained once for this training and seed (else the setting's)."""
        seed, training = self.setting.seed if seed is None else seed, self.training
        marks = [name.replace(" ", "-"), width, training.k, training.tokens, training.epochs, seed]
        folder = self.setting.into / "-".join(map(str, marks))
        if not (folder / "dictionary.json").exists():
            recipe = make(self.site, self.sample, width, training.k, torch.Generator().manual_seed(seed))
            self._learn(recipe, f"{name}, {width} wide, seed {seed}", seed)
            recipe.dictionary.requires_grad_(False)
            save_dictionary(recipe.dictionary, folder)
        return load_dictionary(folder).requires_grad_(False).to(self.setting.device)

    def _learn(self, recipe: Recipe, name: str, seed: int) -> None:
        """With one seed, the same rows in the same order for all."""
        training, device = self.training, self.setting.device
        steps = self.activations.batches_in(training.epochs, training.batch)
        batches = self.activations.batches(training.batch, epochs=training.epochs, seed=seed)
        schedule = WarmUp(50) * Linear(int(0.3 * steps), steps + 1)
        learned, objective = recipe.dictionary.to(device), recipe.objective.to(device)
        moved = (batch.to(device) for batch in batches)
        with self.watch.stage(f"fit {name}", steps, "steps") as advance:
            for step in fit(learned, moved, objective, lr=training.rate, schedule=schedule):
                advance(step.index)
