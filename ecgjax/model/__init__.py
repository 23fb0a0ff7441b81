"""An exported encoder with its preparation: loaded from a folder, checked, and applied to recordings as they come."""

from ecgjax.model.applied import Model, Tokens
from ecgjax.model.load import load
from ecgjax.model.preparation import Prepared

__all__ = ["Model", "Prepared", "Tokens", "load"]
