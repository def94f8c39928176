"""What every other part of the host uses: files, faults, signals and the runtime."""
