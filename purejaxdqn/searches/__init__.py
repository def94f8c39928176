"""Searches: Bayesian optimisation over trials, with successive halving."""
