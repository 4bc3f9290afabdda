"""Matrices of runs: what there is to run, doing it, and tables of what came out."""
