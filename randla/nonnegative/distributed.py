"""Factorisation of blocks that stay with their owners: agents on a graph agree on the common factor."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .._arrays import as_matrix, is_sparse
from .._checks import check_choice, check_integer, check_real
from .._random import as_key
from .._results import Result, Status, warn_or_raise
from .agents import MASKS, ConsensusAgent, Terms
from .ciphers import SAFE_BITS, cipher_of

USUAL = 8.0  # mean square of the rows of H, in the units of the agents, at which the weights of the method balance


@dataclass(frozen=True)
class ConsensusStep:
    """What a callback is told after an iteration; error and gap are known to who simulates all agents."""

    n_iter: int
    error: float
    gap: float


@dataclass(frozen=True, repr=False)
class ConsensusResult(Result):
    """The common factor, those of the agents, and what it took; iterates as ``W, H``.

    Attributes
    ----------
    W : array, shape (m, rank)
        Mean of the agents' copies of the common factor, nonnegative.
    H : tuple of array, shape (rank, n_i)
        The agents' own factors.
    copies : array, shape (n_agents, m, rank)
        The agents' copies of W.
    error : float
        Root of the sum of ``||X_i - W_i H_i||^2`` over that of ``||X_i||^2``, each agent with its own copy.
    gap : float
        Largest distance of a copy to W, relative to the norm of W.
    n_iter : int
        Iterations in all, those before a resume among them.
    history, gap_history : tuple of float
        Error and gap after each iteration of this call.
    n_messages, n_bytes : int
        Messages sent and their bytes, over all agents; a broadcast counts once for each who gets it.
    states : tuple of bytes
        The agents' states, to go on from; they hold factors and private keys.
    status : Status
        CONVERGED where masked differences and changes of W are small for every agent.
    """

    W: Any
    H: tuple[Any, ...]
    copies: Any
    error: float
    gap: float
    n_iter: int
    history: tuple[float, ...]
    gap_history: tuple[float, ...]
    n_messages: int
    n_bytes: int
    states: tuple[bytes, ...]
    status: Status

    _factors: ClassVar[tuple[str, ...]] = ("W", "H")


class ConsensusNMF:
    """Factorise blocks that stay with their agents, ``X_i ~ W H_i`` with a common factor W.

    Agents are the nodes of a graph and talk to their neighbours only.  Agent i keeps X_i, H_i and a copy W_i of the
    common factor; what it tells are masked differences of copies, encrypted.  The method is ADMM with multipliers for
    equal neighbours and for nonnegative copies [1]_.  This class runs all agents in one process; for machines of
    their own see `randla.nonnegative.agents.ConsensusAgent`, whose messages are bytes.

    Parameters
    ----------
    rank : int, rank >= 1
        Number of parts.
    graph : sequence of pairs (i, j), or array, shape (n_agents, n_agents)
        Edges, or a symmetric adjacency matrix; it must be connected.
    cipher : {"plain", "paillier"} or object, default "plain"
        "plain" sends masked differences in the clear: for simulations.  "paillier" needs the extra ``private``.  An
        object makes keys as `randla.nonnegative.ciphers.Cipher` says.
    key_bits : int, default 2048
        Size of Paillier's modulus; fewer bits warn.
    masks : {"entrywise", "scalar", "fixed"}, default "entrywise"
        A random mask for each entry and iteration; one for each message, which tells ratios of entries; one for each
        edge, which tells more.  The last two are there to compare with.
    mask_range : tuple of two float, default (0.7, 2.0)
        Masks are uniform in it.  A product of two masks weighs each difference.
    rho : float, rho > 0, default 2.0
        Weight of the multipliers for nonnegative copies.
    n_sweeps : int, default 5
        Coordinate sweeps of H in an iteration.
    scale : float, optional
        What all blocks are divided by.  By default it makes the mean over the agents of
        ``||X_i||_F^2 / (m rank scale^2)`` eight, near which the weights balance; agents tell this one number in the
        clear.
    max_iter : int, default 600
    tol : float, default 1e-5
        Stop where for every agent the sum of its masked differences is at most ``tol c ||W_i||_F``, with c the number
        of neighbours times the largest product of masks, and W_i changes by at most ``tol ||W_i||_F``.
    channel : callable, optional
        ``channel(sender, receiver, data) -> data`` is given each message on its way: to count, store, or disturb.
    callback : callable, optional
        Called with a `ConsensusStep` after each iteration; returning True ends the run.
    rng : None, int, SeedSequence, Generator or Key
        Source of the common start, which is public, and where given of the masks, which are predictable then: for
        tests.  With None masks come from the operating system.

    Raises
    ------
    ValueError, TypeError
        If a parameter is out of range, or the graph is not connected.
    ImportError
        If `lightphe` is not installed for "paillier".

    Notes
    -----
    With p_ij the product of the masks of agents i and j for an entry, ``D_i = sum_j p_ij (W_j - W_i)`` and a fixed
    weight ``c_i >= sum_j p_ij``, an iteration is: coordinate sweeps for H_i; ``V_i -= D_i / 2``;
    ``W_i = (X_i H_i.T - V_i + c_i W_i + D_i / 2 + rho (P_i - U_i)) (H_i H_i.T + (c_i + rho) I)^-1``;
    ``P_i = max(0, W_i + U_i)``; ``U_i += W_i - P_i``.  As c_i does not depend on the masks, those may change each time.
    The update equations of [1]_ could not be compared; these are ours.

    Numbers are sent as integers, W with 32 fractional bits and masks with 24.  A masked difference is off by less than
    2^-24, and the run under "paillier" equals the one under "plain" to the last bit where masks are equal.  What a
    neighbour can still infer, and what messages cost, is in the guide "Private factorisation".

    References
    ----------
    .. [1] Lari, Arablouei and Werner, "Privacy-preserving distributed nonnegative matrix factorization", 2024,
       arXiv:2403.18326.
    .. [2] Paillier, "Public-key cryptosystems based on composite degree residuosity classes", EUROCRYPT 1999.

    Examples
    --------
    >>> import numpy as np, randla
    >>> rng = np.random.default_rng(0)
    >>> W = rng.random((20, 3))
    >>> blocks = [W @ rng.random((3, 15)) for _ in range(4)]
    >>> ring = [(0, 1), (1, 2), (2, 3), (3, 0)]
    >>> result = randla.ConsensusNMF(3, ring, max_iter=300, rng=0).fit(blocks, on_failure="ignore")
    >>> result.error < 0.02, result.gap < 0.01, result.n_messages
    (True, True, 4808)
    """

    def __init__(
        self, rank: int, graph: Any, *, cipher: Any = "plain", key_bits: int = SAFE_BITS, masks: str = "entrywise",
        mask_range: tuple[float, float] = (0.7, 2.0), rho: float = 2.0, n_sweeps: int = 5, scale: float | None = None,
        max_iter: int = 600, tol: float = 1e-5, channel: Callable[[int, int, bytes], bytes] | None = None,
        callback: Callable[[ConsensusStep], object] | None = None, rng: Any = None,
    ) -> None:  # fmt: skip
        self.rank = check_integer(rank, "rank", low=1)
        self.neighbours = neighbours_of(graph)
        self.masks = check_choice(masks, "masks", MASKS)
        low, high = (check_real(part, "mask_range", low=2.0**-10, high=2.0**10) for part in mask_range)
        if low > high:
            raise ValueError(f"mask_range must ascend, got ({low:g}, {high:g})")
        self.mask_range = low, high
        self.rho = check_real(rho, "rho", low=0.0, closed="right")
        self.n_sweeps = check_integer(n_sweeps, "n_sweeps", low=1)
        self.scale = None if scale is None else check_real(scale, "scale", low=0.0, closed="right")
        self.max_iter = check_integer(max_iter, "max_iter", low=0)
        self.tol = check_real(tol, "tol", low=0.0)
        self.cipher = cipher_of(cipher, key_bits)
        self.channel, self.callback = channel, callback
        self.seeded, self.key = rng is not None, as_key(rng).fold("consensus")
        self.agents: list[ConsensusAgent] = []

    def fit(
        self, blocks: Sequence[Any], *, states: Sequence[bytes] | None = None, on_failure: str = "warn"
    ) -> ConsensusResult:
        """Run the agents until they agree, or for `max_iter` iterations.

        Where a message is refused, the error is raised, and `agents` hold the state after the last full iteration:
        ``[agent.to_bytes() for agent in model.agents]``.

        Parameters
        ----------
        blocks : sequence of arrays or sparse matrices, shape (m, n_i)
            The nonnegative block of each agent, NumPy or SciPy.
        states : sequence of bytes, optional
            States to go on from, of a result's `states`, with the same blocks and parameters.
        on_failure : {"warn", "raise", "ignore"}, default "warn"
            What to do if the status is not CONVERGED.

        Returns
        -------
        ConsensusResult

        Raises
        ------
        ValueError
            If blocks do not fit the graph or each other, have negative or non-finite entries, or a message is refused.
        OverflowError
            If a factor does not fit the fixed point.
        """
        blocks = list(blocks)
        if len(blocks) != len(self.neighbours):
            raise ValueError(f"blocks must have one for each of {len(self.neighbours)} agents, got {len(blocks)}")
        self.agents = self._made(blocks)
        if states is not None:
            if len(states) != len(blocks):
                raise ValueError(f"states must have one for each of {len(blocks)} agents, got {len(states)}")
            for agent, state in zip(self.agents, states, strict=True):
                agent.restore(state)
        self._exchange_keys()
        history: list[float] = []
        gaps: list[float] = []
        status, stopped = Status.MAX_ITER, False
        for _ in range(self.max_iter):
            self._iterate()
            error, gap = self._error(), self._gap()
            history.append(error)
            gaps.append(gap)
            if not math.isfinite(error):
                status = Status.NONFINITE
                break
            if all(max(agent.distance, agent.change) <= self.tol for agent in self.agents):
                status = Status.CONVERGED
                break
            if self.callback is not None and self.callback(ConsensusStep(self.agents[0].n_iter, error, gap)):
                stopped = True
                break
        result = self._result(history, gaps, status)
        return warn_or_raise(result, "ignore" if stopped else on_failure, what="ConsensusNMF")

    def _made(self, blocks: Sequence[Any]) -> list[ConsensusAgent]:
        blocks = [as_matrix(block, name=f"blocks[{i}]") for i, block in enumerate(blocks)]
        m = int(blocks[0].shape[0])
        scale = self.scale
        if scale is None:
            norms = [_norm(block) for block in blocks]
            scale = math.sqrt(sum((norm / max(norms)) ** 2 for norm in norms) / (USUAL * len(blocks) * m * self.rank))
            scale = scale * max(norms)
        terms = Terms(m, self.rank, self.key, scale, self.masks, self.mask_range, self.rho, self.n_sweeps)
        return [
            ConsensusAgent(i, self.neighbours[i], block, terms, self.cipher, self.key.fold(i) if self.seeded else None)
            for i, block in enumerate(blocks)
        ]

    def _carried(self, sender: int, receiver: int, data: bytes) -> bytes:
        return data if self.channel is None else self.channel(sender, receiver, data)

    def _exchange_keys(self) -> None:
        for agent in self.agents:
            data = agent.hello()
            for j in agent.neighbours:
                self.agents[j].meet(self._carried(agent.number, j, data))

    def _iterate(self) -> None:
        """All messages first: no agent moves before every one has all its answers."""
        for agent in self.agents:
            agent.forget()
        for agent in self.agents:
            data = agent.offer()
            for j in agent.neighbours:
                reply = self.agents[j].answer(self._carried(agent.number, j, data))
                agent.receive(self._carried(j, agent.number, reply))
        for agent in self.agents:
            agent.advance()

    def _error(self) -> float:
        parts = [agent.squares for agent in self.agents]
        whole = sum(norm for _, norm in parts)
        return math.sqrt(max(sum(rest for rest, _ in parts), 0.0) / whole) if whole > 0 else 0.0

    def _gap(self) -> float:
        copies = np.stack([agent.W for agent in self.agents])
        mean = copies.mean(axis=0)
        size = float(np.linalg.norm(mean))
        return float(np.linalg.norm(copies - mean, axis=(1, 2)).max()) / size if size > 0 else 0.0

    def _result(self, history: list[float], gaps: list[float], status: Status) -> ConsensusResult:
        copies = np.stack([agent.W for agent in self.agents])
        return ConsensusResult(
            copies.mean(axis=0), tuple(agent.H for agent in self.agents), copies, self._error(), self._gap(),
            self.agents[0].n_iter, tuple(history), tuple(gaps), sum(agent.n_messages for agent in self.agents),
            sum(agent.n_bytes for agent in self.agents), tuple(agent.to_bytes() for agent in self.agents), status,
        )  # fmt: skip


def _norm(block: Any) -> float:
    """Frobenius norm; NaN and infinities are told of later."""
    values = np.abs(np.asarray(block.data if is_sparse(block) else block)).astype(np.float64)
    largest = float(np.max(values)) if values.size else 0.0
    if not 0 < largest < math.inf:
        return 1.0
    return largest * float(np.linalg.norm((values / largest).ravel()))


def neighbours_of(graph: Any) -> list[list[int]]:
    """The neighbours of each agent, of edges or an adjacency matrix.

    Raises
    ------
    ValueError
        If it is not symmetric, has loops, or is not connected.
    """
    table = np.asarray(graph.toarray() if is_sparse(graph) else list(graph))
    if table.ndim == 2 and table.shape[0] == table.shape[1] and table.shape[0] != 2:
        if not np.array_equal(table != 0, table.T != 0):
            raise ValueError("graph must be symmetric as an adjacency matrix, got another")
        edges = np.argwhere(table != 0)
        n = table.shape[0]
    elif table.ndim == 2 and table.shape[1] == 2 and table.dtype.kind in "iu":
        edges = table
        n = int(table.max()) + 1
    else:
        raise ValueError(f"graph must be pairs of agents or an adjacency matrix, got shape {table.shape}")
    if bool(np.any(edges < 0)) or bool(np.any(edges[:, 0] == edges[:, 1])):
        raise ValueError("graph must join different agents with numbers from 0, got a loop or a negative number")
    sets: list[set[int]] = [set() for _ in range(n)]
    for i, j in edges.tolist():
        sets[i].add(j)
        sets[j].add(i)
    reached, waiting = {0}, [0]
    while waiting:
        for j in sets[waiting.pop()] - reached:
            reached.add(j)
            waiting.append(j)
    if len(reached) < n:
        raise ValueError(f"graph must be connected, got no path from 0 to {sorted(set(range(n)) - reached)}")
    return [sorted(part) for part in sets]
