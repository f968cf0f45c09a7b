from .pipeline import evaluate as evaluate
from .settings import EvalSettings as EvalSettings
from .settings import parse_scales as parse_scales
from .tasks import Task as Task
from .tasks import against_label as against_label
from .tasks import of_image as of_image
