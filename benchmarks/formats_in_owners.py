"""Do the files that we write load in the libraries that own the formats, with the same numbers? Run by hand.

    python benchmarks/formats_in_owners.py --saelens PYTHON --dictionary-learning PYTHON --sparsify PYTHON ...

Each PYTHON is an interpreter with that library installed (and torch). Dictionaries with random numbers are written
here, read there, and the codes and reconstructions of the same rows compared. Prints one line for each; exits with 1
if any differs by more than 1e-5, relative.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from microtome.core.component import Dictionary
from microtome.core.site import Site
from microtome.dictionaries.activation_functions import Activation, BatchTopK, Gated, JumpReLU, ReLU, TopK
from microtome.dictionaries.constraints import Free
from microtome.dictionaries.formats.registry import write
from microtome.dictionaries.normalisation import LayerNorm, Normalisation, OfToken, UnitMeanSquare
from microtome.dictionaries.sae import SAE
from microtome.dictionaries.transcoder import Transcoder

D, N, K, ROWS = 32, 128, 8, 64
NEAR = 1e-5

# What runs in the other interpreter: `folder` and the tensor `x` are given, `codes` and `recon` are wanted.
OWNERS: dict[str, str] = {
    "saelens": """
from sae_lens import SAE
sae = SAE.load_from_disk(folder)
codes = sae.encode(x)
recon = sae(x)
""",
    "dictionary_learning": """
from dictionary_learning.utils import load_dictionary
ae, config = load_dictionary(folder, device="cpu")
codes = ae.encode(x)
recon = ae.decode(codes)
""",
    "sparsify": """
import glob, os
from sparsify import SparseCoder
coder = SparseCoder.load_from_disk(os.path.dirname(glob.glob(folder + "/**/cfg.json", recursive=True)[0]), device="cpu")
found = coder.encode(x)
codes = torch.zeros(len(x), coder.num_latents).scatter(1, found.top_indices, found.top_acts)
recon = coder.decode(found.top_acts, found.top_indices)
if coder.W_skip is not None:
    recon = recon + x @ coder.W_skip.T
""",
    "openai": """
import glob
import sparse_autoencoder
state = torch.load(glob.glob(folder + "/**/*.pt", recursive=True)[0], weights_only=True)
coder = sparse_autoencoder.Autoencoder.from_state_dict(state)
codes, info = coder.encode(x)
recon = coder.decode(codes, info)
""",
    "circuit_tracer": """
from circuit_tracer.transcoder.single_layer_transcoder import load_transcoder
coder = load_transcoder(folder + "/layer_2.safetensors", 2, device=torch.device("cpu"))
codes = coder.encode(x)
recon = coder.decode(codes, x)
""",
}
AROUND = """
import pathlib, sys, torch, traceback
from safetensors.torch import load_file, save_file
for place in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    folder, x = str(place / "written"), load_file(place / "x.safetensors")["x"]
    try:
        with torch.no_grad():
            {body}
        save_file(dict(codes=codes.float().contiguous(), recon=recon.float().contiguous()), place / "there.safetensors")
    except Exception as error:
        (place / "error.txt").write_text(type(error).__name__ + ": " + " ".join(str(error).split()))
