"""Training dictionaries from stream stores, resumable to the bit."""

from writesae.train.config import TrainConfig
from writesae.train.log import Logger, StepRecord, open_logger
from writesae.train.loop import TrainResult, train

__all__ = ["Logger", "StepRecord", "TrainConfig", "TrainResult", "open_logger", "train"]
