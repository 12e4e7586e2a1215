"""What the estimators share: one intake, one adapter from `random_state` to a key, one rule for their width."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.callback import CallbackSupportMixin
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted, validate_data

from .._checks import check_integer
from .._random import Key, as_key

FLOATS = (np.float64, np.float32)  # the first one is the target of integers, bools and float16


def key_of(random_state: Any) -> Key:
    """Turn what scikit-learn calls a random state into a Key.

    An int, a SeedSequence or a Key gives the same key at every call; a Generator and a legacy RandomState are consumed;
    None asks the system for entropy and not NumPy's global state, so `numpy.random.seed` has no effect on it.
    """
    if isinstance(random_state, np.random.RandomState):
        lo, hi = random_state.randint(0, 2**32, size=2, dtype=np.uint32)
        return Key(int(lo), int(hi))
    try:
        return as_key(random_state)
    except (TypeError, ValueError) as error:
        raise type(error)("random_state" + str(error).removeprefix("rng")) from None


class Reducer(ClassNamePrefixFeaturesOutMixin, CallbackSupportMixin, TransformerMixin, BaseEstimator):
    """Base of the transformers that map n_features columns to n_components_ columns."""

    n_components_: int

    @property
    def _n_features_out(self) -> int:
        return self.n_components_

    def _intake(self, X: Any, *, reset: bool) -> Any:
        """Return X as finite float32 or float64, dense or CSR or CSC; nothing is copied that has this form already."""
        if not reset:
            check_is_fitted(self)
        return validate_data(self, X, accept_sparse=("csr", "csc"), dtype=FLOATS, reset=reset)

    def _intake_reduced(self, X: Any) -> np.ndarray:
        """The argument of `inverse_transform`: dense, with n_components_ columns."""
        check_is_fitted(self)
        X = check_array(X, dtype=FLOATS, input_name="X", estimator=self)
        if X.shape[1] != self.n_components_:
            raise ValueError(f"X must have n_components_={self.n_components_} columns, got {X.shape[1]}")
        return X

    def _check_components(self, value: Any, X: Any, *, of: str) -> int:
        """`n_components` as an int that the shape of X allows; `of` says which sizes bound it."""
        n_samples, n_features = X.shape
        sizes = {"n_features": n_features} if of == "n_features" else {"n_samples": n_samples, "n_features": n_features}
        number, bound = check_integer(value, "n_components", low=1), min(sizes.values())
        if number > bound:
            named = ", ".join(f"{name}={size}" for name, size in sizes.items())
            raise ValueError(f"n_components must be at most {bound} for data with {named}, got {number}")
        return number

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
