"""SAELens: cfg.json beside sae_weights.safetensors. Version 6 and the flat descriptions before it.

https://github.com/decoderesearch/SAELens
"""

# ruff: noqa: N803, N806  (weights are named as papers and files name them)

from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from microtome.core.component import Dictionary
from microtome.core.errors import Refusal
from microtome.core.hook_names import hook_name
from microtome.dictionaries.activation_functions import AbsTopK, Activation, BatchTopK, Gated, JumpReLU, ReLU, TopK
from microtome.dictionaries.formats.format import Format, Published, Source, write_json
from microtome.dictionaries.formats.plain import Plain, gated, jump_relu, magnitude_bias, numbers, plain, thresholds
from microtome.dictionaries.formats.sites import site_of
from microtome.dictionaries.formats.tensor_files import write_safetensors
from microtome.dictionaries.normalisation import LayerNorm, Normalisation, Unchanged, UnitMeanSquare, UnitNorm

CONFIG, WEIGHTS, SCALER = "cfg.json", "sae_weights.safetensors", "activation_scaler.json"
OLD_NAMES = {"hook_point": "hook_name", "activation_fn_str": "activation_fn"}
KNOWN = (
    "standard", "gated", "topk", "abstopk", "jumprelu", "transcoder", "skip_transcoder", "jumprelu_transcoder",
    "jumprelu_skip_transcoder",
)  # fmt: skip
UNKNOWN_NORM = "expected_average_only_in"


class SAELens(Format):
    """cfg.json and sae_weights.safetensors; encoders are stored (d, n)."""

    name, owner = "saelens", "SAELens"

    def why_not(self, source: Source) -> str | None:
        return source.lacks(CONFIG, WEIGHTS)

    def load(self, source: Source) -> Published:
        config = modern(source.json(CONFIG))
        found = source.tensors(WEIGHTS)
        about = config["metadata"]
        if config["architecture"] not in KNOWN:
            raise Refusal(
                f"{source.path} is a SAELens dictionary of architecture {config['architecture']!r}; this version reads "
                f"{', '.join(KNOWN)}"
            )
        here = source.place(about.get("hook_name"))
        there = site_of(about["hook_name_out"]) if "transcoder" in config["architecture"] else here
        W_enc, W_dec, b_dec = numbers(found, "W_enc", "W_dec", "b_dec")
        if "scaling_factor" in found or "finetuning_scaling_factor" in found:
            W_dec = rescaled(W_dec, found)
        b_enc, activation = encoder(config, found)
        if config.get("rescale_acts_by_decoder_norm"):
            lengths = W_dec.norm(dim=1)
            W_enc, b_enc, W_dec = W_enc * lengths, b_enc * lengths, W_dec / lengths[:, None]
        units, notes = units_of(config, source, W_enc.shape[0])
        subtracts = bool(config["apply_b_dec_to_input"]) and "transcoder" not in config["architecture"]
        what = Plain(
            here, there, W_enc.T.contiguous(), b_enc, W_dec, b_dec, activation, subtracts,
            W_skip=numbers(found, "W_skip")[0] if "W_skip" in found else None, units=units,
        )  # fmt: skip
        if config.get("reshape_activations") == "hook_z" or ".hook_z" in str(about.get("hook_name")):
            notes = [*notes, "it reads the heads of a place side by side, as one vector"]
        claims = {"d_in": config["d_in"], "width": config["d_sae"]}
        return Published([what.dictionary()], subtracts if what.is_autoencoder else None, claims, notes)

    def write_one(self, dictionary: Dictionary, folder: Path) -> None:
        what = plain(dictionary)
        tensors = {"W_enc": what.W_enc.T, "W_dec": what.W_dec, "b_dec": what.b_dec}
        architecture, more, settings = written_activation(what)
        if not what.is_autoencoder:
            architecture = as_transcoder(architecture, what)
            settings["d_out"] = what.W_dec.shape[1]
        if what.W_skip is not None:
            tensors["W_skip"] = what.W_skip
        config = {
            "architecture": architecture, "d_in": what.W_enc.shape[1], "d_sae": what.width, "dtype": "float32",
            "device": "cpu", "apply_b_dec_to_input": what.subtracts, "normalize_activations": written_units(what.units),
            "reshape_activations": "none", **settings, "metadata": metadata(what),
        }  # fmt: skip
        write_safetensors(tensors | more, folder / WEIGHTS)
        write_json(config, folder / CONFIG)


