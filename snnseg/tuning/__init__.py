"""Sweeps: which numbers give the best net, found by trials that train side by side."""
