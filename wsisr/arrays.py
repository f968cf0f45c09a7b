"""The kinds of arrays that signatures name: what one element is. What an array holds, and its
axes, are said by the name and the docstring of the parameter.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

AnyArray = NDArray[Any]
BoolArray = NDArray[np.bool_]
UInt8Array = NDArray[np.uint8]
UInt16Array = NDArray[np.uint16]
UInt64Array = NDArray[np.uint64]
Int16Array = NDArray[np.int16]
Int32Array = NDArray[np.int32]
Int64Array = NDArray[np.int64]
Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]
# An image whose values are the numbers of objects, 0 for none, in any kind of integers.
LabelMap = NDArray[np.integer[Any]]
