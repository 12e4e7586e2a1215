"""The jobs of the tour: each module here defines a `JOB`."""
