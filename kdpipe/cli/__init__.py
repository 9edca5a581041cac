"""The command line: ``kdpipe``, a module a command."""
