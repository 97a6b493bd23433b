"""Remember answers: a ladder of tiers, each of which may fail."""
