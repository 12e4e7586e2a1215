"""What is known of the error of a decomposition that was updated many times."""

from __future__ import annotations

import math
from dataclasses import dataclass

#: Perturbations below this share of the norm are the resolution of the pairs in double precision, not a decision.
_NEGLIGIBLE = 1e-6


@dataclass
class Ledger:
    """The error of ``A ~ U S Vh``, entered update by update.

    What the model holds is the exact result of truncations of a table near A: the distance to that table is the
    perturbation, and the truncations are accounted for apart.

    Attributes
    ----------
    cut_off : float
        Frobenius error of the truncations, or a bound of it.
    perturbed : float
        Frobenius distance of the two tables, at most.
    energy : float
        Sum of the squares of all singular values that were cut off, with the weights that fade.
    squares : float
        ``||A||_F**2``, as far as `known`.
    grew : str
        "rows" or "columns" while only those were appended, "" before anything was, "mixed" afterwards.
    """

    cut_off: float = 0.0
    perturbed: float = 0.0
    energy: float = 0.0
    squares: float = 0.0
    known: bool = True
    grew: str = ""

    @property
    def bound(self) -> float:
        """Upper bound of the error."""
        return self.cut_off + self.perturbed

    @property
    def kind(self) -> str:
        """Whether the bound is the error itself up to rounding ("exact") or not ("bound")."""
        exact = self.grew != "mixed" and self.perturbed <= _NEGLIGIBLE * math.sqrt(self.squares)
        return "exact" if exact else "bound"

    def appended(self, how: str, squares: float, cut: float, lost: float) -> None:
        """Enter new rows or columns of this squared norm, with the squared singular values cut off and left out."""
        # while nothing was cut off the residual is zero, and orthogonal to both factors
        self.grew = how if self.cut_off == 0.0 or self.grew == how else "mixed"
        self.cut_off = math.hypot(self.cut_off, math.sqrt(cut)) if self.grew == how else self.cut_off + math.sqrt(cut)
        # other rows than before: the perturbations lie side by side
        self.perturbed = math.hypot(self.perturbed, math.sqrt(lost))
        self.energy += cut
        self.squares += squares

    def changed(self, cut: float, lost: float) -> None:
        """Enter a change in place, with the squared singular values cut off and the norm that was left out."""
        self.grew = "mixed" if self.cut_off > 0.0 or cut > 0.0 else ""
        self.cut_off += math.sqrt(cut)
        self.perturbed += lost
        self.energy += cut
        self.known = False

    def faded(self, weight: float) -> None:
        """Enter a multiplication of the table."""
        self.cut_off, self.perturbed = self.cut_off * weight, self.perturbed * weight
        self.energy, self.squares = self.energy * weight**2, self.squares * weight**2

    def removed(self, lost: float) -> None:
        """Enter the removal of rows or columns: no residual grows by it, but for a direction of this norm."""
        self.perturbed += lost
        self.grew = "mixed" if self.cut_off > 0.0 else ""
        self.known = False

    def norm(self, held: float) -> float:
        """``||A||_F``, or a lower bound, for a decomposition with this Frobenius norm."""
        return math.sqrt(self.squares) if self.known else max(held - self.bound, 0.0)

    def of_rank(self, tail: float) -> float:
        """Bound of the error after cutting off more, with this squared norm."""
        further = math.sqrt(tail)
        cut_off = self.cut_off + further if self.grew == "mixed" else math.hypot(self.cut_off, further)
        return cut_off + self.perturbed
