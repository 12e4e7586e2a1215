"""The jobs of `peers.py`: what is called side by side, how wrong each result is, and which ratio is the goal."""

from __future__ import annotations

from .completion import completion
from .contest import Contest, Job, Pair
from .implicit import ease, implicit
from .lowrank import interpolative, nystroem, svd_dense, svd_sparse, svd_update
from .nmf import dense as nmf_dense
from .nmf import divergence as nmf_kl
from .nmf import faces as nmf_faces
from .nmf import sparse as nmf_sparse
from .regression import lp, lstsq_easy, lstsq_hard
from .sampling import leverage, products, tensor_sketch
from .sketches import countsketch, csr_product, gaussian, philox, sparse_sign, srht
from .start import FIRST_CALLS, IMPORTS, first_call, imported, start
from .transport import iteration as transport_iteration
from .transport import newton as transport_newton
from .transport import sinkhorn as transport_sinkhorn

__all__ = ["FIRST_CALLS", "IMPORTS", "JOBS", "Contest", "Job", "Pair", "first_call", "imported"]

JOBS: dict[str, Job] = {
    "countsketch": countsketch,
    "sparse-sign": sparse_sign,
    "philox": philox,
    "srht": srht,
    "gaussian": gaussian,
    "csr-product": csr_product,
    "svd-dense": svd_dense,
    "svd-sparse": svd_sparse,
    "interpolative": interpolative,
    "svd-update": svd_update,
    "nystroem": nystroem,
    "lstsq-hard": lstsq_hard,
    "lstsq-easy": lstsq_easy,
    "leverage": leverage,
    "lp": lp,
    "products": products,
    "tensor-sketch": tensor_sketch,
    "completion": completion,
    "nmf-dense": nmf_dense,
    "nmf-faces": nmf_faces,
    "nmf-sparse": nmf_sparse,
    "nmf-kl": nmf_kl,
    "implicit": implicit,
    "ease": ease,
    "transport": transport_sinkhorn,
    "transport-newton": transport_newton,
    "transport-iteration": transport_iteration,
    "start": start,
}
