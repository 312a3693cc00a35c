"""Workloads measured beside their peers in the same run. ``make bench`` runs them and prints one table at the end."""
