"""Learners: a network that grows and one Avalanche plugin per method."""
