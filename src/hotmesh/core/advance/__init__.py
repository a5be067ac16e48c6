"""Decides what events do to a job."""
