"""Room 10: a run as a page without a server."""

from afterglow.report.page import write_report

__all__ = ["write_report"]