def modern(config: dict[str, Any]) -> dict[str, Any]:
    """A description of any version as one of version 6, its defaults filled in."""
    flat = {OLD_NAMES.get(key, key): value for key, value in config.items()}
    if not isinstance(flat.get("metadata"), dict):
        flat["metadata"] = {key: value for key, value in flat.items() if key != "metadata"}
    kwargs = flat.get("activation_fn_kwargs") or {}
    if flat.get("activation_fn") == "topk" and "k" in kwargs:
        flat |= {"architecture": "topk", "k": kwargs["k"]}
    given = flat.get("normalize_activations")
    if not isinstance(given, str):
        flat["normalize_activations"] = UNKNOWN_NORM if given else "none"
    defaults = {"architecture": "standard", "apply_b_dec_to_input": True}
    complete = defaults | {key: value for key, value in flat.items() if value is not None}
    missing = [key for key in ("d_in", "d_sae") if key not in complete]
    if missing:
        raise Refusal(f"its cfg.json has no {missing[0]!r}, so it is no description of SAELens")
    return complete


def encoder(config: dict[str, Any], found: dict[str, Tensor]) -> tuple[Float[Tensor, "n"], Activation]:
    """The bias of the encoder and the activation, as the architecture says."""
    kind = config["architecture"]
    if kind == "gated":
        b_gate, b_mag, r_mag = numbers(found, "b_gate", "b_mag", "r_mag")
        return b_gate, gated(r_mag, b_mag, b_gate)
    (b_enc,) = numbers(found, "b_enc")
    if kind.startswith("jumprelu"):
        logarithms = numbers(found, "log_threshold")[0].exp() if "log_threshold" in found else None
        return b_enc, jump_relu(numbers(found, "threshold")[0] if logarithms is None else logarithms)
    if kind in ("topk", "abstopk"):
        return b_enc, {"topk": TopK, "abstopk": AbsTopK}[kind](int(config["k"]))
    return b_enc, ReLU()


def rescaled(W_dec: Float[Tensor, "n d"], found: dict[str, Tensor]) -> Float[Tensor, "n d"]:
    """Decoder rows times the factors that a fine-tuning gave the latents."""
    name = next(n for n in ("finetuning_scaling_factor", "scaling_factor") if n in found)
    (factors,) = numbers(found, name)
    if bool((factors == 1).all()):
        return W_dec
    if factors.shape != W_dec.shape[:1]:
        raise Refusal(f"{name} has the shape {tuple(factors.shape)}; one factor for each latent is what is known here")
    return W_dec * factors[:, None]


def units_of(config: dict[str, Any], source: Source, d_in: int) -> tuple[Normalisation, list[str]]:
    """The normalisation that the description names, and what to say of it."""
    match config["normalize_activations"]:
        case "none":
            return Unchanged(d_in), []
        case "layer_norm":
            return LayerNorm(d_in), []
        case "constant_norm_rescale":
            return UnitNorm(d_in), []
        case "expected_average_only_in" if (source.path / SCALER).is_file():
            units = UnitMeanSquare(d_in)
            units.scale.fill_(1 / float(source.json(SCALER)["scaling_factor"]))
            return units, [f"activations are scaled as {SCALER} says"]
        case "expected_average_only_in":
            return Unchanged(d_in), [
                "it expects activations scaled to a mean norm of sqrt(d), by a factor that the file does not hold; "
                "scale them before, or its figures are wrong"
            ]
        case other:
            raise Refusal(f"activations are normalised by {other!r}, which this version cannot read; fold it before")


def written_activation(what: Plain) -> tuple[str, dict[str, Tensor], dict[str, Any]]:
    """(architecture, tensors, settings) for an activation."""
    match what.activation:
        case Gated() as gate:
            more = {"b_gate": what.b_enc, "b_mag": magnitude_bias(gate, what.b_enc), "r_mag": gate.r.detach()}
            return "gated", more, {}
        case TopK(k=k) | AbsTopK(k=k):
            kind = type(what.activation).__name__.lower()
            return kind, {"b_enc": what.b_enc}, {"k": k, "rescale_acts_by_decoder_norm": False}
        case JumpReLU() | BatchTopK():
            found = thresholds(what.activation, what.width, "SAELens")
            return "jumprelu", {"b_enc": what.b_enc, "threshold": found}, {}
        case ReLU():
            return "standard", {"b_enc": what.b_enc}, {}
        case other:
            raise Refusal(f"SAELens has no place for {type(other).__name__}; --to microtome has one")


def as_transcoder(architecture: str, what: Plain) -> str:
    kinds = {"standard": "", "jumprelu": "jumprelu_"}
    if architecture not in kinds:
        raise Refusal(
            f"SAELens has transcoders with ReLU and JumpReLU, and not with {type(what.activation).__name__}; "
            "--to sparsify has TopK"
        )
    return kinds[architecture] + ("skip_transcoder" if what.W_skip is not None else "transcoder")


def written_units(units: Normalisation | None) -> str:
    match units:
        case LayerNorm():
            return "layer_norm"
        case UnitNorm():
            return "constant_norm_rescale"
        case _:
            return "none"


def metadata(what: Plain) -> dict[str, Any]:
    about = {"sae_lens_version": "6.0.0", "hook_name": hook_name(what.reads.name), "prepend_bos": True}
    return about if what.is_autoencoder else about | {"hook_name_out": hook_name(what.writes.name)}
