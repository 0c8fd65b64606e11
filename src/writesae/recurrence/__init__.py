"""The one recurrence that every host shares, in pure torch.

    S_t = diag(d_t) S_{t-1} - e_t (f_t^T S_{t-1}) + k_t v_t^T          o_t = S_t^T q_t

Nothing here knows a model. A host's family maps its gates to a `Stream`; everything else follows from it.
"""

from writesae.recurrence.adjoint import adjoint_products, adjoint_reference
from writesae.recurrence.branch import branch
from writesae.recurrence.replay import Replayed, replay, replay_reference
from writesae.recurrence.response import respond
from writesae.recurrence.stream import Stream, finite
from writesae.recurrence.updates import delta_values, native_values

__all__ = [
    "Replayed", "Stream", "adjoint_products", "adjoint_reference", "branch", "delta_values", "finite",
    "native_values", "replay", "replay_reference", "respond",
]  # fmt: skip
