"""Growing loads as a picture; the one module that imports matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from models.errors import ConfigError

_SIZE_INCHES = (8.0, 4.5)


def plot(rows: Sequence[Mapping[str, Any]], path: Path, *, title: str) -> None:
    """Draw first audio and processor time over the number of devices into ``path``, .svg or .png by its ending.

    Raises ConfigError when matplotlib is absent or the file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("a plot needs matplotlib: pip install 'xiaozhi-fleet[plot]'") from error
    figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
    FigureCanvasAgg(figure)
    left = figure.add_subplot()
    devices = [row["devices"] for row in rows]
    for mark, style in (("p95", "-o"), ("p50", "--o")):
        left.plot(
            devices, [row["first_audio_ms"][mark] for row in rows], style, color="tab:blue", label=f"first audio {mark}"
        )
    left.set(xlabel="devices at once", ylabel="ms after the last audible packet", title=title)
    left.set_ylim(bottom=0)
    left.grid(visible=True, alpha=0.3)
    right = left.twinx()
    right.plot(devices, [row["server_cpu_cores"] for row in rows], "-s", color="tab:orange", label="gateway and brain")
    right.set_ylabel("cores")
    right.set_ylim(bottom=0)
    broken = [row["devices"] for row in rows if row["broken"]]
    if broken:
        left.axvline(min(broken), color="tab:red", linestyle=":", label=f"breaks at {min(broken)}")
    handles, labels = left.get_legend_handles_labels()
    more_handles, more_labels = right.get_legend_handles_labels()
    left.legend(handles + more_handles, labels + more_labels, loc="upper left")
    try:
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be drawn: {error}; use a name that ends in .svg or .png") from error
