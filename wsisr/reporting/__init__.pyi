from .page import Page as Page
from .page import figure as figure
from .page import flicker as flicker
from .page import table as table
from .writing import write_report as write_report
