"""Unmixing of spectral images: abundances that are sparse, sum to one, and vary little between similar neighbours."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from .._checks import check_integer, check_real
from .._random import as_key
from .._results import warn_or_raise
from .frobenius import Step
from .results import NMFResult
from .unmixing import Mixture, check_image, first_factors, mixture, pixel_graph, unmix

STARTS = ("spa",)


@dataclass(frozen=True, repr=False)
class StructuredNMFResult(NMFResult):
    """Endmembers and abundances ``X ~ W H`` of a spectral image.

    Attributes
    ----------
    W : array, shape (m, rank)
        Endmembers: spectra of the materials.
    H : array, shape (rank, n)
        Abundances: their shares in each pixel.
    objective : float
        The objective of `structured_nmf`, for X over its largest entry.
    history : tuple of float
        The objective at the start and after each iteration; it never rises beyond rounding.
    sum_error : float
        Root mean square of ``sum(H[:, j]) - 1`` over the pixels that are not zero.
    image_shape : tuple of two int, or None
        Height and width of the image.
    error, error_kind, loss, stationarity, solver, reason, n_iter, n_passes, start_objectives, n_revived, status
        As in `NMFResult`; stationarity is not computed.
    """

    sum_error: float = math.nan
    image_shape: tuple[int, int] | None = None

    def maps(self) -> Any:
        """Return the abundances as images, shape (rank, height, width)."""
        if self.image_shape is None:
            raise ValueError("maps must be of an image, got no image_shape; pass it to structured_nmf")
        from array_api_compat import array_namespace

        return array_namespace(self.H).reshape(self.H, (self.rank, *self.image_shape))


def structured_nmf(
    X: Any, rank: int, *, image_shape: tuple[int, int] | None = None, smoothness: float = 0.0, connectivity: int = 8,
    sparsity: float = 0.0, penalty: str = "l1", sum_to_one: float = 5.0, endmembers: Any = None, init: Any = "spa",
    max_iter: int = 500, tol: float = 1e-5, callback: Callable[[Step], object] | None = None, rng: Any = None,
    on_failure: str = "warn",
) -> StructuredNMFResult:  # fmt: skip
    """Unmix a spectral image, ``X ~ W H`` with endmembers W and abundances H, both nonnegative.

    For X divided by its largest entry it minimises ``||X - W H||_F^2 / 2 + sum_to_one^2 / 2 sum_j (1 - sum(H[:, j]))^2
    + sparsity phi(H) + smoothness / 2 sum_ij a_ij ||H[:, i] - H[:, j]||^2`` over neighbouring pixels, i < j counted
    once, with weights ``a_ij = exp(-||x_i - x_j||^2 / sigma)`` and sigma the median of the squares.  An iteration costs
    ``6 m n rank`` flops, and ``80 n rank`` for the graph.

    Parameters
    ----------
    X : array, shape (m, n)
        Nonnegative spectra of m bands; columns are pixels, row by row of the image.  Not changed.
    rank : int, rank >= 0
        Number of endmembers.
    image_shape : tuple of two int, optional
        Height and width with ``height * width = n``; needed for smoothness.
    smoothness : float, smoothness >= 0, default 0
        Weight of the graph.
    connectivity : {4, 8}, default 8
        Neighbours of a pixel.
    sparsity : float, sparsity >= 0, default 0
        Weight of ``phi(H)``.
    penalty : {"l1", "l1/2"}, default "l1"
        phi: the sum of the entries, or of their square roots, which are continued linearly below 1e-6.
    sum_to_one : float, sum_to_one >= 0, default 5
        Strength with which the abundances of a pixel are pulled to a sum of one.
    endmembers : array, shape (m, rank), optional
        Known W, which stays as it is: only the abundances are fitted.
    init : "spa" or tuple (W, H), default "spa"
        "spa": pixels that successive projections take (`spa`).
    max_iter : int, default 500
    tol : float, default 1e-5
        Stop where the objective falls by at most `tol` of itself over an iteration.
    callback : callable, optional
        Called with a `Step` after each iteration; returning True ends the run.
    rng : None, int, SeedSequence, Generator or Key
        Fills up the start where X has fewer directions than `rank`.
    on_failure : {"warn", "raise", "ignore"}, default "warn"
        What to do if the status is not CONVERGED.

    Returns
    -------
    StructuredNMFResult
        ``W`` (m, rank) and ``H`` (rank, n), with `maps`; iterates as ``W, H``.

    Raises
    ------
    ValueError
        If X has negative entries, NaN or infinity, the image does not fit, or a parameter is out of range.
    TypeError
        If X is sparse, complex or not numeric.

    Notes
    -----
    Half steps are exact nonnegative least squares by pivoting, of W always.  For H the graph's term is replaced by a
    quadratic with the Laplacian's largest possible eigenvalue, square roots by their tangents, five times in an
    iteration: majorants, so the objective falls.

    With sums of exactly one the sum of the entries is a constant: "l1" acts through the softness of the sums only.
    Smoothing pays where noise is strong and neighbours are alike, and blurs where they are not; it acts on abundances,
    and spectra of endmembers hardly change.  See :doc:`/unmixing` for figures.

    Pixels of zeros have zero abundances and no neighbours.

    Deviation from [1]_: half steps in place of multiplicative updates, of which 3,000 do not reach the objective of 10
    iterations here (1,600 pixels of 120 bands, 4 endmembers, with and without smoothness).

    References
    ----------
    .. [1] Zhu, Wang, Xiang, Fan and Pan, "Structured sparse method for hyperspectral unmixing", ISPRS J. Photogrammetry
       and Remote Sensing 88, 2014, arXiv:1403.4682.
    .. [2] Qian, Jia, Zhou and Robles-Kelly, "Hyperspectral unmixing via L1/2 sparsity-constrained nonnegative matrix
       factorization", IEEE TGRS 49, 2011.

    Examples
    --------
    >>> import randla
    >>> cube = randla.datasets.spectral_cube(60, (20, 20), 3, snr=40, rng=0)
    >>> result = randla.structured_nmf(cube.X, 3, image_shape=cube.image_shape, smoothness=0.1)
    >>> result.maps().shape, result.error < 0.02
    ((3, 20, 20), True)
    """
    model = mixture(X, sum_to_one=sum_to_one, sparsity=sparsity, penalty=penalty)
    rank = check_integer(rank, "rank", low=0)
    smoothness = check_real(smoothness, "smoothness", low=0.0)
    max_iter, tol = check_integer(max_iter, "max_iter", low=0), check_real(tol, "tol", low=0.0)
    shape = None
    if image_shape is not None:
        shape, connectivity = check_image(image_shape, model.data.shape[1], connectivity)
    elif smoothness > 0:
        raise ValueError("image_shape must be given for smoothness > 0, got None; pass (height, width)")
    if smoothness > 0 and shape is not None:
        graph = pixel_graph(model.data.X, shape, connectivity, model.seen, model.xp)
        model = replace(model, graph=graph, smoothness=smoothness)
    key = as_key(rng).fold("structured_nmf")
    W, H = first_factors(model, rank, init, endmembers, key, STARTS)
    state = unmix(model, W, H, free=endmembers is None, max_iter=max_iter, tol=tol, callback=callback)
    result = StructuredNMFResult(
        state.W * model.unit, state.H, relative_error(model, state), "frobenius", state.objective,
        solver="pivots", reason="exact half steps on majorants", n_iter=state.n_iter, n_passes=3.0 * state.n_iter,
        history=tuple(state.history), start_objectives=(state.objective,), status=state.status,
        sum_error=sum_error(model, state.H), image_shape=shape,
    )  # fmt: skip
    return warn_or_raise(result, "ignore" if state.stopped else on_failure, what="structured_nmf")


def relative_error(model: Mixture, state: Any) -> float:
    """||X - W H||_F / ||X||_F, without weights."""
    squares = float(model.xp.sum(model.band_errors(state.W, state.H)))
    return math.sqrt(squares / model.data.squared_norm) if model.data.squared_norm > 0 else 0.0


def sum_error(model: Mixture, H: Any) -> float:
    """Root mean square of what sums of abundances miss of one, over pixels that are not zero."""
    xp, count = model.xp, float(model.xp.sum(model.seen))
    gap = (xp.sum(xp.astype(H, xp.float64), axis=0) - 1.0) * model.seen
    return math.sqrt(float(xp.sum(gap * gap)) / count) if count else 0.0
