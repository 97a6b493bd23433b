"""Decide where a prompt is answered; pure."""
