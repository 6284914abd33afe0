"""What a run did, as one HTML file: tables, curves and rollout trees, without a script or a network."""

from firstfault.report.picture import tree_svg
from firstfault.report.write import write_report

__all__ = ["tree_svg", "write_report"]
