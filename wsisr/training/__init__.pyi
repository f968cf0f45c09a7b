from .config import TrainConfig as TrainConfig
from .data import PairDataset as PairDataset
from .engine import Outcome as Outcome
from .errors import TrainingError as TrainingError
from .presets import resolve_config as resolve_config
from .request import TrainRequest as TrainRequest
from .start import train as train
