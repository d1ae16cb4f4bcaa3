"""A report of a whole run: a folder with a page that opens from disk."""

from igos_pl.report.write import ReportSettings, write_report

__all__ = ["ReportSettings", "write_report"]
