"""The machine and the command line: files, directories, faults, signals, options, and the runtime."""
