"""The only place where spaces, data, scorers, searchers, learners and reports meet."""
