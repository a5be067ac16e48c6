"""Runs callbacks: claims, leases, answers."""
