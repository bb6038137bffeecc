"""For tests of programs that use Ray or miniray: the plugin for pytest."""
