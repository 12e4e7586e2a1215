"""What transport solvers return, and plans that are made when they are asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

from .._results import Result, Status
from .rounding import RoundedPlan, rounded_plan, unregularised_dual


class TransportStep(NamedTuple):
    """What one step left: one record of the history of `sinkhorn`."""

    method: str  #: "sweep" or "newton"
    reg: float  #: regularisation of the step
    marginal_error: float  #: ``||T 1 - a||_1 + ||T.T 1 - b||_1`` before it
    dual: float  #: dual value before it
    density: float = math.nan  #: share of the plan's entries kept in the Hessian
    n_inner: int = 0  #: conjugate gradient steps
    direct: bool = False  #: whether a factorisation gave the step
    length: float = 1.0  #: step length


class TransportPlan:
    """The plan ``T_ij = exp((f_i + g_j - C_ij) / reg)`` as an operator: products are made from the costs.

    Parameters
    ----------
    cost : Cost
        Costs, shape (n, m).
    f, g : array
        Potentials (n,) and (m,), float64.
    reg : float
        Regularisation.

    Examples
    --------
    >>> import numpy as np, randla
    >>> plan = randla.sinkhorn(None, None, np.array([[0.0, 1.0], [1.0, 0.0]]), 0.01).plan
    >>> plan.matmul(np.array([1.0, 3.0])).round(6)
    array([0.5, 1.5])
    >>> plan.to_sparse().nnz
    2
    """

    def __init__(self, cost: Any, f: Any, g: Any, reg: float) -> None:
        self.cost, self.f, self.g, self.reg = cost, f, g, reg
        self.shape = cost.shape

    def matmul(self, V: Any) -> Any:
        """Return ``T V`` for V (m, k) or (m,), without storing T; ``O(n m (k + 1))`` operations."""
        product = self.cost.transport(self.f, self.g, self.reg, V[:, None] if V.ndim == 1 else V)
        return product[:, 0] if V.ndim == 1 else product

    def rmatmul(self, U: Any) -> Any:
        """Return ``T.T U`` for U (n, k) or (n,), without storing T."""
        return self.T.matmul(U)

    @property
    def T(self) -> TransportPlan:  # the name of the transpose
        """The plan of the opposite direction."""
        return TransportPlan(self.cost.T, self.g, self.f, self.reg)

    def to_dense(self) -> Any:
        """Return the plan as an array (n, m), float64."""
        return self.cost.plan(self.f, self.g, self.reg)

    def to_sparse(self, share: float = 1e-6) -> Any:
        """Return the plan as a SciPy CSR matrix without its smallest entries: at most `share` of each row's sum."""
        from scipy.sparse import csr_array

        from .._arrays import to_host

        parts = self.cost.entries(self.f, self.g, self.reg, share)
        data, indices, indptr = (to_host(part) for part in parts)
        return csr_array((data, indices, indptr), shape=self.shape)

    def __repr__(self) -> str:
        return f"TransportPlan(shape={self.shape}, reg={self.reg:.3g})"


@dataclass(frozen=True, repr=False)
class TransportResult(Result):
    """Solution of entropic transport by its potentials; iterates as ``(f, g)``.

    Attributes
    ----------
    f : array, shape (n,)
        Potential of the rows, float64, in units of cost; -inf where ``a`` is 0.  ``T = exp((f_i + g_j - C_ij) / reg)``.
    g : array, shape (m,)
        Potential of the columns; its mean, weighted by b, is 0.
    a, b : array
        Masses of the rows (n,) and columns (m,), float64.
    cost : float
        ``sum_ij T_ij C_ij`` of the plan of f and g.
    value : float
        Regularised optimum as the dual tells it: ``a.f + b.g - reg sum(T) + reg sum(a)``, at the solution ``<T, C> +
        reg sum T log T``.
    marginal_error : float
        ``||T 1 - a||_1 + ||T.T 1 - b||_1``, measured at the end, over ``sum(a)``.
    reg : float
        Regularisation, absolute.
    method : str
        "sinkhorn", "log" or "newton", with which it ended.
    n_iter : int
        Sinkhorn sweeps, those at larger regularisations included.
    n_newton : int
        Newton steps.
    history : tuple of TransportStep
        One record for each step.
    plan : TransportPlan
        The plan, made when it is asked for.
    status : Status
        How it ended.
    """

    f: Any
    g: Any
    a: Any
    b: Any
    cost: float
    value: float
    marginal_error: float
    reg: float
    method: str
    n_iter: int = 0
    n_newton: int = 0
    history: tuple[TransportStep, ...] = ()
    plan: Any = field(default=None)
    status: Status = Status.CONVERGED

    _factors: ClassVar[tuple[str, ...]] = ("f", "g")

    @cached_property
    def rounded(self) -> RoundedPlan:
        """The plan brought to both marginals exactly; made at the first look, by three passes over the costs."""
        return rounded_plan(self.plan, self.a, self.b)

    @property
    def rounded_cost(self) -> float:
        """Cost of the rounded plan: an upper bound of the cost of exact transport.

        With forbidden pairs it is inf where what is missing from the marginals would have to take one.
        """
        return self.rounded.price

    @cached_property
    def lower_bound(self) -> float:
        """A lower bound of the cost of exact transport: the dual value of g, with the best f for it without entropy."""
        return unregularised_dual(self.plan, self.a, self.b)

    @property
    def gap(self) -> float:
        """``rounded_cost - lower_bound``: how far either can be from the cost of exact transport."""
        return self.rounded_cost - self.lower_bound
