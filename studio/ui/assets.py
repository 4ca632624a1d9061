"""Files that the page asks for by themselves: the chart library, as it was installed."""

from importlib.util import find_spec
from pathlib import Path

from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles

# Relative in the page, so that it also works behind a proxy that adds a prefix.
PLOTLY = "/studio/plotly.min.js"


def asset_routes() -> list[BaseRoute]:
    """Where the chart library is served; the gate lets through this one file of its folder."""
    spec = find_spec("plotly")  # found, not imported: only its JavaScript is wanted
    assert spec is not None and spec.origin is not None, "plotly is in requirements.txt"
    folder = Path(spec.origin).parent / "package_data"
    return [Mount("/studio", StaticFiles(directory=folder), name="plotly")]
