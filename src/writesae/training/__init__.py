"""Training dictionaries from stream stores, resumable to the bit."""

from writesae.training.config import TrainConfig
from writesae.training.log import Logger, StepRecord, open_logger
from writesae.training.many import train, train_many
from writesae.training.result import TrainResult

__all__ = ["Logger", "StepRecord", "TrainConfig", "TrainResult", "open_logger", "train", "train_many"]
