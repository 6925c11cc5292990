"""A network as mathematics, and a gradient as the chain rule with its numbers."""

from microgrid.explain.chain_rule import explain
from microgrid.explain.equations import Equation, Equations, Meaning, equations
from microgrid.explain.explanation import Explanation, Path, Term

__all__ = ["Equation", "Equations", "Explanation", "Meaning", "Path", "Term", "equations", "explain"]
