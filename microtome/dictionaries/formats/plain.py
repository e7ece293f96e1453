"""What a dictionary comes down to when its units are folded into its weights: the numbers that formats hold."""

# ruff: noqa: N803, N806  (weights are named as papers and files name them)

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import singledispatch

import torch
from jaxtyping import Float
from torch import Tensor, nn

from microtome.core.component import Dictionary
from microtome.core.errors import Refusal
from microtome.core.site import Site
from microtome.dictionaries.activation_functions import Activation, BatchTopK, Gated, JumpReLU, ReLU
from microtome.dictionaries.constraints import Free
from microtome.dictionaries.cross_layer import CrossLayerTranscoder
from microtome.dictionaries.crosscoder import Crosscoder
from microtome.dictionaries.matching_pursuit import MatchingPursuit
from microtome.dictionaries.normalisation import Fixed, Normalisation, OfToken, Unchanged
from microtome.dictionaries.sae import SAE
from microtome.dictionaries.transcoder import Transcoder


@dataclass(frozen=True)
class Plain:
    """codes = activation(W_enc (x' - b_dec) + b_enc), or W_enc x' + b_enc where it does not subtract.

    written = W_dec codes + b_dec (+ W_skip x'). Where it reads and writes one site it is an autoencoder, and `units`
    are its normalisation; elsewhere a transcoder that reads in `units` and writes in `units_out`.
    """

    reads: Site
    writes: Site
    W_enc: Float[Tensor, "n d_in"]
    b_enc: Float[Tensor, "n"]
    W_dec: Float[Tensor, "n d_out"]
    b_dec: Float[Tensor, "d_out"]
    activation: Activation
    subtracts: bool = False
    W_skip: Float[Tensor, "d_out d_in"] | None = None
    units: Normalisation | None = None
    units_out: Normalisation | None = None

    @property
    def width(self) -> int:
        return len(self.W_enc)

    @property
    def is_autoencoder(self) -> bool:
        return self.reads == self.writes and self.W_skip is None

    def subtracting(self, wanted: bool) -> "Plain":
        """The same function, its bias taken from the input or not. A transcoder takes none."""
        if self.subtracts == wanted:
            return self
        sign = 1 if wanted else -1
        moved = self.b_enc.double() + sign * self.W_enc.double() @ self.b_dec.double()
        return replace(self, b_enc=moved.to(self.b_enc.dtype), subtracts=wanted)

    def dictionary(self) -> SAE | Transcoder:
        """Raises Refusal where the shapes do not belong together, or the wiring is none that is known here."""
        self._refuse_shapes()
        return self._autoencoder() if self.is_autoencoder else self._transcoder()

    def _refuse_shapes(self) -> None:
        n, d_in = self.W_enc.shape
        d_out = self.W_dec.shape[1]
        wanted = {"W_dec": (n, d_out), "b_enc": (n,), "b_dec": (d_out,)}
        if self.reads == self.writes:
            wanted["W_dec"], wanted["b_dec"] = (n, d_in), (d_in,)
        for name, shape in wanted.items():
            if tuple(getattr(self, name).shape) != shape:
                raise Refusal(
                    f"{name} has the shape {tuple(getattr(self, name).shape)}, and beside a W_enc of {n} latents that "
                    f"read {d_in} dimensions it must have {shape}; the file is of another format, or damaged"
                )

    def _autoencoder(self) -> SAE:
        kept = self.subtracting(True)
        made = SAE(self.reads, self.W_enc.shape[1], self.width, self.activation, self.units, Free())
        fill(made, W_enc=kept.W_enc, b_enc=kept.b_enc, W_dec=kept.W_dec, b_dec=kept.b_dec)
        return made

    def _transcoder(self) -> Transcoder:
        if self.subtracts:
            raise Refusal(
                f"this file reads {self.reads}, writes {self.writes} and takes its decoder's bias from the input, as "
                "no transcoder here does; give the one site it belongs to, if it is an autoencoder"
            )
        skip = self.W_skip is not None
        made = Transcoder(
            self.reads, self.writes, self.W_enc.shape[1], self.W_dec.shape[1], self.width, self.activation,
            self.units, self.units_out, Free(), skip=skip,
        )  # fmt: skip
        fill(made, W_enc=self.W_enc, b_enc=self.b_enc, W_dec=self.W_dec, b_dec=self.b_dec)
        if self.W_skip is not None:
            fill(made, W_skip=self.W_skip)
        return made


