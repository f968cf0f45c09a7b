from .charts import Chart as Chart
from .charts import Series as Series
from .charts import chart as chart
from .charts import histogram as histogram
from .page import Page as Page
