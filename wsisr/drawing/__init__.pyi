from .charts import Chart as Chart
from .charts import ChartSeries as ChartSeries
from .charts import chart as chart
from .charts import histogram as histogram
from .fields import funnel as funnel
from .fields import residual_field as residual_field
from .sheets import SheetImage as SheetImage
from .sheets import sheet as sheet
