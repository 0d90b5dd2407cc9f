"""report.html of a run, made of the files in its folder; and a page that compares several."""

from ignite_salak.report.page import reporting, write_comparison, write_report
from ignite_salak.report.run import read_run

__all__ = ["read_run", "reporting", "write_comparison", "write_report"]