@torch.no_grad()
def fill(module: nn.Module, **numbers: Tensor) -> None:
    """Copy numbers into parameters of the same shape, and let nothing learn."""
    for name, values in numbers.items():
        module.get_parameter(name).copy_(values)
    module.requires_grad_(False)


# ---------------------------------------------------------------- units folded into the weights


@singledispatch
def folded(dictionary: Dictionary) -> Dictionary:
    """The same dictionary whose fixed units are part of its weights: same codes, same reconstruction.

    Units of a token (layer norm, unit norm) stay: no weights can do what they do. Raises Refusal for a kind of
    dictionary that has no such form.
    """
    raise Refusal(f"a {type(dictionary).__name__} has no form in which its units are folded into its weights")


@folded.register
def _(dictionary: SAE) -> SAE:
    return plain(dictionary).dictionary()  # type: ignore[return-value]


@folded.register
def _(dictionary: Transcoder) -> Transcoder:
    return plain(dictionary).dictionary()  # type: ignore[return-value]


@folded.register
@torch.no_grad()
def _(dictionary: CrossLayerTranscoder) -> CrossLayerTranscoder:
    activations = iter([stilled(a) for a in dictionary.activations])
    made = CrossLayerTranscoder(
        dictionary.reads, dictionary.writes, dictionary.d, dictionary.each, lambda: next(activations), constraint=Free()
    )
    ins, outs = list(map(fixed_double, dictionary.units_in)), list(map(fixed_double, dictionary.units_out))
    for layer, unit in enumerate(ins):
        made.W_enc[layer], made.b_enc[layer] = read_through(unit, dictionary.W_enc[layer], dictionary.b_enc[layer])
        parts = dictionary.W_dec[layer].double().split(dictionary.d, 1)
        written = [outs[later].writing(part) for later, part in enumerate(parts, layer)]
        made.W_dec[layer].copy_(torch.cat(written, 1))
        made.b_dec[layer] = outs[layer].undo(dictionary.b_dec[layer].double())
    return made.requires_grad_(False)  # type: ignore[return-value]


@folded.register
@torch.no_grad()
def _(dictionary: Crosscoder) -> Crosscoder:
    d = dictionary.W_dec.shape[1] // len(dictionary.reads)
    made = Crosscoder(dictionary.reads, d, len(dictionary), stilled(dictionary.activation), constraint=Free())
    units = list(map(fixed_double, dictionary.units))
    b_enc = dictionary.b_enc.double()
    for place, unit in enumerate(units):
        here = slice(place * d, (place + 1) * d)
        made.W_enc[:, here], b_enc = read_through(unit, dictionary.W_enc[:, here], b_enc)
        made.W_dec[:, here] = unit.writing(dictionary.W_dec[:, here].double())
        made.b_dec[here] = unit.undo(dictionary.b_dec[here].double())
    made.b_enc.copy_(b_enc)
    return made.requires_grad_(False)  # type: ignore[return-value]


@folded.register
@torch.no_grad()
def _(dictionary: MatchingPursuit) -> MatchingPursuit:
    if not isinstance(dictionary.normalisation, Unchanged):
        raise Refusal(
            f"matching pursuit in units of {type(dictionary.normalisation).__name__} has no other form: it reads and "
            "writes the same unit rows"
        )
    return dictionary


def read_through(
    unit: Fixed, W_enc: Float[Tensor, "n d"], b_enc: Float[Tensor, "n"]
) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n"]]:
    """Weights and biases that make of x what these make of x in the unit."""
    W = W_enc.double()
    return unit.reading(W), b_enc.double() + W @ unit(W.new_zeros(W.shape[1]))


def fixed_double(unit: nn.Module) -> Fixed:
    assert isinstance(unit, Fixed)
    made = type(unit)(unit.width).double()
    made.load_state_dict(unit.state_dict())
    return made


def stilled(activation: nn.Module) -> Activation:
    """The same activation, with numbers of its own."""
    assert isinstance(activation, Activation)
    made = type(activation)(**activation.settings())
    made.load_state_dict(activation.state_dict())
    return made


# ---------------------------------------------------------------- as plain numbers


@singledispatch
def plain(dictionary: Dictionary) -> Plain:
    """An autoencoder or transcoder as numbers, its fixed units folded in. Raises Refusal for other kinds."""
    raise Refusal(
        f"a {type(dictionary).__name__} cannot be written in this format, which holds autoencoders and transcoders; "
        "--to microtome holds everything"
    )


