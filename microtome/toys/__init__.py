"""Networks whose truth is known: what a method finds in them can be held against what is there."""

from microtome.toys.absolute_value import AbsoluteValue
from microtome.toys.gated_trigonometry import GatedTrigonometry
from microtome.toys.induction import AttentionOnly, Repeating
from microtome.toys.modular import ModularAddition
from microtome.toys.reduced_rank import ReducedRank, learning_coefficient
from microtome.toys.residual_mlp import ResidualMLP
from microtome.toys.sparse import Sparse
from microtome.toys.superposition import Superposition, superposition

__all__ = [
    "AbsoluteValue",
    "AttentionOnly",
    "GatedTrigonometry",
    "ModularAddition",
    "ReducedRank",
    "Repeating",
    "ResidualMLP",
    "Sparse",
    "Superposition",
    "learning_coefficient",
    "superposition",
]
