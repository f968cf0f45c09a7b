from .kinds import KINDS as KINDS
from .reference import register_segmenter as register_segmenter
from .request import TaskRequest as TaskRequest
from .train import train_task as train_task
