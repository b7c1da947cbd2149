"""The command line: it parses, calls and prints. Results go to stdout, progress and errors to stderr."""
