__version__: str

from .slides import open_slide as open_slide
from .store import open_pairs as open_pairs
