from .definition import Budget as Budget
from .definition import Study as Study
from .definition import load_study as load_study
from .definition import study_names as study_names
from .running import run_study as run_study
from .tables import study_table as study_table
