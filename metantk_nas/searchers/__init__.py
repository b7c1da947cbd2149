"""Searchers: who is scored next. They see scores, never networks."""
