"""The shell of every page: set-up, address, theme, words, images."""
