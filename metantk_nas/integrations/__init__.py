"""Adapters to other people's tools; each imports its library when it is used, and names the extra that installs it."""