@plain.register
@torch.no_grad()
def _(dictionary: SAE) -> Plain:
    site, units = dictionary.reads[0], dictionary.normalisation
    fixed = fixed_double(units) if isinstance(units, Fixed) else None
    kept = None if fixed else units
    fixed = fixed or Unchanged(units.width)
    return Plain(
        site, site, fixed.reading(dictionary.W_enc.double()).float(), dictionary.b_enc.detach().clone(),
        fixed.writing(dictionary.W_dec.double()).float(), fixed.undo(dictionary.b_dec.double()).float(),
        stilled(dictionary.activation), subtracts=True, units=kept,
    )  # fmt: skip


@plain.register
@torch.no_grad()
def _(dictionary: Transcoder) -> Plain:
    before, after = fixed_double(dictionary.units_in), fixed_double(dictionary.units_out)
    W_enc, b_enc = read_through(before, dictionary.W_enc, dictionary.b_enc)
    b_dec, W_skip = dictionary.b_dec.double(), None
    if dictionary.W_skip is not None:
        W_skip, b_dec = read_through(before, dictionary.W_skip, b_dec)
        W_skip = after.writing(W_skip.T.contiguous()).T.float().contiguous()
    return Plain(
        dictionary.reads[0], dictionary.writes[0], W_enc.float(), b_enc.float(),
        after.writing(dictionary.W_dec.double()).float(), after.undo(b_dec).float(),
        stilled(dictionary.activation), W_skip=W_skip,
    )  # fmt: skip


# ---------------------------------------------------------------- what a format can say of activations and units


def thresholds(activation: Activation, width: int, format_name: str) -> Float[Tensor, "n"]:
    """A latent's threshold, for formats in which each has one. Raises Refusal for activations that have none."""
    match activation:
        case JumpReLU():
            return activation.thresholds.detach().clone()
        case BatchTopK():
            return activation.threshold.detach().float().clamp(min=0).expand(width).clone()
        case ReLU():
            return torch.zeros(width)
        case _:
            raise Refusal(
                f"{format_name} holds a threshold for each latent, and {type(activation).__name__} has none; "
                "use a format that holds it, such as --to saelens"
            )


def jump_relu(values: Float[Tensor, "n"]) -> JumpReLU:
    """A JumpReLU with these thresholds."""
    made = JumpReLU(len(values))
    fill(made, thresholds=values.float())
    return made


def batch_top_k(k: int, threshold: float) -> BatchTopK:
    """A BatchTopK that learned this threshold; one below zero was never set, and all that is positive is active."""
    made = BatchTopK(k)
    made.threshold.fill_(max(0.0, threshold))
    return made


def gated(r: Float[Tensor, "n"], b_mag: Float[Tensor, "n"], b_gate: Float[Tensor, "n"]) -> Gated:
    """The gate that published files describe: there gate and magnitude have a bias each over the same product."""
    made = Gated(len(r))
    fill(made, r=r.float(), b=(b_mag.double() - r.double().exp() * b_gate.double()).float())
    return made


def magnitude_bias(activation: Gated, b_gate: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """The magnitude's own bias, as published files have it."""
    return (activation.b.double() + activation.r.double().exp() * b_gate.double()).float().detach()


def refuse_units(what: Plain, format_name: str) -> None:
    """Raises Refusal for units of a token, in formats that do not have them."""
    if isinstance(what.units, OfToken):
        raise Refusal(
            f"{format_name} has no place for {type(what.units).__name__}, which depends on the token; "
            "--to saelens has one"
        )


def refuse_transcoder(what: Plain, format_name: str) -> None:
    if not what.is_autoencoder:
        raise Refusal(
            f"{format_name} holds autoencoders, and this reads {what.reads} and writes {what.writes}; "
            "--to saelens, sparsify, gemma_scope_2 or circuit_tracer holds transcoders"
        )


def refuse_skip(what: Plain, format_name: str) -> None:
    if what.W_skip is not None:
        raise Refusal(f"{format_name} has no place for a skip connection; --to saelens or circuit_tracer has one")


def numbers(found: Mapping[str, Tensor], *names: str) -> list[Tensor]:
    """These tensors in float32. Raises Refusal where one is missing."""
    missing = [name for name in names if name not in found]
    if missing:
        raise Refusal(f"the file holds no {' and no '.join(missing)}, but {', '.join(found)}; it is of another format")
    return [found[name].float() for name in names]
