"""Everything that is asked of a dictionary, asked of its baselines too: one pass over training text, one over held-out.

    found = Examination({"own": sae, "random": chance}, training, held_out, generator=generator)
    for seen in found.reading(model): ...
    rows = [*found.fidelity_rows(), *found.activity_rows()]

Whatever can be had from codes comes from the same two passes, and codes stay sparse. Every score has its interval over
held-out documents.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from microtome.core.component import Dictionary
from microtome.core.edit import written_site
from microtome.core.errors import Refusal
from microtome.core.model import Model
from microtome.core.site import Site
from microtome.data.labels import LABELS
from microtome.data.windows import Text
from microtome.evals import faithfulness, fidelity
from microtome.evals.absorption import FOUND, absorbed, main_components
from microtome.evals.biases import all_examples, bias_of, mean_purity, top_examples
from microtome.evals.faithfulness import Faithfulness
from microtome.evals.fidelity import Fidelity
from microtome.evals.firings import Firings
from microtome.evals.identification import Detector, detectors, judged
from microtome.evals.interval import Interval, Score, f1, mean_f1, over_documents, over_fits
from microtome.evals.logistic import Logistic
from microtome.evals.probing import KS, Kept, Says, linear_probe, sparse_probing
from microtome.evals.truth import FACTS, Truth, chance, missing
from microtome.store.records import CardRow, Fact, Group, Scored
from microtome.store.survey import Witness, surveying

OWN, REFIT = "own", "refit "  # the dictionary; how names of the same, fitted from other seeds, begin
DENSE = 0.1  # of tokens: a component that fires on more is called dense
Best = str


@dataclass
class Asked:
    """One dictionary under examination: what it did on training text and on held-out text."""

    dictionary: Dictionary
    training: Firings = field(init=False)
    held_out: Firings = field(init=False)
    fidelity: Fidelity = field(init=False)

    def __post_init__(self) -> None:
        self.training, self.held_out = Firings(self.dictionary), Firings(self.dictionary)
        self.fidelity = Fidelity(self.dictionary)


class Examination:
    """A dictionary (`own`) and what it must beat, on one text to learn from and another to be judged by.

    Dictionaries whose names begin with `refit` are the same one, fitted from other seeds: every score of the
    dictionary then also has its mean and interval over all of these.

    `labels` are those that are asked for, `known` all that the texts carry, in order; without labels nothing is probed.
    Labels without an example are left out, and `left_out` names them. Raises Refusal where a dictionary writes at
    several sites or reads several, and where labels do not align to tokens.
    """

    def __init__(
        self,
        dictionaries: Mapping[str, Dictionary],
        training: Text,
        held_out: Text,
        *,
        generator: torch.Generator,
        labels: Sequence[str] = FACTS,
        known: Sequence[str] = LABELS,
    ):
        for dictionary in dictionaries.values():
            refuse_several_sites(dictionary)
        self.asked = {name: Asked(d) for name, d in dictionaries.items()}
        self.texts, self.generator = (training, held_out), generator
        truths = [Truth.of(text, labels, known) for text in self.texts] if labels else []
        self.left_out = missing(*truths) if truths else []
        self.training, self.held_out = ([t.without(self.left_out) for t in truths] + [None, None])[:2]
        self.says: Says | None = None

    # ------------------------------------------------------------ the two passes

    @property
    def labelled(self) -> bool:
        """Whether there is a label to probe for."""
        return self.training is not None and len(self.training.names) > 0

    def reading(self, model: Model, width: int, *, batch: int = 16) -> Iterator[int]:
        """Both passes, yielding how many windows have been seen; `width` is that of what the dictionary reads."""
        own, (training, held_out) = self.asked[OWN].dictionary, self.texts
        witnesses = [a.training for a in self.asked.values()]
        kept = Kept(own, training.tokens[:, 1:].numel(), width)
        yield from surveying(model, [*witnesses, kept], training.tokens, batch=batch)
        last: list[Witness] = [w for a in self.asked.values() for w in (a.held_out, a.fidelity)]
        if self.labelled:
            assert self.training is not None
            self.says = Says(own, linear_probe(kept, self.training))
            last.append(self.says)
        for seen in surveying(model, last, held_out.tokens, batch=batch):
            yield len(training) + seen

    @property
    def probe(self) -> Logistic:
        """The linear probe of every label on what the dictionary reads."""
        assert self.says is not None
        return self.says.probe

    @cached_property
    def document(self) -> Int[Tensor, "windows"]:
        """The document of each held-out window."""
        return torch.from_numpy(self.texts[1].document).long()

    @property
    def sites(self) -> list[Site]:
        """Where somebody writes."""
        return list(dict.fromkeys(written_site(a.dictionary) for a in self.asked.values()))

    @property
    def documents(self) -> int:
        """How many held-out documents there are."""
        return len(self.texts[1].documents)

    # ------------------------------------------------------------ scores

    def scored(self, sums: Float[Tensor, "documents sums"], score: Score) -> Interval:
        """A score with its interval over documents."""
        return over_documents(sums, score, self.generator)

    def row(
        self, group: Group, name: str, best: Best, about: str, of: Callable[[str, Asked], Interval | None]
    ) -> CardRow:
        """One score of everybody; those of whom it cannot be taken are left out."""
        found = {each: of(each, asked) for each, asked in self.asked.items()}
        scores = as_scores({each: interval for each, interval in found.items() if interval is not None})
        return CardRow.model_validate({"name": name, "group": group, "about": about, "best": best, "scores": scores})

    @cached_property
    def sums(self) -> dict[str, Float[Tensor, "documents sums"]]:
        """The sums over each document of what fidelity is made of, by dictionary."""
        return {name: a.fidelity.sums(self.document, self.documents) for name, a in self.asked.items()}

    def fidelity_rows(self) -> list[CardRow]:
        """Explained variance."""
        about = "1 - sum |x - x̂|² / sum |x - mean|² over held-out tokens; 0 for whoever predicts the mean"
        return [
            self.row("reconstruction", "explained variance", "high", about,
                     lambda name, _: self.scored(self.sums[name], fidelity.explained)),
        ]  # fmt: skip

    def activity_rows(self) -> list[CardRow]:
        """L0, how many components never fire, and how many fire nearly always."""
        tokens = self.texts[1].tokens[:, 1:].numel()

        def share(which: Callable[[Tensor], Tensor]) -> Callable[[str, Asked], Interval]:
            return lambda _, a: Interval(which(a.held_out.fired).float().mean().item())

        return [
            self.row("activity", "L0", "none", "active components per token",
                     lambda name, _: self.scored(self.sums[name], fidelity.l0)),
            self.row("activity", "median density", "none", "the share of tokens on which the median component fires",
                     lambda _, a: Interval(a.held_out.fired.double().median().item() / tokens)),
            self.row("activity", "dead", "low", "share of components that fire on none of the held-out tokens",
                     share(lambda fired: fired == 0)),
            self.row("activity", "dense", "low", "share of components that fire on more than a tenth of the tokens",
                     share(lambda fired: fired > DENSE * tokens)),
        ]  # fmt: skip

    def faithfulness_rows(self, model: Model, windows: Int[Tensor, "some"]) -> Iterator[list[CardRow]]:
        """What survives in the network when each dictionary stands in for its site, on some held-out windows.

        Yields nothing until the last dictionary is measured, but for empty lists as it goes.
        """
        found: dict[str, Tensor] = {}
        for site in self.sites:
            here = [n for n, a in self.asked.items() if written_site(a.dictionary) == site]
            mean = fidelity.mean_of(self.sums[here[0]])
            measuring = Faithfulness([self.asked[n].dictionary for n in here], mean)
            parts = []
            for part in measuring.measuring(model, self.texts[1].tokens[windows]):
                parts.append(part)
                yield []
            for way, name in enumerate(here):
                found[name] = faithfulness.by_way(parts, way, self.document[windows], self.documents)
        yield [self._faithful(found, *line) for line in FAITHFUL]

    def _faithful(self, found: dict[str, Tensor], name: str, best: Best, about: str, score: Score) -> CardRow:
        return self.row("faithfulness", name, best, about, lambda each, _: self.scored(found[each], score))

    # ------------------------------------------------------------ labels

    @cached_property
    def detectors(self) -> dict[str, list[Detector]]:
        """The best single detector of each label, of everybody."""
        assert self.training is not None
        return {name: detectors(a.training, self.training) for name, a in self.asked.items()}

    def facts(self) -> list[Fact]:
        """For every label the best component's F1 on held-out documents, beside chance and the linear probe."""
        assert self.held_out is not None and self.says is not None
        sums = {n: judged(self.detectors[n], a.held_out, self.held_out) for n, a in self.asked.items()}
        beside = {"chance": chance(self.held_out), "linear": self.says.judged(self.held_out)}
        found = {n: [self.scored(part, f1) for part in s.split(3, 1)] for n, s in (sums | beside).items()}
        return [
            Fact(
                name=label, tokens=int(self.held_out.positives[i]), component=one.component, sign=one.sign,
                threshold=one.threshold, scores=as_scores({n: found[n][i] for n in self.asked}),
                **{n: as_scored(found[n][i]) for n in beside},
            )
            for i, (label, one) in enumerate(zip(self.held_out.names, self.detectors[OWN], strict=True))
        ]  # fmt: skip

    def probing_rows(self, ks: Sequence[int] = KS) -> Iterator[CardRow]:
        """Mean F1 over labels of single detectors, of sparse probes on k components, and of the linear probe."""
        assert self.training is not None and self.held_out is not None and self.says is not None
        training, held_out = self.training, self.held_out
        linear = self.scored(self.says.judged(held_out), mean_f1)

        def single(name: str, a: Asked) -> Interval:
            return self.scored(judged(self.detectors[name], a.held_out, held_out), mean_f1)

        def told(name: str, a: Asked) -> Interval:
            sums = judged(self.detectors[name], a.held_out, held_out)
            return self.scored(sums, lambda s: (f1(s.unflatten(-1, (-1, 3))) >= TOLD).double().mean(-1))

        yield self.row("probing", "best single component", "high",
                       "mean over labels of held-out F1 of the best component with a threshold", single)  # fmt: skip
        yield self.row("probing", "labels told by one component", "high",
                       f"share of labels of which one component has a held-out F1 of {TOLD} or more", told)  # fmt: skip
        for k in ks:
            yield self.row(
                "probing", f"sparse probe, k = {k}", "high",
                f"mean held-out F1 of a logistic regression on the {k} components whose means differ most",
                lambda _, a, k=k: self._sparse(a, k, training, held_out),
            )  # fmt: skip
        yield self.row("probing", "linear probe on activations", "high",
                       "mean held-out F1 of a logistic regression on what the dictionary reads",
                       lambda name, _: linear if name == OWN else None)  # fmt: skip

    def _sparse(self, asked: Asked, k: int, training: Truth, held_out: Truth) -> Interval | None:
        if k > asked.training.width:
            return None
        return self.scored(sparse_probing((asked.training, training), (asked.held_out, held_out), k), mean_f1)

    # ------------------------------------------------------------ absorption

    def absorption_rows(self) -> list[CardRow]:
        """Absorbed tokens and split labels, over labels that the linear probe tells with a held-out F1 of .6."""
        labels = self._well_told()
        if not labels:
            return []
        assert self.training is not None
        main = {n: main_components(a.training, self.training) for n, a in self.asked.items() if in_place(a.dictionary)}

        def rate(name: str, asked: Asked) -> Interval | None:
            if name not in main:
                return None
            sums = torch.stack([self._absorbed(asked, label, main[name][label]) for label in labels]).sum(0)
            return self.scored(sums, lambda s: s[..., 0] / s[..., 1])

        def parts(name: str, _: Asked) -> Interval | None:
            return Interval(sum(len(main[name][i]) for i in labels) / len(labels)) if name in main else None

        about = f"over the {len(labels)} labels that the linear probe tells with F1 .6:"
        return [
            self.row("absorption", "absorbed", "low", f"{about} share of tokens where another component took it over",
                     rate),
            self.row("absorption", "components a label", "one", f"{about} components each is split into", parts),
        ]  # fmt: skip

    def _well_told(self) -> list[int]:
        assert self.says is not None and self.held_out is not None
        found = f1(self.says.judged(self.held_out).sum(0).unflatten(-1, (-1, 3)))
        return (found >= FOUND).nonzero()[:, 0].tolist()

    def _absorbed(self, asked: Asked, label: int, main: list[int]) -> Tensor:
        assert self.says is not None and self.held_out is not None
        above, direction = self.says.above[:, label], self.probe.weight[:, label]
        return absorbed(asked.held_out, self.held_out, label, main, above, direction)

    # ------------------------------------------------------------ biases

    def bias_rows(self) -> Iterator[CardRow]:
        """Shrinkage and what undoes it, what the bias carries, and what top examples promise."""
        yield self.row("biases", "size of reconstructions", "one", "|x̂|² / x·x̂ about the means; below 1 is shrinkage",
                       lambda name, _: self.scored(self.sums[name], fidelity.size))  # fmt: skip
        yield self.row("biases", "explained variance, size mended", "high",
                       "explained variance once x̂ is multiplied by the one number that serves best",
                       lambda name, _: self.scored(self.sums[name], fidelity.explained_once_sized))  # fmt: skip
        yield self.row("biases", "share of |x|² in the bias", "none",
                       "1 - sum |x - b|² / sum |x|², where b is written when all is silent", self._in_bias)  # fmt: skip
        yield self.row("biases", "share of |x|² in the mean", "none",
                       "1 - sum |x - mean|² / sum |x|²: no bias has more",
                       lambda name, _: self.scored(self.sums[name], fidelity.mean_explains))  # fmt: skip
        if self.labelled:
            yield from self._selection()

    def _in_bias(self, name: str, asked: Asked) -> Interval:
        return self.scored(self.sums[name], fidelity.constant_explains(bias_of(asked.dictionary)))

    def _selection(self) -> Iterator[CardRow]:
        assert self.training is not None and self.held_out is not None
        held_out = self.held_out
        shown = {name: top_examples(a.training, self.training) for name, a in self.asked.items()}

        def promised(name: str, _: Asked) -> Interval:
            return Interval(float(shown[name].purity.mean()))

        def kept(name: str, asked: Asked) -> Interval:
            return self.scored(all_examples(shown[name], asked.held_out, held_out), mean_purity)

        yield self.row(
            "biases",
            "purity of top examples",
            "none",
            "share of a component's 20 strongest training examples with their commonest label",
            promised,
        )
        yield self.row(
            "biases",
            "purity of all examples",
            "high",
            "share with that label of all held-out tokens on which the component fires",
            kept,
        )


