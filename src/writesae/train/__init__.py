"""Training dictionaries from stream stores, resumable to the bit.

This package is callable, `writesae.train(store, config, out)`: the function of that name is what people mean, and an
import of the package would otherwise hide it behind the module.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from writesae.train.config import TrainConfig
from writesae.train.data import WriteStore
from writesae.train.log import Logger, StepRecord, open_logger
from writesae.train.loop import TrainResult, train
from writesae.train.many import train_many

__all__ = ["Logger", "StepRecord", "TrainConfig", "TrainResult", "open_logger", "train", "train_many"]


class _Callable(ModuleType):
    def __call__(
        self, store: WriteStore, config: TrainConfig, out: str | Path, loggers: Sequence[Logger] = ()
    ) -> TrainResult:
        return train(store, config, out, loggers)


sys.modules[__name__].__class__ = _Callable
