"""Executors: each runs a schedule. on_numpy is the default and the reference for all others."""
