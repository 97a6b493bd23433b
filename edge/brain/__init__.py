"""Hear, think and speak."""
