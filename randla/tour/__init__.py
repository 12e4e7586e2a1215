"""The tour: randla beside the customary methods on real data, as a table, pictures and one HTML page.

A job is one small module in `randla.tour.jobs` with a `JOB`; it is found by its being there.
"""

from __future__ import annotations

from .job import Figure, Job, Outcome, Row, Table
from .runner import find_jobs, run_tour

__all__ = ["Figure", "Job", "Outcome", "Row", "Table", "find_jobs", "run_tour"]
