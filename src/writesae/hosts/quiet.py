"""A model in evaluation mode and with frozen weights while anybody runs it, and afterwards as it was."""

from __future__ import annotations

import threading
from types import TracebackType

from torch import nn


class Quiet:
    """A context that any number of threads may be in; the last to leave puts everything back."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._lock = threading.Lock()
        self._users = 0
        self._training: list[nn.Module] = []
        self._learning: list[nn.Parameter] = []

    def hush(self) -> None:
        """Quieten the model."""
        self._training = [module for module in self.model.modules() if module.training]
        self._learning = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self._set(False)

    def _set(self, lively: bool) -> None:
        for module in self._training:
            module.training = lively
        for parameter in self._learning:
            parameter.requires_grad_(lively)

    def __enter__(self) -> None:
        with self._lock:
            self._users += 1
            if self._users == 1:
                self.hush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._set(True)
