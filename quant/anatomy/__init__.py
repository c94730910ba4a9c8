"""Why a candidate errs: what each rounding contributes to the error of its decisions, and what to try."""

from quant.anatomy.advice import Advice, advise, contrast
from quant.anatomy.anatomy import Anatomy, Effect, Effects, Group, Source, WorstFrame
from quant.anatomy.dissection import dissect

__all__ = [
    "Advice",
    "Anatomy",
    "Effect",
    "Effects",
    "Group",
    "Source",
    "WorstFrame",
    "advise",
    "contrast",
    "dissect",
]
