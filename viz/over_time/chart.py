"""Chart: a matplotlib figure that notebooks show by itself. Imported only where a plot is drawn."""

from __future__ import annotations

import io

from matplotlib.figure import Figure


class Chart(Figure):
    """A figure of no window and no pyplot: nothing to close, and no backend is chosen for it."""

    def _repr_png_(self) -> bytes:
        data = io.BytesIO()
        self.savefig(data, format="png", dpi=self.dpi)
        return data.getvalue()
