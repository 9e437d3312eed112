"""Sweeps: many runs of the main program, compared. plan -> runner -> collect -> report."""
