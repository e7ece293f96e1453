"""The JSON that runs are made of, as pydantic models: each file names its schema and is refused if it has another.

A run folder holds run.json (what was asked, how far it came) and what its command found, one module here for each file.
"""

from microtome.store.records.card import Best, Card, CardRow, Fact, Group, Scored
from microtome.store.records.check import Checked, CheckedSite
from microtome.store.records.circuit import Circuit, FaithfulnessCurve, Judged, Overlap
from microtome.store.records.comparison import Alike, Compared, Comparison
from microtome.store.records.decomposition import Endured, PartedWeight, TakenApart
from microtome.store.records.dynamics import Dynamics, Stretch
from microtome.store.records.explained import Explained, Scores, Spent
from microtome.store.records.graph import Foretold, Graphed, GraphScores, GraphTarget
from microtome.store.records.patch import Patched
from microtome.store.records.plan import Estimate, Plan
from microtome.store.records.record import Record
from microtome.store.records.run import Run, Stage
from microtome.store.records.study import Claim, Result
from microtome.store.records.summary import Baseline, Figures, Summary

__all__ = [
    "Alike",
    "Baseline",
    "Best",
    "Card",
    "CardRow",
    "Checked",
    "CheckedSite",
    "Circuit",
    "Claim",
    "Compared",
    "Comparison",
    "Dynamics",
    "Endured",
    "Estimate",
    "Explained",
    "Fact",
    "FaithfulnessCurve",
    "Figures",
    "Foretold",
    "GraphScores",
    "GraphTarget",
    "Graphed",
    "Group",
    "Judged",
    "Overlap",
    "PartedWeight",
    "Patched",
    "Plan",
    "Record",
    "Result",
    "Run",
    "Scored",
    "Scores",
    "Spent",
    "Stage",
    "Stretch",
    "Summary",
    "TakenApart",
]
