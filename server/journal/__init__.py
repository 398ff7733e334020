"""The journal: a log of commits, a fold, and the stores that hold it."""
