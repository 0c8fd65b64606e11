"""Training dictionaries from stream stores, resumable to the bit."""

from writesae.training.config import TrainConfig
from writesae.training.log import Logger, StepRecord, open_logger
from writesae.training.loop import TrainResult
from writesae.training.many import train, train_many

__all__ = ["Logger", "StepRecord", "TrainConfig", "TrainResult", "open_logger", "train", "train_many"]
