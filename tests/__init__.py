"""Tests of randla; a package, so that ``tests.statistics`` does not hide the module of the standard library."""
