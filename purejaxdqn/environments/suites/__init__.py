"""One adapter for each suite: a file named after its package, imported when one of its environments is made.

Each has ``make(name, kwargs) -> Single``. Only these files import the suites.
"""
