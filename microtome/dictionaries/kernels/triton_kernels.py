"""The steps on a GPU, by programs in Triton; without a GPU, in Triton's interpreter, to see that they are right.

Triton is optional and is not imported before a dictionary asks for these kernels.
"""

import os
from importlib.util import find_spec

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from microtome.core.errors import Refusal
from microtome.dictionaries.kernels.parts import Active, Compared, Extra, Kernels, Rate, Weights


class TritonKernels(Kernels):
    """encode searches in bfloat16 and scores what it finds again in float32; all else is float32.

    `tiles` says how the search is cut up. Raises Refusal where the kernels cannot be used, and for weights that are
    not contiguous float32.
    """

    def __init__(self, weights: Weights, k: int):
        if why := reason(weights.W_enc.device):
            raise Refusal(f"Triton kernels cannot be used: {why}")
        from microtome.dictionaries.kernels.triton_select import Tiles

        for name, weight in weights._asdict().items():
            if weight.dtype != torch.float32 or not weight.is_contiguous():
                kind = str(weight.dtype) + ("" if weight.is_contiguous() else ", not contiguous")
                raise Refusal(f"{name} is {kind}; Triton kernels need contiguous float32: {name}.float().contiguous()")
        super().__init__(weights, k)
        self.tiles = Tiles()
        # The interpreter multiplies no bfloat16: there the copy is rounded to it, and held in float32.
        self.searched = torch.empty_like(weights.W_enc, dtype=None if interpreted() else torch.bfloat16)
        self.reload()

    @staticmethod
    def available(device: torch.device | None = None) -> bool:
        """Whether they can be used for weights on this device, or on any; `reason` says why not."""
        return not reason(device)

    def encode(self, x: Float[Tensor, "rows d"]) -> Active:
        from microtome.dictionaries.kernels import triton_select

        weight, bias = self.weights.W_enc, self.weights.b_enc
        with torch.cuda.device_of(x):
            values, indices = triton_select.largest(x.contiguous(), weight, self.searched, bias, self.k, self.tiles)
        return Active(torch.relu(values), indices)

    def encode_batch(self, x: Float[Tensor, "rows d"]) -> tuple[Active, Float[Tensor, ""]]:
        """The rows x k largest of a whole batch, relu'd, and the least that was kept (BatchTopK, arXiv 2412.06410).

        As many entries a row as the fullest has; those of value zero are not active.
        """
        from microtome.dictionaries.kernels import triton_select

        weight, bias = self.weights.W_enc, self.weights.b_enc
        with torch.cuda.device_of(x):
            found = triton_select.largest_of_batch(x.contiguous(), weight, self.searched, bias, self.k, self.tiles)
        return Active(found.values, found.indices), found.least

    def compare(self, target: Float[Tensor, "rows d"], active: Active) -> Compared:
        from microtome.dictionaries.kernels import triton_sparse

        with torch.cuda.device_of(target):
            return triton_sparse.compare(target.contiguous(), together(active), self.weights.W_dec)

    def update(
        self,
        x: Float[Tensor, "rows d"],
        error: Float[Tensor, "rows d"],
        active: Active,
        gradients: Float[Tensor, "rows k"],
        extra: Extra | None,
        rate: Rate,
    ) -> Bool[Tensor, "n"]:
        """As `Kernels.update` says; no latent may stand twice in `extra`."""
        from microtome.dictionaries.kernels import triton_sparse

        entries = triton_sparse.by_latent(active, gradients, len(self.weights.W_enc))
        some = extra and Extra(*(part.contiguous() for part in extra))
        with torch.cuda.device_of(x):  # Triton starts programs on the current device
            return triton_sparse.update(
                self.weights, self.moments, self.searched, x.contiguous(), error.contiguous(), entries, some, rate
            )

    def reload(self) -> None:
        self.searched.copy_(self.weights.W_enc.detach().to(torch.bfloat16))


def together(active: Active) -> Active:
    """The same entries, without gaps in memory."""
    return Active(active.values.contiguous(), active.indices.contiguous())


def interpreted() -> bool:
    """Whether Triton was asked to interpret its programs; it takes note of this when it is imported, and not later."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on", "y", "t")


def reason(device: torch.device | None = None) -> str:
    """Why they cannot be used for weights on this device, or on any; empty where they can."""
    if find_spec("triton") is None:
        return "the package triton is not installed; PyTorch for CUDA brings it, and so does pip install triton"
    if interpreted():
        return ""
    if not torch.cuda.is_available():
        return "PyTorch sees no CUDA device; with TRITON_INTERPRET=1 they are interpreted on the processor, slowly"
    if device is not None and device.type != "cuda":
        return f"the weights are on {device}; move them first: dictionary.to('cuda')"
    return ""