"""


@dataclass(frozen=True)
class Case:
    """One dictionary that a format holds."""

    name: str
    make: Callable[[], Dictionary]


def shaken(made: Dictionary) -> Dictionary:
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
            if "threshold" in name:
                parameter.abs_()
        for name, buffer in made.named_buffers():
            if name.endswith("threshold"):
                buffer.fill_(0.5)
    return made.requires_grad_(False)


def sae(activation: Activation, units: Normalisation | None = None) -> Callable[[], Dictionary]:
    return lambda: shaken(SAE(Site("resid_post.2"), D, N, activation, units or UnitMeanSquare.of(sample()), Free()))


def transcoder(activation: Activation, skip: bool = False) -> Callable[[], Dictionary]:
    sites = Site("mlp_in.2"), Site("mlp_out.2")
    return lambda: shaken(Transcoder(*sites, D, D, N, activation, constraint=Free(), skip=skip))


def sample() -> torch.Tensor:
    return torch.randn(ROWS, D, generator=torch.Generator().manual_seed(0)) * 2 + torch.linspace(-1, 1, D)


CASES: dict[str, list[Case]] = {
    "saelens": [
        Case("relu", sae(ReLU())), Case("topk", sae(TopK(K))), Case("jumprelu", sae(JumpReLU(N))),
        Case("batchtopk", sae(BatchTopK(K))), Case("gated", sae(Gated(N))),
        Case("layer norm", sae(TopK(K), LayerNorm(D))),
        Case("transcoder", transcoder(ReLU())), Case("skip transcoder", transcoder(ReLU(), True)),
        Case("jumprelu transcoder", transcoder(JumpReLU(N))),
    ],
    "dictionary_learning": [
        Case("relu", sae(ReLU())), Case("topk", sae(TopK(K))), Case("jumprelu", sae(JumpReLU(N))),
        Case("batchtopk", sae(BatchTopK(K))), Case("gated", sae(Gated(N))),
    ],
    "sparsify": [
        Case("topk", sae(TopK(K))), Case("transcoder", transcoder(TopK(K))), Case("skip", transcoder(TopK(K), True)),
    ],
    "openai": [Case("relu", sae(ReLU())), Case("topk", sae(TopK(K), LayerNorm(D)))],
    "circuit_tracer": [
        Case("relu", transcoder(ReLU())), Case("jumprelu", transcoder(JumpReLU(N))),
        Case("skip", transcoder(ReLU(), True)),
    ],
}  # fmt: skip


def compare(python: str, owner: str, root: Path) -> dict[str, float | str]:
    """How far the owner's numbers are from ours in each case, relative; or what the library raised."""
    made = {case.name: written(case, owner, root / case.name) for case in CASES[owner]}
    body = ("\n" + " " * 12).join(OWNERS[owner].strip().splitlines())
    done = subprocess.run([python, "-c", AROUND.format(body=body), str(root)], capture_output=True, text=True)
    if done.returncode:
        return dict.fromkeys(made, done.stderr.strip().splitlines()[-1])
    return {name: difference(dictionary, root / name) for name, dictionary in made.items()}


def written(case: Case, owner: str, place: Path) -> Dictionary:
    """The dictionary, after it and the rows to try it on were put into a folder."""
    torch.manual_seed(0)
    made = case.make()
    write(made, place / "written", owner)
    save_file({"x": sample()}, place / "x.safetensors")
    return made


def difference(made: Dictionary, place: Path) -> float | str:
    if (place / "error.txt").exists():
        return (place / "error.txt").read_text()
    there, x = load_file(place / "there.safetensors"), sample()
    codes, units = made.encode(x).dense(), getattr(made, "normalisation", None)
    if isinstance(units, OfToken):  # our codes carry the token's scale
        codes = codes / units.scale(x)
    pairs = [(there["codes"], codes), (there["recon"], made.reconstruct(x))]
    return max(((a - b).norm() / b.norm()).item() for a, b in pairs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for owner in OWNERS:
        parser.add_argument(f"--{owner.replace('_', '-')}", metavar="PYTHON", dest=owner)
    pythons = {owner: python for owner, python in vars(parser.parse_args()).items() if python}
    if not pythons:
        parser.error("give at least one library's interpreter")
    failed = 0
    for owner, python in pythons.items():
        with tempfile.TemporaryDirectory() as place:
            for name, found in compare(python, owner, Path(place)).items():
                ok = isinstance(found, float) and found <= NEAR
                failed += not ok
                said = f"{found:.1e}" if isinstance(found, float) else found
                print(f"{owner:20} {name:20} {'ok' if ok else 'DIFFERS':8} {said}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
