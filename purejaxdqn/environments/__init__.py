"""Environments: one record for all suites, one adapter for each suite."""
