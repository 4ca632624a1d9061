"""Files that the page asks for by themselves: the chart library, as it was installed."""

from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles

from studio.arena.outcome.charts import plotly_file

# Relative in the page, so that it also works behind a proxy that adds a prefix.
PLOTLY = "/studio/plotly.min.js"


def asset_routes() -> list[BaseRoute]:
    """Where the chart library is served; the gate lets through this one file of its folder."""
    return [Mount("/studio", StaticFiles(directory=plotly_file().parent), name="plotly")]