TOLD = 0.8
FAITHFUL: tuple[tuple[str, Best, str, Score], ...] = (
    ("cross-entropy recovered", "high", "(CE mean-ablated - CE spliced) / (CE mean-ablated - CE clean)",
     faithfulness.share(faithfulness.LOSS)),
    ("divergence recovered", "high", "1 - KL(clean || spliced) / KL(clean || mean-ablated)",
     faithfulness.share(faithfulness.DIVERGENCE)),
    ("cross-entropy lost", "low", "nats a token that prediction is worse with the dictionary spliced in",
     lambda sums: faithfulness.mean(faithfulness.LOSS)(sums)
     - faithfulness.mean(faithfulness.LOSS, faithfulness.CLEAN)(sums)),
    ("divergence", "low", "KL(clean || spliced), nats a token", faithfulness.mean(faithfulness.DIVERGENCE)),
    ("accuracy", "high", "share of next tokens that are guessed right with the dictionary spliced in",
     faithfulness.mean(faithfulness.RIGHT)),
    ("same guess", "high", "share of next tokens of which the guess is that of the untouched network",
     faithfulness.mean(faithfulness.AGREE)),
)  # fmt: skip


def refuse_several_sites(dictionary: Dictionary) -> None:
    """Raises Refusal for a dictionary that reads, or writes, at several sites."""
    written_site(dictionary)
    if len(dictionary.reads) != 1:
        raise Refusal(
            f"{type(dictionary).__name__} reads at {len(dictionary.reads)} sites; a card is of one that reads one"
        )


def in_place(dictionary: Dictionary) -> bool:
    """Whether a dictionary writes where it reads, so that what it writes is part of what a probe sees."""
    return dictionary.reads == dictionary.writes


def as_scores(found: Mapping[str, Interval]) -> dict[str, Scored]:
    """As they are written: the same dictionary fitted from other seeds is told with the dictionary itself."""
    scores = {name: as_scored(interval) for name, interval in found.items() if not name.startswith(REFIT)}
    fits = [interval.found for name, interval in found.items() if name == OWN or name.startswith(REFIT)]
    if len(fits) > 1:
        scores[OWN] = scores[OWN].model_copy(update={"fits": as_scored(over_fits(fits))})
    return scores


def as_scored(interval: Interval) -> Scored:
    """As it is written: what is no finite number is left empty."""
    return Scored(**{
        name: value if value is not None and torch.tensor(value).isfinite() else None
        for name, value in vars(interval).items()
    })  # fmt: skip
