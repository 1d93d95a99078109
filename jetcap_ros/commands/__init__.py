"""One file a command of `jetcap`."""
